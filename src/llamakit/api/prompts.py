"""Prompts with versions on the wire, in the shape of Llama Stack; a template names its variables `{{ name }}`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.wire import FIRST, Wire, found
from llamakit.core.errors import InvalidRequest

MAX_TEMPLATE_CHARS = 1 << 20
MAX_VARIABLES = 256
_PLACE = re.compile(r"{{\s*([A-Za-z_][A-Za-z0-9_]{0,63})\s*}}", re.ASCII)

Template = Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE_CHARS)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Names = Annotated[list[Name], FIRST, Field(max_length=MAX_VARIABLES)]
Version = Annotated[int, Field(ge=1, lt=2**31)]


class WirePromptRequest(Wire):
    """Body of `POST /v1/prompts`."""

    prompt: Template
    variables: Names | None = None
    """Names that the template may use; those it uses when left out."""


class WirePromptUpdate(Wire):
    """Body of `PUT /v1/prompts/{prompt_id}`: makes the next version."""

    prompt: Template
    version: Version
    """The latest version that the client knows."""
    variables: Names | None = None
    set_as_default: bool | None = None
    """Whether readers who name no version get this one; they do by default."""


class WireDefaultVersion(Wire):
    """Body of `PUT /v1/prompts/{prompt_id}/set-default-version`."""

    version: Version


class WirePrompt(Wire):
    """One version of a prompt."""

    prompt_id: str
    prompt: str
    version: int
    variables: list[str]
    is_default: bool


class WirePrompts(Wire):
    """Prompts, or the versions of one."""

    object: Literal["list"]
    data: Annotated[list[WirePrompt], FIRST]
    has_more: bool


def variables_of(template: str, declared: Iterable[str] | None) -> list[str]:
    """The names of a template's variables; raises `InvalidRequest` for one it uses and nobody declared."""
    used = list(dict.fromkeys(_PLACE.findall(template)))
    if declared is None:
        if len(used) > MAX_VARIABLES:
            raise InvalidRequest(f"prompt uses {len(used)} variables, at most {MAX_VARIABLES}", param="prompt")
        return used
    names = list(dict.fromkeys(declared))
    for name in used:
        if name not in names:
            raise InvalidRequest(f"prompt uses {name!r}, which variables does not name", param="variables")
    return names


def fill(template: str, names: Iterable[str], values: Mapping[str, str]) -> str:
    """The template with its variables filled in; raises `InvalidRequest` for one without value, or unknown."""
    known = set(names)
    for name in values:
        if name not in known:
            raise InvalidRequest(
                f"prompt.variables: {found(name)} is not a variable of the prompt, which has "
                f"{', '.join(sorted(known)) or 'none'}",
                param="prompt.variables",
            )
    for name in _PLACE.findall(template):
        if name not in values:
            raise InvalidRequest(f"prompt.variables.{name} is required", param=f"prompt.variables.{name}")
    # Filled in one pass, so that a value which looks like a variable stays what it is.
    return _PLACE.sub(lambda match: values[match[1]], template)


def prompt_body(id: str, version: Mapping[str, Any], *, default: int) -> dict[str, Any]:
    """A version of a prompt as plain values."""
    return {
        "prompt_id": id,
        "prompt": version["template"],
        "version": version["version"],
        "variables": version["variables"],
        "is_default": version["version"] == default,
    }


def prompts_body(prompts: list[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    """A list of them."""
    return {"object": "list", "data": prompts, "has_more": has_more}
