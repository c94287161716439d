"""llamakit: the engine as `llama run` opens it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from peers.engine import CONTEXT, Files, Times

NAME = "llamakit"
CACHE_BYTES = 1 << 30


def version() -> str:
    """Of the package."""
    import llamakit

    return llamakit.__version__


class Ours:
    """One engine, stepped here; speculation off, because random weights give it nothing to find."""

    def __init__(self, files: Files) -> None:
        from llamakit.runtime.opening import LoadOptions, open_model

        quantize = {"int4": "int4", "int8": "int8", "bf16": "none"}[files.precision]
        options = LoadOptions(
            quantize=quantize,  # type: ignore[arg-type]
            threads=files.threads,
            context=CONTEXT,
            cache_bytes=CACHE_BYTES,
            speculation=False,
        )
        self._engine = open_model(str(files.hf), options).engine
        self._asked = 0

    def run(self, prompts: Sequence[Sequence[int]], count: int) -> Times:
        """Submit all, then step until all are done."""
        from llamakit.core.sampling import SamplingParams
        from llamakit.engine.request import ErrorEvent, Request, TokenEvent

        sampling = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
        names: dict[str, list[float]] = {}
        start = time.perf_counter()
        for ids in prompts:
            self._asked += 1
            names[f"request {self._asked}"] = []
            self._engine.submit(Request(id=f"request {self._asked}", prompt_ids=tuple(ids), sampling=sampling))
        while self._engine.has_work:
            for event in self._engine.step():
                if isinstance(event, TokenEvent):
                    names[event.request_id].append(time.perf_counter() - start)
                elif isinstance(event, ErrorEvent):
                    raise event.error
        return list(names.values())


open_engine = Ours
