"""Shields by Llama Guard, or by any other model that is served here: the resource of a shield is a model's name.

A model whose name says which release of Llama Guard it is judges by the policy it was trained with. Any other one
is given the task in words, with a policy of choice; how well it judges is up to the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from llamakit.api.ids import new_id
from llamakit.api.inference import ChatRequest, Inference, RequestContext
from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.messages import AnswerFold, Message
from llamakit.providers.specs import Api
from llamakit.safety.llama_guard import Answer, LlamaGuard, release_named
from llamakit.safety.shields import DEFAULT_WORDS, Shield
from llamakit.text.formats.guard_policies import GUARD_3, Category

MAX_TOKENS = 64
"""Of a verdict: a word, and codes."""
MAX_CATEGORIES = 64
_PARAMS = ("release", "categories", "excluded", "user_message")
_RELEASES = (
    (re.compile(r"guard[-_.]?3.*\b1b\b"), "guard3-1b"),
    (re.compile(r"guard[-_.]?[34]"), "guard3"),
    (re.compile(r"guard[-_.]?2"), "guard2"),
    (re.compile(r"llama[-_.]?guard"), "guard1"),
)


def build(config: Mapping[str, Any], needs: Mapping[Api, Any]) -> LlamaGuardShields:
    """The provider from its settings; raises `ConfigError`."""
    for key in config:
        if key != "model":
            raise ConfigError(f"the llama-guard provider has no setting {key!r}{nearest(key, ('model',))}")
    model = config.get("model")
    if model is not None and not isinstance(model, str):
        raise ConfigError(f"model must be the name of a served model, got {model!r}")
    return LlamaGuardShields(needs[Api.inference], model)


class LlamaGuardShields:
    """Fulfils `ShieldProvider`."""

    def __init__(self, inference: Inference, model: str | None = None) -> None:
        self._inference = inference
        self._model = model

    def shield(self, name: str, resource: str | None, params: Mapping[str, Any]) -> Shield:
        """The shield over the model `resource`; params are release, categories, excluded and user_message."""
        for key in params:
            if key not in _PARAMS:
                raise InvalidRequest(f"params has no {key[:80]!r}; there are {', '.join(_PARAMS)}", param="params")
        model = resource or self._model
        if model is None:
            raise InvalidRequest(
                "provider_shield_id must name a served model, such as llama-guard3:1b", param="provider_shield_id"
            )
        words = params.get("user_message", DEFAULT_WORDS)
        if not isinstance(words, str) or not words:
            raise InvalidRequest("params.user_message must be a text", param="params")
        release = params.get("release") or release_of(model)
        own, excluded = _categories(params.get("categories")), _codes(params.get("excluded"))
        if release is None:
            return LlamaGuard.prompted(name, self._ask(model), own or GUARD_3, excluded=excluded, user_message=words)
        if own or excluded:
            raise InvalidRequest(
                f"{model[:80]!r} judges by the policy it was trained with; categories and excluded are for others",
                param="params",
            )
        try:
            known = release_named(release)
        except ConfigError as fault:
            raise InvalidRequest(f"params.release: {fault}", param="params") from None
        return LlamaGuard.answering(name, self._ask(model), known, user_message=words)

    def _ask(self, model: str) -> Answer:
        async def ask(messages: Sequence[Message], salt: str) -> str:
            request = ChatRequest(
                model=model,
                messages=tuple(messages),
                context=RequestContext(id=new_id("shield"), salt=salt),
                sampling={"temperature": 0.0, "max_tokens": MAX_TOKENS},
            )
            fold = AnswerFold()
            async with aclosing(self._inference.chat(request)) as events:
                async for event in events:
                    fold.add(event)
            return fold.answer().text

        return ask


def release_of(model: str) -> str | None:
    """The release of Llama Guard that a model's name tells of; None where it tells of none."""
    name = model.lower()
    return next((release for pattern, release in _RELEASES if pattern.search(name)), None)


def _categories(value: Any) -> tuple[Category, ...]:
    if value is None:
        return ()
    wanted = "params.categories must be a list of objects with a name and perhaps a description, both texts"
    if not isinstance(value, list) or not 0 < len(value) <= MAX_CATEGORIES:
        raise InvalidRequest(f"{wanted}, 1 to {MAX_CATEGORIES} of them", param="params")
    made = []
    for entry in value:
        if not isinstance(entry, dict) or not entry.keys() <= {"name", "description"}:
            raise InvalidRequest(wanted, param="params")
        name, description = entry.get("name"), entry.get("description", "")
        if not isinstance(name, str) or not name or not isinstance(description, str):
            raise InvalidRequest(wanted, param="params")
        made.append(Category(name=name, description=description))
    return tuple(made)


def _codes(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(code, str) for code in value):
        raise InvalidRequest("params.excluded must be a list of codes such as S1", param="params")
    return tuple(value)
