"""Does our 4-bit quantization lose more than llama.cpp's Q4_0, on the same weights and the same text?

    python bench/quant_quality.py [--models cria outliers] [--tokens 8192] [--out results.json]

Every way of computing is compared with the weights as released in float32, token by token (`llama eval quant` does the
same without a peer): ours from the checkpoint, llama.cpp's from the GGUF files that we write, whose Q4_0 and Q8_0
blocks are byte for byte those of its own quantizer. `outliers` is a model of random weights with what makes trained
ones hard: heavy tails, rows and columns of unequal size, and a few channels of the residual stream far above the
others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llamakit.checkpoints.convert import convert
from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.save import save_hf
from llamakit.core.model_config import ModelConfig
from llamakit.evals.divergence import LogProbs, Reference, Window
from llamakit.evals.texts import held_out
from llamakit.hub.locate import resolve_model
from llamakit.models.llama import Llama, initialize
from llamakit.runtime.scoring import load_scorer
from llamakit.text.formats.resolve import resolve_format
from llamakit.text.tokenizer import load_tokenizer

OURS = ("bf16", "int8", "int4", "q8_0", "q4_0", "q4_k_m")
THEIRS = ("q8_0", "q4_0", "q4_k_m")
WINDOW = 512
SHAPE = ModelConfig(
    vocab_size=4096,
    dim=1024,
    num_layers=4,
    num_heads=16,
    num_kv_heads=4,
    head_dim=64,
    ffn_dim=4096,
    rope_theta=10_000.0,
    tie_embeddings=True,
    context_length=2048,
)


class Peer:
    """A GGUF file in llama.cpp."""

    def __init__(self, file: Path, threads: int) -> None:
        import llama_cpp

        parameters = llama_cpp.llama_cpp.llama_model_default_params
        original = parameters

        def as_stored() -> Any:
            # The blocks of the file are what is measured; 0.3.36 crashes in its AMX buffers on some machines.
            found = original()
            found.use_extra_bufts = False
            return found

        llama_cpp.llama_cpp.llama_model_default_params = as_stored
        try:
            self._llama = llama_cpp.Llama(
                str(file), n_ctx=WINDOW, n_batch=WINDOW, n_threads=threads, logits_all=True, verbose=False
            )
        finally:
            llama_cpp.llama_cpp.llama_model_default_params = original

    def __call__(self, ids: Sequence[int], places: Sequence[int]) -> NDArray[np.float32]:
        self._llama.reset()
        self._llama.eval(list(ids))
        return torch.from_numpy(self._llama.scores[list(places)].copy()).log_softmax(-1).numpy()

    def close(self) -> None:
        """Give its memory back."""
        self._llama.close()


def outliers(folder: Path, tokenizer: Path, seed: int) -> Path:
    """Write the model of hard random weights."""
    model = Llama(SHAPE)
    initialize(model, seed)
    random = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    loud = torch.randperm(SHAPE.dim, generator=random)[:6]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.mul_((0.3 * normal(*parameter.shape)).exp())
                continue
            # Student's t with 5 degrees of freedom, by rows and columns of unequal size.
            tails = (normal(*parameter.shape, 5).square().mean(-1)).rsqrt()
            parameter.mul_(
                tails * (0.3 * normal(len(parameter), 1)).exp() * (0.3 * normal(1, parameter.shape[1])).exp()
            )
            if name.endswith("embed_tokens.weight"):
                parameter[:, loud] *= 12.0
        # The head reads the same table: predictions about as sure as those of a trained model.
        model.model.norm.weight[loud] /= 12.0
    save_hf(model, SHAPE, folder, dtype=torch.bfloat16, tokenizer=tokenizer)
    return folder


def texts(source: Path, tokens: int) -> list[Window]:
    """The held-out conversations, in the embedded model's format."""
    with open_checkpoint(source) as reader:
        tokenizer = load_tokenizer(reader.tokenizer_source())
    return held_out(resolve_format("llama3.2", tokenizer), tokenizer, length=WINDOW, limit=tokens)


def measure(source: Path, folder: Path, tokens: int, threads: int) -> list[dict[str, Any]]:
    """One row for each engine and way of computing."""
    rows: list[dict[str, Any]] = []

    def add(engine: str, way: str, model: LogProbs) -> None:
        rows.append({"engine": engine, "weights": way, **asdict(reference.compare(model))})
        row = rows[-1]
        kl = f"{row['kl']:.5f} +- {row['kl_error']:.5f}"
        print(
            f"{engine:10} {way:8} KL {kl}  same {row['agreement']:.2%}  perplexity {row['perplexity']:.4f}", flush=True
        )

    with Reference(texts(source, tokens), load_scorer(source, "float32")) as reference:
        for way in OURS:
            add("llamakit", way, load_scorer(source, way))
        for way in THEIRS:
            file = convert(source, folder / f"{way}.gguf", quantization=way).path
            with contextlib.closing(Peer(file, threads)) as peer:
                add("llama.cpp", way, peer)
            file.unlink()
    return rows


def main() -> None:
    """Measure, print, and fail when our int4 loses more than llama.cpp's Q4_0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["cria", "outliers"], help="names, paths, or `outliers`")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write all rows and what they were measured with as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="quant-quality-") as temporary:
        folder = Path(temporary)
        for name in arguments.models:
            print(f"\n{name}")
            if name == "outliers":
                source = outliers(folder / name, resolve_model("cria").path, arguments.seed)
            else:
                source = resolve_model(name).path
            results[name] = measure(source, folder, arguments.tokens, arguments.threads)
    if arguments.out is not None:
        git = shutil.which("git") or "git"
        commit = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
        facts = {"commit": commit, "machine": platform.processor(), "command": sys.argv, "torch": torch.__version__}
        arguments.out.write_text(json.dumps(facts | {"results": results}, indent=2) + "\n", encoding="utf-8")
    worse = [name for name, rows in results.items() if _kl(rows, "llamakit", "int4") > _kl(rows, "llama.cpp", "q4_0")]
    if worse:
        sys.exit(f"int4 loses more than llama.cpp's Q4_0 on {', '.join(worse)}")


def _kl(rows: list[dict[str, Any]], engine: str, way: str) -> float:
    return next(row["kl"] for row in rows if (row["engine"], row["weights"]) == (engine, way))


if __name__ == "__main__":
    main()
