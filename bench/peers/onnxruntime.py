"""onnxruntime-genai: one generator over a batch of prompts of one length.

Its model builder makes the model from the same checkpoint, with 4-bit blocks of 32 and 8-bit activations.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from peers.engine import Files, Times

NAME = "onnxruntime"
_END = 128_001
"""The builder wants an id that ends an answer; `min_length` keeps it from coming."""


def version() -> str:
    """Of the package."""
    from importlib.metadata import version as installed

    return installed("onnxruntime-genai")


def build(hf: Path) -> Path:
    """The int4 model of a checkpoint, beside it; made once."""
    made = hf.parent / "onnx-int4"
    if (made / "genai_config.json").exists():
        return made
    with tempfile.TemporaryDirectory(dir=hf.parent) as spare:
        source = Path(spare) / "hf"
        source.mkdir()
        config = json.loads((hf / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | {"eos_token_id": _END, "bos_token_id": 128_000}))
        for name in ("model.safetensors", "tokenizer.model"):
            (source / name).symlink_to((hf / name).resolve())
        options = ["-i", str(source), "-o", str(made), "-p", "int4", "-e", "cpu", "-c", spare]
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", *options]
        wanted = ["int4_block_size=32", "int4_accuracy_level=4", "hf_token=false"]
        done = subprocess.run([*command, "--extra_options", *wanted], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the model builder failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return made


class OnnxRuntime:
    """A model; each run makes a generator."""

    def __init__(self, files: Files) -> None:
        import onnxruntime_genai as genai

        config = genai.Config(str(build(files.hf)))
        threads = {"intra_op_num_threads": files.threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
        self._model = genai.Model(config)

    def run(self, prompts: Sequence[Sequence[int]], count: int) -> Times:
        """Prefill and decode the batch."""
        import onnxruntime_genai as genai

        wishes = genai.GeneratorParams(self._model)
        length = len(prompts[0]) + count
        wishes.set_search_options(max_length=length, min_length=length, batch_size=len(prompts), do_sample=False)
        seconds = []
        start = time.perf_counter()
        generator = genai.Generator(self._model, wishes)
        generator.append_tokens(np.array(prompts, dtype=np.int32))
        for _ in range(count):
            generator.generate_next_token()
            seconds.append(time.perf_counter() - start)
        return [list(seconds) for _ in prompts]


open_engine = OnnxRuntime
