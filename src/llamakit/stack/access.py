"""Who may do what and how much of it: scopes, and the limits of a key. Data only; knows no HTTP and no database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError

MAX_LIMIT = 2**53
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


class Scope(StrEnum):
    """What a key may do; every operation of the server wants one of these."""

    inference = "inference"
    """Ask models: chat, completions, responses, embeddings, moderation."""
    objects_read = "objects:read"
    """Read what the same owner keeps: files, vector stores, responses, conversations, batches, agents."""
    objects_write = "objects:write"
    """Keep, change and delete it."""
    tools = "tools"
    """Run tools of the server directly."""
    models_read = "models:read"
    """See which models, providers and routes there are."""
    models_manage = "models:manage"
    """Bring models into memory and out of it, and files of models onto the machine and off it."""
    metrics = "metrics"
    """Read counters and the API's document."""
    admin = "admin"
    """Change what the server is: providers, shields, tool groups. Holds every other scope."""


ALL_SCOPES = frozenset(Scope)
DEFAULT_SCOPES = frozenset({Scope.inference, Scope.objects_read, Scope.objects_write, Scope.tools, Scope.models_read})
"""What a key may do when nothing else is said: use the server, not run it."""
STRANGER_SCOPES = ALL_SCOPES - {Scope.admin, Scope.models_manage}
"""What anybody may do where other machines come in without a key."""


def read_scopes(words: Iterable[str]) -> frozenset[Scope]:
    """Scopes by their names; raises `ConfigError` for one that is none."""
    known = {scope.value: scope for scope in Scope}
    found = set[Scope]()
    for word in words:
        if word not in known:
            raise ConfigError(f"no scope {word!r}{nearest(word, known)}. There are: {', '.join(known)}")
        found.add(known[word])
    return frozenset(found)


def may(held: frozenset[Scope], wanted: Scope) -> bool:
    """Whether a holder of these scopes may do what wants that one."""
    return wanted in held or Scope.admin in held


def check_owner(name: str) -> str:
    """`name` itself, where it can stand in rows and logs; raises `ConfigError`."""
    if _OWNER.fullmatch(name) is None:
        raise ConfigError(f"an owner is 1 to 128 letters, digits and . _ : @ -, got {name[:80]!r}")
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyLimits:
    """How much one key may ask for; None is without end."""

    requests_per_minute: int | None = None
    """Requests in any 60 seconds."""
    tokens_per_minute: int | None = None
    """Tokens of prompts and answers in any 60 seconds. Counted when an answer ends, so those in work may go beyond."""
    streams: int | None = None
    """Requests that are being answered at the same time, in each server process."""
    bytes_per_day: int | None = None
    """Bytes of request bodies in any 24 hours."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and not (isinstance(value, int) and 0 < value <= MAX_LIMIT):
                raise ConfigError(f"limit {limit.name} must be a whole number from 1 to {MAX_LIMIT}, got {value!r}")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> KeyLimits:
        """Limits by name; raises `ConfigError` for a name that is none."""
        known = [limit.name for limit in fields(cls)]
        for name in given:
            if name not in known:
                raise ConfigError(f"no limit {name!r}{nearest(name, known)}. There are: {', '.join(known)}")
        return cls(**given)

    def given(self) -> dict[str, int]:
        """Those that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def any(self) -> bool:
        """Whether anything is limited; every request asks."""
        return self != NO_LIMITS


NO_LIMITS = KeyLimits()
