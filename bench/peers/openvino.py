"""OpenVINO GenAI's continuous batching pipeline, which opens GGUF files itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from peers.engine import CONTEXT, Files, Times

NAME = "OpenVINO"
CACHE_GIB = 1


def version() -> str:
    """Of the package."""
    from importlib.metadata import version as installed

    return installed("openvino-genai")


class OpenVino:
    """One pipeline, stepped here."""

    def __init__(self, files: Files) -> None:
        import openvino_genai as genai

        settings = genai.SchedulerConfig()
        settings.max_num_batched_tokens = CONTEXT
        settings.max_num_seqs = 64
        settings.cache_size = CACHE_GIB
        settings.enable_prefix_caching = False
        self._pipeline = genai.ContinuousBatchingPipeline(
            str(files.gguf), settings, "CPU", {"INFERENCE_NUM_THREADS": files.threads}
        )
        self._asked = 0

    def run(self, prompts: Sequence[Sequence[int]], count: int) -> Times:
        """Add all, then step until all are done."""
        import openvino as ov
        import openvino_genai as genai

        wishes = genai.GenerationConfig()
        wishes.max_new_tokens, wishes.min_new_tokens, wishes.ignore_eos, wishes.do_sample = count, count, True, False
        handles = []
        start = time.perf_counter()
        for ids in prompts:
            self._asked += 1
            given = ov.Tensor(np.array([ids], dtype=np.int64))
            handles.append(self._pipeline.add_request(self._asked, given, wishes))
        times: Times = [[] for _ in prompts]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter() - start
            for one, handle in zip(times, handles, strict=True):
                while handle.can_read():
                    for output in handle.read().values():
                        one.extend([now] * len(output.generated_ids))
        if any(len(one) != count for one in times):
            raise RuntimeError(f"wanted {count} tokens of each prompt, got {[len(one) for one in times]}")
        return times


open_engine = OpenVino
