"""Patterns of strangers over texts, in a killable child: a pattern that never ends costs its own process only."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from llamakit.core.errors import DocumentError, InvalidRequest
from llamakit.sandbox.child import ChildLimits, read_in_child

MAX_PATTERNS = 64
MAX_PATTERN_CHARS = 2000
_LIMITS = ChildLimits(memory_bytes=512 << 20, cpu_s=10, wall_s=20.0)


async def last_matches(patterns: Sequence[str], texts: Sequence[str], param: str) -> list[str | None]:
    """For each text the first group (or the whole) of the last match of the first pattern that matches.

    Raises `InvalidRequest` for a pattern that is none, or that takes too long on these texts.
    """
    if not 0 < len(patterns) <= MAX_PATTERNS or any(len(one) > MAX_PATTERN_CHARS for one in patterns):
        raise InvalidRequest(
            f"{param} must hold 1 to {MAX_PATTERNS} patterns of at most {MAX_PATTERN_CHARS} characters", param=param
        )
    for index, one in enumerate(patterns):
        try:
            re.compile(one)
        except (re.error, RecursionError, OverflowError) as fault:
            raise InvalidRequest(f"{param}[{index}] is no regular expression: {fault}", param=param) from None
    if not texts:
        return []
    order = json.dumps({"patterns": list(patterns), "texts": list(texts)}).encode()
    try:
        answer = await read_in_child(f"{__name__}:match", order, limits=_LIMITS)
    except DocumentError as fault:
        raise InvalidRequest(
            f"{param}: the patterns took too long on these texts ({fault}); avoid nested repetitions", param=param
        ) from None
    return [one if isinstance(one, str) else None for one in answer.value]


def match(document: bytes) -> Any:
    """What the child does."""
    order = json.loads(document)
    patterns = [re.compile(one) for one in order["patterns"]]
    return [_last(patterns, text) for text in order["texts"]]


def _last(patterns: Sequence[re.Pattern[str]], text: str) -> str | None:
    for pattern in patterns:
        found = list(pattern.finditer(text))
        if found:
            return (found[-1].group(1) if pattern.groups else found[-1].group(0)) or ""
    return None
