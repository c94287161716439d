"""The limits of a caller in the words of HTTP: the headers that OpenAI's and Anthropic's clients read."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from llamakit.server.dialects import Dialect
from llamakit.stack.access import KeyLimits
from llamakit.stack.usage import Room

EXPOSED = tuple(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens"))
"""Headers that pages of other origins may read."""


def limit_headers(limits: KeyLimits, room: Room, dialect: Dialect) -> tuple[tuple[str, str], ...]:
    """What an answer says of the caller's limits, for those that are set."""
    made: list[tuple[str, str]] = []
    for of, limit, remaining, reset_s in (
        ("requests", limits.requests_per_minute, room.remaining_requests, room.reset_requests_s),
        ("tokens", limits.tokens_per_minute, room.remaining_tokens, room.reset_tokens_s),
    ):
        if limit is None:
            continue
        if dialect == "anthropic":
            values = (str(limit), str(remaining), _moment(reset_s))
            names = (f"anthropic-ratelimit-{of}-{what}" for what in ("limit", "remaining", "reset"))
        else:
            values = (str(limit), str(remaining), duration(reset_s))
            names = (f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset"))
        made += zip(names, values, strict=True)
    return tuple(made)


def duration(seconds: float) -> str:
    """Seconds as OpenAI's headers spell them: `120ms`, `8.64s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds <= 59:
        return f"{math.ceil(seconds * 100) / 100:.4g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s"


def _moment(in_s: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=in_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
