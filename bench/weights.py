"""Random weights of the published shapes: speed is real, text is not."""

from __future__ import annotations

import shutil
from pathlib import Path

SHAPES = {
    "1b": {"dim": 2048, "num_layers": 16, "num_heads": 32, "head_dim": 64, "ffn_dim": 8192},
    "3b": {"dim": 3072, "num_layers": 28, "num_heads": 24, "head_dim": 128, "ffn_dim": 8192},
}
"""Llama 3.2."""


def write_hf(path: Path, shape: dict[str, int], *, with_tokenizer: bool = False) -> None:
    """A checkpoint filled with noise of a size that keeps activations sane; Llama 3's tokenizer beside it if wanted."""
    import torch

    from llamakit.checkpoints.save import save_hf
    from llamakit.core.model_config import ModelConfig, RopeScaling
    from llamakit.models.llama import Llama

    config = ModelConfig(
        vocab_size=128256,
        num_kv_heads=8,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(factor=32),
        tie_embeddings=True,
        context_length=131_072,
        **shape,
    )
    model = Llama(config, dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.02)
    save_hf(model, config, path)
    if with_tokenizer:
        import llama_models.llama3

        shutil.copy(Path(llama_models.llama3.__file__).parent / "tokenizer.model", path)
