"""Shields: judges of conversations behind one door, and several of them asked at once.

A shield that cannot answer counts as a refusal unless its owner chose otherwise, so a judge that is
down never opens the gate. Knows no model and no wire format.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from llamakit.core.errors import ConfigError, LlamakitError
from llamakit.core.messages import Message

Level = Literal["info", "warn", "error"]

DEFAULT_WORDS = "I can't help with that."


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """Why a conversation is not let through."""

    shield: str
    level: Level = "error"
    user_message: str = DEFAULT_WORDS
    """What the person is told."""
    categories: tuple[str, ...] = ()
    """Names of what was found, by the shield's own policy."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Shield(Protocol):
    """Judges the last message of a conversation in the light of those before it."""

    @property
    def name(self) -> str:
        """What it is registered as."""
        ...

    async def check(self, messages: Sequence[Message], *, salt: str = "") -> Violation | None:
        """The violation, or None where there is none. An error means that it could not judge.

        `salt`: of the tenant who is judged; a judge that caches prompts shares them within one salt only.
        """
        ...


class ShieldProvider(Protocol):
    """Makes shields of one kind."""

    def shield(self, name: str, resource: str | None, params: Mapping[str, Any]) -> Shield:
        """The shield registered as `name`, over `resource` (such as the model it asks).

        Raises `InvalidRequest` for settings it cannot honour. Asks nobody.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Guarded:
    """A shield and how far it is trusted."""

    shield: Shield
    seconds: float = 30.0
    fails_open: bool = False
    """Whether what it cannot judge is let through. False: a shield that is down stops the answer."""


class Shields:
    """Several shields that must all agree."""

    def __init__(self, shields: Sequence[Guarded]) -> None:
        names = [guarded.shield.name for guarded in shields]
        if len(set(names)) < len(names):
            raise ConfigError(f"two shields have the same name: {', '.join(names)}; name each once")
        self._shields = tuple(shields)

    def __bool__(self) -> bool:
        return bool(self._shields)

    async def check(self, messages: Sequence[Message], *, salt: str = "") -> Violation | None:
        """The first violation by the order of the shields, all of them asked at the same time."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_judged(guarded, messages, salt)) for guarded in self._shields]
        return next((violation for task in tasks if (violation := task.result()) is not None), None)


async def _judged(guarded: Guarded, messages: Sequence[Message], salt: str) -> Violation | None:
    try:
        async with asyncio.timeout(guarded.seconds):
            return await guarded.shield.check(messages, salt=salt)
    except (LlamakitError, OSError, TimeoutError) as error:
        if guarded.fails_open:
            return None
        name = guarded.shield.name
        return Violation(
            shield=name,
            user_message="This cannot be answered now, because it cannot be checked.",
            metadata={"error": f"shield {name!r} could not judge: {str(error) or type(error).__name__}"},
        )
