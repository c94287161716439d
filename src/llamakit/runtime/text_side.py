"""The text side of a located model: tokenizer, prompt format, habits; what can be had without weights.

Knows files and text, not tensors.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from llamakit.checkpoints.reader import Generation, Metadata, Reader, TokenizerSource
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Message, TextPart
from llamakit.core.model_config import ModelConfig
from llamakit.hub.locate import Located
from llamakit.text.formats.format import PromptFormat
from llamakit.text.formats.resolve import detect_format, resolve_format
from llamakit.text.kept_tokenizer import keep_as, load_kept
from llamakit.text.tokenizer import Tokenizer, load_tokenizer


def read_tokenizer(reader: Reader, located: Located) -> Tokenizer:
    """The tokenizer of a checkpoint, kept for the next start; raises InvalidRequest where it has none."""
    digest = reader.tokenizer_digest()
    if digest is not None:
        return keep_as(digest, lambda: _built(reader.tokenizer_source(), located))
    return _built(reader.tokenizer_source(), located)


def _built(source: TokenizerSource, located: Located) -> Tokenizer:
    if source is None:
        raise InvalidRequest(
            f"{located.path} has no tokenizer; put tokenizer.json or tokenizer.model beside the weights"
        )
    return load_kept(source) if isinstance(source, Path) else load_tokenizer(source)


def choose_format(
    wish: str | None, located: Located, tokenizer: Tokenizer, metadata: Metadata, config: ModelConfig
) -> PromptFormat:
    """The prompt format that was asked for, that the catalog names, or that the files show."""
    name = wish or located.prompt_format
    if name is None:
        name = detect_format(tokenizer, name=located.ref.name, chat_template=metadata.chat_template, config=config)
    return resolve_format(name, tokenizer)


def default_sampling(generation: Generation, located: Located) -> dict[str, Any]:
    """Sampling of requests that say nothing of it."""
    fields = {
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "repetition_penalty": generation.repetition_penalty,
    }
    defaults = {name: value for name, value in fields.items() if value is not None}
    return defaults if located.recipe is None else defaults | located.recipe.sampling()


def stop_ids_of(generation: Generation, tokenizer: Tokenizer) -> frozenset[int]:
    """Every id that ends an answer."""
    return frozenset(generation.eos_ids) | frozenset(tokenizer.eos_ids)


def prelude_of(located: Located) -> tuple[Message, ...]:
    """What every conversation with a created model begins with."""
    if located.recipe is None:
        return ()
    start = [("system", located.recipe.system)] if located.recipe.system is not None else []
    turns = [*start, *located.recipe.messages]
    return tuple(
        dataclasses.replace(Message(role="user"), role=role, content=(TextPart(text=text),))  # type: ignore[arg-type]
        for role, text in turns
    )
