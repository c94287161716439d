"""Names of prompt formats, and the guess which one a checkpoint wants."""

from __future__ import annotations

from llamakit.core.errors import ConfigError
from llamakit.text.formats.format import PromptFormat
from llamakit.text.formats.llama3 import VARIANTS, Llama3Format
from llamakit.text.tokenizer import Tokenizer


def resolve_format(name: str, tokenizer: Tokenizer) -> PromptFormat:
    """The format called `name` over `tokenizer`."""
    for variant in VARIANTS:
        if variant.name == name:
            return Llama3Format(tokenizer, variant)
    raise ConfigError(f"no prompt format {name!r}; there are {', '.join(variant.name for variant in VARIANTS)}")
