"""A distribution as plain values, to be shown: secrets are masked, and so are passwords in URLs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from llamakit.core.config import Secret

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")


def to_plain(value: Any) -> Any:
    """`value` in mappings, lists, texts, numbers and truths."""
    match value:
        case Secret():
            return str(value)
        case str():
            return _PASSWORD.sub(r"\1:***@", value)
        case Mapping():
            return {str(key): to_plain(item) for key, item in value.items()}
        case list() | tuple():
            return [to_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value
