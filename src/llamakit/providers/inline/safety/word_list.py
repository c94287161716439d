"""A shield without a model: what is said must not contain certain words. Simple, exact, and for tests of clients.

Words are looked for whole and in any case, so `ass` is not found in `class`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.messages import Message
from llamakit.providers.specs import Api
from llamakit.safety.shields import DEFAULT_WORDS, Shield, Violation

MAX_WORDS = 10_000
_PARAMS = ("words", "category", "user_message")


def build(config: Mapping[str, Any], needs: Mapping[Api, Any]) -> WordLists:
    """The provider; raises `ConfigError`, since it has no settings of its own."""
    if config:
        raise ConfigError(f"the word-list provider has no settings, got {sorted(config)}; words are a shield's params")
    return WordLists()


class WordLists:
    """Fulfils `ShieldProvider`."""

    def shield(self, name: str, resource: str | None, params: Mapping[str, Any]) -> Shield:
        """The shield over `params.words`; params may also hold a category and a user_message."""
        for key in params:
            if key not in _PARAMS:
                raise InvalidRequest(f"params has no {key[:80]!r}; there are {', '.join(_PARAMS)}", param="params")
        words = params.get("words")
        if not isinstance(words, list) or not 0 < len(words) <= MAX_WORDS or not all(_is_word(word) for word in words):
            raise InvalidRequest(f"params.words must be a list of 1 to {MAX_WORDS} words", param="params")
        category, told = params.get("category", "words"), params.get("user_message", DEFAULT_WORDS)
        if not isinstance(category, str) or not isinstance(told, str):
            raise InvalidRequest("params.category and params.user_message must be texts", param="params")
        return WordList(name, words, category, told)


class WordList:
    """One list of words."""

    def __init__(self, name: str, words: Sequence[str], category: str, user_message: str) -> None:
        self.name = name
        longest_first = sorted(words, key=len, reverse=True)
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
        self._category = category
        self._user_message = user_message

    async def check(self, messages: Sequence[Message], *, salt: str = "") -> Violation | None:
        """Look into the last message, calls of tools among its text."""
        if not messages:
            return None
        last = messages[-1]
        found = self._pattern.search("\n".join([last.text, *(call.arguments for call in last.tool_calls)]))
        if found is None:
            return None
        return Violation(
            shield=self.name,
            user_message=self._user_message,
            categories=(self._category,),
            metadata={"violation_type": self._category, "word": found[0]},
        )


def _is_word(word: Any) -> bool:
    return isinstance(word, str) and 0 < len(word.strip()) <= 200
