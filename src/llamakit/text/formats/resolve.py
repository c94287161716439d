"""Names of prompt formats, and the guess which one a checkpoint wants.

A chat template is only looked at for words that tell the family; it is never executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig
from llamakit.text.formats.base import BaseFormat
from llamakit.text.formats.codellama70b import CodeLlama70bFormat
from llamakit.text.formats.format import PromptFormat
from llamakit.text.formats.guard import RELEASES, GuardFormat, GuardRelease
from llamakit.text.formats.llama2 import Llama2Format
from llamakit.text.formats.llama3 import VARIANTS, Llama3Format, Variant
from llamakit.text.tokenizer import Tokenizer

Builder = Callable[[Tokenizer], PromptFormat]


def _llama3(variant: Variant) -> Builder:
    return lambda tokenizer: Llama3Format(tokenizer, variant)


def _guard(release: GuardRelease) -> Builder:
    return lambda tokenizer: GuardFormat(tokenizer, release)


FORMATS: Final[dict[str, Builder]] = {
    "base": BaseFormat,
    "llama2": Llama2Format,
    "codellama70b": CodeLlama70bFormat,
    **{variant.name: _llama3(variant) for variant in VARIANTS},
    **{release.name: _guard(release) for release in RELEASES},
}

_MINOR = re.compile(r"(?:llama|guard)?[-_ ]?v?3[.]([123])(?!\d)")
_TUNED = re.compile(r"instruct|chat|[-_ ]it\b")


def resolve_format(name: str, tokenizer: Tokenizer) -> PromptFormat:
    """The format called `name` over `tokenizer`; ConfigError lists the names."""
    builder = FORMATS.get(name)
    if builder is None:
        raise ConfigError(f"no prompt format {name!r}; there are {', '.join(FORMATS)}")
    return builder(tokenizer)


def detect_format(
    tokenizer: Tokenizer,
    *,
    name: str | None = None,
    chat_template: str | None = None,
    config: ModelConfig | None = None,
) -> str:
    """Name of the format a checkpoint most likely wants; `base` where nothing says that it can chat.

    The template counts most, then the name (a hub id, a folder); the shape tells Llama 3 from 3.1.
    """
    known = (name or "").lower()
    if chat_template:
        found = _by_template(chat_template, known, config)
        if found is not None:
            return found
    if "guard" in known:
        return _guard_by_name(known)
    if not _TUNED.search(known):
        return "base"
    if tokenizer.kind == "sentencepiece":
        return "codellama70b" if "70b" in known and "code" in known else "llama2"
    return _llama3_by_name(known, config)


def _by_template(template: str, name: str, config: ModelConfig | None) -> str | None:
    if "unsafe content" in template:
        return _guard_by_template(template)
    if "<|start_header_id|>" in template:
        if "strftime_now" in template:
            return "llama3.2"
        if "ipython" in template:
            by_name = _llama3_by_name(name, config)
            return by_name if by_name != "llama3" else "llama3.1"
        return "llama3"
    if "Destination: user" in template:
        return "codellama70b"
    if "[INST]" in template:
        return "llama2"
    return None


def _guard_by_template(template: str) -> str:
    if "O1: " in template:
        return "guard1"
    if "Defamation" not in template:
        return "guard2"
    return "guard3" if "Code Interpreter Abuse" in template else "guard3-1b"


def _guard_by_name(name: str) -> str:
    if re.search(r"guard[-_ ]?3", name):
        return "guard3-1b" if re.search(r"\b1b\b", name) else "guard3"
    return "guard2" if re.search(r"guard[-_ ]?2", name) else "guard1"


def _llama3_by_name(name: str, config: ModelConfig | None) -> str:
    minor = _MINOR.search(name)
    if minor:
        return f"llama3.{minor[1]}"
    # 3.1 and later stretch the rotary frequencies (or are converted with the stretched table); 3.0 does not.
    stretched = config is not None and (config.rope_scaling is not None or config.rope_divisors is not None)
    return "llama3.1" if stretched else "llama3"
