"""llama.cpp through llama-cpp-python's bindings of its C API: the library's own batches, no Python in between.

`LLAMA_CPP_LIB_PATH` chooses another build of the library than the package's.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence

import numpy as np

from peers.engine import CONTEXT, Files, Times

NAME = "llama.cpp"
MAX_SEQUENCES = 32
NO_REPACK = "LLAMAKIT_BENCH_NO_REPACK"
"""Set after a crash: on some processors with AMX the library's repacked weights end it with SIGSEGV."""


def version() -> str:
    """Of the bindings, which pin the library."""
    from importlib.metadata import version as installed

    return installed("llama-cpp-python")


class LlamaCpp:
    """A context whose cache all sequences share."""

    def __init__(self, files: Files) -> None:
        import llama_cpp as lib

        self._lib = lib
        self._quiet = lib.llama_log_callback(lambda level, text, data: None)
        lib.llama_log_set(self._quiet, ctypes.c_void_p(0))
        lib.llama_backend_init()
        wishes = lib.llama_model_default_params()
        wishes.use_extra_bufts = NO_REPACK not in os.environ
        self._model = lib.llama_model_load_from_file(str(files.gguf).encode(), wishes)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot open {files.gguf}")
        params = lib.llama_context_default_params()
        params.n_ctx = CONTEXT + 1024
        params.n_batch, params.n_ubatch = 2048, 512
        params.n_seq_max = MAX_SEQUENCES
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = files.threads
        self._context = lib.llama_init_from_model(self._model, params)
        self._vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        self._batch = lib.llama_batch_init(2048, 0, 1)

    def run(self, prompts: Sequence[Sequence[int]], count: int) -> Times:
        """Prompts one after another, as its server does it, then a token of each in every batch."""
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        times: Times = [[] for _ in prompts]
        last: list[int] = []
        start = time.perf_counter()
        for sequence, ids in enumerate(prompts):
            for first in range(0, len(ids), 2048):
                part = ids[first : first + 2048]
                self._decode([(id, first + i, sequence, first + i == len(ids) - 1) for i, id in enumerate(part)])
            last.append(self._best(-1))
            times[sequence].append(time.perf_counter() - start)
        for step in range(count - 1):
            rows = [(last[s], len(ids) + step, s, True) for s, ids in enumerate(prompts)]
            self._decode(rows)
            last = [self._best(s) for s in range(len(prompts))]
            now = time.perf_counter() - start
            for one in times:
                one.append(now)
        return times

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (id, position, sequence, wants_logits) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = id, position, wants_logits
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if self._lib.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")

    def _best(self, row: int) -> int:
        pointer = self._lib.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(pointer, (self._vocabulary,)).argmax())


open_engine = LlamaCpp
