"""Fields of Ollama's `/api/create` -> the recipe of a created model, as a Modelfile would say it.

What only a person at the server's machine may say, a path above all, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamakit.api.ollama_models import OllamaCreateRequest
from llamakit.api.ollama_options import plain_name
from llamakit.core.errors import InvalidRequest
from llamakit.hub.modelfile import SET_ASIDE, Modelfile, parse, parse_parameter


def to_recipe(wire: OllamaCreateRequest) -> Modelfile:
    """The recipe that the fields or the Modelfile's text describe; raises `InvalidRequest` naming the field."""
    for param, asked in (
        ("template", wire.template),
        ("files", wire.files),
        ("adapters", wire.adapters),
        ("quantize", wire.quantize),
    ):
        if asked:
            raise InvalidRequest(
                f"{param}: over HTTP a model is made from another one; for the rest use the `llama` command "
                "on the server's machine",
                param=param,
            )
    if wire.modelfile is not None:
        if wire.from_ is not None:
            raise InvalidRequest("from and modelfile exclude each other; send one", param="modelfile")
        return parse(wire.modelfile, where="modelfile")
    if wire.from_ is None:
        raise InvalidRequest("from is required: the model to build on", param="from", code="missing_required_parameter")
    licence = wire.license if wire.license is None or isinstance(wire.license, str) else "\n\n".join(wire.license)
    return Modelfile(
        base=plain_name(wire.from_),
        parameters=tuple(_parameters(wire.parameters or {})),
        system=wire.system or None,
        messages=tuple((turn.role, turn.content) for turn in wire.messages or ()),
        licence=licence or None,
    )


def idle_parameters(wire: OllamaCreateRequest) -> tuple[str, ...]:
    """Known parameters that have no effect here."""
    return tuple(f"parameters.{name}" for name in wire.parameters or {} if name.lower() in SET_ASIDE)


def _parameters(given: Mapping[str, Any]) -> list[tuple[str, int | float | str]]:
    made: list[tuple[str, int | float | str]] = []
    for name, value in given.items():
        if name.lower() in SET_ASIDE or value is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool) or not isinstance(one, int | float | str):
                raise InvalidRequest(
                    f"parameters.{name[:64]} must be a number or text", param=f"parameters.{name[:64]}"
                )
            made.append(parse_parameter(name, str(one), where="parameters"))
    return made
