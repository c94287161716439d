"""Small stand-ins for the tests: a two-layer random Llama, a byte tokenizer, a clock that obeys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from llamakit.checkpoints.reader import Generation
from llamakit.checkpoints.save import save_hf
from llamakit.core.model_config import ModelConfig
from llamakit.models.llama import Llama, initialize
from llamakit.text.specials import llama3_specials
from llamakit.text.tiktoken_file import write_ranks

TINY_VOCAB = 512
"""256 bytes and the 256 control tokens of Llama 3."""
SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|start_header_id|>")


def tiny_config(**changes: object) -> ModelConfig:
    """A two-layer shape with grouped queries; `changes` replace fields."""
    shape: dict[str, object] = {
        "vocab_size": 320,
        "dim": 64,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 16,
        "ffn_dim": 96,
        "rope_theta": 10_000.0,
        "tie_embeddings": True,
        "context_length": 1024,
    }
    return ModelConfig(**(shape | changes))  # type: ignore[arg-type]


def tiny_llama(
    seed: int = 0, *, dtype: torch.dtype = torch.float32, sharpness: float = 5.0, **changes: object
) -> Llama:
    """A random model whose distributions are peaked enough that tokens differ from one another."""
    model = Llama(tiny_config(**changes))
    initialize(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(sharpness)
    return model.to(dtype).eval()


def tiny_checkpoint(path: Path, seed: int = 0, *, dtype: torch.dtype = torch.float32, **changes: object) -> Path:
    """A Hugging Face directory with random weights and a byte-level tokenizer in the Llama 3 format."""
    vocabulary = path.parent / f"{path.name}-tokenizer"
    vocabulary.mkdir(parents=True)
    write_ranks(vocabulary / "tokenizer.model", [bytes([byte]) for byte in range(256)])
    special = llama3_specials(256)
    model = tiny_llama(seed, **({"vocab_size": TINY_VOCAB, "context_length": 4096} | changes))
    ends = tuple(special[name] for name in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"))
    generation = Generation(bos_id=special["<|begin_of_text|>"], eos_ids=ends)
    return save_hf(model, model.config, path, dtype=dtype, generation=generation, tokenizer=vocabulary)


class ByteTokenizer:
    """One id a byte, then a few specials; satisfies the Tokenizer protocol."""

    kind = "bytes"
    vocab_size = 256 + len(SPECIALS)
    special: Mapping[str, int] = {name: 256 + i for i, name in enumerate(SPECIALS)}
    bos_id = 256
    eos_ids = (257, 258, 259)

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", errors="replace"))

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.token_bytes(i) for i in ids).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""

    def is_special(self, token_id: int) -> bool:
        return token_id >= 256


class FakeClock:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
