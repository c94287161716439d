"""What a server is made of, as Llama Stack tells it: its providers, its routes, its version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from llamakit.api.wire import Wire
from llamakit.core.config import Secret

MASK = "********"
_SECRET = re.compile(
    r"(keys?|(?<!max_)tokens?|secret|password|credentials?|authorization|cookie|headers)$", re.IGNORECASE
)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*@")


class LlamaStackProvider(Wire):
    """A provider of one API."""

    api: str
    provider_id: str
    provider_type: str
    """`inline::` or `remote::` and a name, from which clients tell what it can do."""
    config: dict[str, Any]
    """Its settings; secrets are masked."""
    health: dict[str, Any]
    """`status`: OK, Error, or Not Implemented, where it cannot be asked."""


class LlamaStackProviders(Wire):
    """All of them."""

    data: list[LlamaStackProvider]


class LlamaStackRoute(Wire):
    """A method at a path."""

    route: str
    method: str
    provider_types: list[str]
    """Types of the providers behind it; none where the server answers by itself."""


class LlamaStackRoutes(Wire):
    """All of them."""

    data: list[LlamaStackRoute]


class LlamaStackVersion(Wire):
    """What the server is."""

    version: str


def health_body(status: Literal["OK", "Error", "Not Implemented"], message: str = "") -> dict[str, Any]:
    """The health of a provider."""
    return {"status": status, "message": message} if message else {"status": status}


def shown(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that may be shown: secrets masked by their type, by their names, and inside of URLs."""
    return {str(key): MASK if _SECRET.search(str(key)) else _shown(value) for key, value in config.items()}


def _shown(value: Any) -> Any:
    match value:
        case Secret():
            return MASK
        case str():
            return _USER_INFO.sub(f"{MASK}@", value)
        case bool() | int() | float() | None:
            return value
        case Mapping():
            return shown(value)
        case list() | tuple():
            return [_shown(item) for item in value]
    return str(value)
