"""What a decoded token costs outside the kernels, on a small model: the embedded cria.

Steps the engine for one sequence and takes the time inside every compiled function from the time of the step; what is
left is Python, PyTorch's small operations and waiting for the interpreter. Prints medians over the tokens.

    python bench/step_overhead.py [--tokens 400] [--quantize int8] [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from pathlib import Path
from typing import Any

GOAL_MS = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cria")
    parser.add_argument("--quantize", default="none", choices=("none", "int8", "int4"))
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    row = measure(args)
    print(
        f"{args.model}, {args.quantize}, {args.threads} threads: {row['step_ms']:.3f} ms a token, "
        f"{row['kernels_ms']:.3f} in {row['calls']} compiled calls, {row['outside_ms']:.3f} outside (goal {GOAL_MS})"
    )
    if args.json:
        args.json.write_text(json.dumps(row, indent=2) + "\n")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Medians of one answer of `args.tokens` tokens."""
    from llamakit.core.sampling import SamplingParams
    from llamakit.engine.request import Request
    from llamakit.runtime.opening import LoadOptions, open_model

    options = LoadOptions(quantize=args.quantize, threads=args.threads, speculation=False)
    engine = open_model(args.model, options).engine
    inside = _watch_kernels()
    sampling = SamplingParams(temperature=0.0, max_tokens=args.tokens, ignore_eos=True)
    engine.submit(Request(id="one", prompt_ids=tuple(range(300, 332)), sampling=sampling))
    rows: list[tuple[float, float, int]] = []
    while engine.has_work:
        inside.clear()
        start = time.perf_counter()
        engine.step()
        took = time.perf_counter() - start
        rows.append((took * 1e3, sum(inside) * 1e3, len(inside)))
    rows = rows[len(rows) // 10 :]  # the prompt, and what is made once
    return {
        "model": args.model,
        "quantize": args.quantize,
        "threads": args.threads,
        "step_ms": statistics.median(row[0] for row in rows),
        "kernels_ms": statistics.median(row[1] for row in rows),
        "outside_ms": statistics.median(row[0] - row[1] for row in rows),
        "calls": statistics.median_low(row[2] for row in rows),
    }


def _watch_kernels() -> list[float]:
    """A list that gets the seconds of each compiled call from now on; watching costs about half a microsecond each."""
    from llamakit.kernels import native

    library = native.library()
    if library is None:
        raise SystemExit(f"there are no compiled kernels: {native.BUILD_HINT}")
    inside: list[float] = []

    class Watched:
        def __init__(self, lib: ctypes.CDLL) -> None:
            for name in dir(lib):
                if name.startswith("lk_"):
                    setattr(self, name, _timed(getattr(lib, name), inside))

    library._lib = Watched(library._lib)  # type: ignore[assignment]
    return inside


def _timed(function: Any, inside: list[float]) -> Any:
    def call(*values: Any) -> Any:
        start = time.perf_counter()
        result = function(*values)
        inside.append(time.perf_counter() - start)
        return result

    return call


if __name__ == "__main__":
    main()
