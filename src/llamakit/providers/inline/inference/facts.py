"""What the files of a model tell before it is loaded: shape, size, numbers, prompt format.

Reads headers, never weights, and remembers what it read for as long as the files stay as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.reader import Reader
from llamakit.core.errors import LlamakitError
from llamakit.hub.locate import Located, resolve_model
from llamakit.text.formats.resolve import detect_format, resolve_format
from llamakit.text.tokenizer import load_tokenizer

MAX_REMEMBERED = 256

Details = dict[str, str | int | float | bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """One model."""

    context_length: int
    """Tokens it was trained for."""
    created: int
    """Unix time of the files."""
    details: Details


class FactBook:
    """Facts by name; safe to ask from several threads."""

    def __init__(self, prompt_format: str | None = None) -> None:
        self._prompt_format = prompt_format
        self._known: OrderedDict[tuple[Path, int, str | None], Facts] = OrderedDict()

    def look_up(self, name: str, *, paths: bool) -> Facts:
        """The facts of the model that `name` says; raises what locating and opening it raise."""
        located = resolve_model(name, paths=paths)
        prompt_format = self._prompt_format or located.prompt_format
        key = (located.path, located.path.stat().st_mtime_ns, prompt_format)
        found = self._known.get(key)
        if found is None:
            found = _read(located, prompt_format)
            self._known[key] = found
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        # A recipe lies on top of files that other names share, so it is no part of what is remembered.
        recipe = {} if located.recipe is None else _shown(located.recipe.sampling())
        return replace(found, details=found.details | recipe) if recipe else found


def _read(located: Located, prompt_format: str | None) -> Facts:
    with open_checkpoint(located.path) as reader:
        config, metadata = reader.config(), reader.metadata()
        details: Details = {
            "architecture": "llama",
            "format": reader.kind,
            "quantization": metadata.quantization,
            "parameters": metadata.num_parameters,
            "size_bytes": metadata.num_bytes,
            "vocab_size": config.vocab_size,
            "dim": config.dim,
            "layers": config.num_layers,
            "heads": config.num_heads,
            "kv_heads": config.num_kv_heads,
            "head_dim": config.head_dim,
            "ffn_dim": config.ffn_dim,
            "rope_theta": config.rope_theta,
        }
        generation = reader.generation()
        details |= _shown({"temperature": generation.temperature, "top_p": generation.top_p})
        details |= _format(located, reader, prompt_format)
    model = located.ref.model
    if model is not None:
        details |= {"family": model.family, "licence": model.licence.title, "licence_url": model.licence.url}
    return Facts(context_length=config.context_length, created=int(located.path.stat().st_mtime), details=details)


def _shown(sampling: Mapping[str, Any]) -> Details:
    """The sampling of answers to requests that say nothing of it, as far as it is told."""
    return {name: sampling[name] for name in ("temperature", "top_p") if sampling.get(name) is not None}


def _format(located: Located, reader: Reader, name: str | None) -> Details:
    """The prompt format and whether it has tools; nothing where the tokenizer is missing or cannot be read."""
    source = reader.tokenizer_source()
    if source is None:
        return {}
    try:
        tokenizer = load_tokenizer(source)
        if name is None:
            template, config = reader.metadata().chat_template, reader.config()
            name = detect_format(tokenizer, name=located.ref.name, chat_template=template, config=config)
        return {"prompt_format": name, "tools": resolve_format(name, tokenizer).supports_tools}
    except LlamakitError:
        # Loading the model says what is wrong with it; the other facts hold all the same.
        return {}
