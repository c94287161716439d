"""transformers in bfloat16, eager: one forward pass a step over a batch of prompts of one length."""

from __future__ import annotations

import time
from collections.abc import Sequence

from peers.engine import Files, Times

NAME = "transformers"


def version() -> str:
    """Of the package."""
    from importlib.metadata import version as installed

    return installed("transformers")


class Transformers:
    """A model and its own dynamic cache."""

    def __init__(self, files: Files) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(files.threads)
        self._model = AutoModelForCausalLM.from_pretrained(files.hf, dtype=torch.bfloat16).eval()

    def run(self, prompts: Sequence[Sequence[int]], count: int) -> Times:
        """Prefill and decode the batch."""
        import torch

        seconds = []
        start = time.perf_counter()
        with torch.inference_mode():
            ids, past = torch.tensor(prompts), None
            for _ in range(count):
                out = self._model(ids, past_key_values=past, use_cache=True, logits_to_keep=1)
                ids, past = out.logits[:, -1:].argmax(-1), out.past_key_values
                seconds.append(time.perf_counter() - start)
        return [list(seconds) for _ in prompts]


open_engine = Transformers
