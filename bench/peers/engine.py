"""What the comparison asks of an engine, and the work of each column.

An engine does one thing: it continues some prompts together, greedily, and tells at what second after the start each
token came. Every column but start-up and memory follows from such times, by the same arithmetic for everybody.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Times = list[list[float]]
"""For each prompt, the second at which each of its new tokens came."""

ORDINARY = 128_000
"""Ids below are ordinary tokens of the Llama 3 vocabulary."""
CONTEXT = 4096 + 256


class Engine(Protocol):
    """A loaded model."""

    def run(self, prompts: Sequence[Sequence[int]], count: int) -> Times:
        """Continue all prompts together by exactly `count` tokens each."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """The same weights in the forms that engines take."""

    hf: Path
    gguf: Path
    """At the precision of the comparison."""
    precision: str
    """int4, int8 or bf16."""
    threads: int


def prompt(length: int, seed: int) -> list[int]:
    """Ids that look like nothing seen before, so that no cached prefix helps."""
    return [1 + (7919 * i + 104_729 * seed + 31 * i * i) % (ORDINARY - 1) for i in range(length)]


def measure(engine: Engine, columns: Sequence[str], tokens: int) -> dict[str, float]:
    """Tokens per second of the engine's columns; `tokens` are decoded where decoding is what is measured."""
    engine.run([prompt(64, 1)], 4)  # thread pools, lazily packed weights
    time.sleep(6)  # and what an engine still does beside its first answers
    found: dict[str, float] = {}
    for seed, column in enumerate(columns, start=2):
        kind, _, size = column.partition("_")
        if kind == "prefill":
            times = engine.run([prompt(int(size), seed)], 1)
            found[column] = int(size) / times[0][0]
        elif kind == "decode":
            times = engine.run([prompt(int(size or 16), seed)], tokens + 1)
            found[column] = tokens / (times[0][-1] - times[0][0])
        elif kind == "batch":
            prompts = [prompt(16, 100 * seed + i) for i in range(int(size))]
            found[column] = together(engine.run(prompts, max(8, tokens // 2) + 1))
    return found


def together(times: Times) -> float:
    """Tokens per second from the moment every prompt has its first."""
    begin, end = max(one[0] for one in times), max(one[-1] for one in times)
    return sum(second > begin for one in times for second in one) / (end - begin)


def served(times: Times) -> dict[str, float]:
    """Output tokens per second over the whole run, and the median time to first token."""
    tokens = sum(len(one) for one in times)
    return {
        "server_8_output": tokens / max(one[-1] for one in times),
        "server_8_ttft": statistics.median(one[0] for one in times),
    }
