"""Frozen dataclasses read from plain values: each field is a key, and what is wrong is told with its path.

The pydantic models are made from the dataclasses, so that a field added there is a key here. Unknown keys are
errors with the nearest known one; a key without a value counts as not written.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model
from pydantic import model_validator as validates_model

from llamakit.core.config import Duration, Secret, nearest
from llamakit.core.errors import ConfigError
from llamakit.stack.substitution import Substituted

MAX_FAULTS = 5
"""Faults that one message tells."""
_SECRET = re.compile(r"(?:^|_)(?:key|token|secret|password|pat)$")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(\.[0-9]+)?")
_WORDS = {"true": True, "false": False}


class Border(BaseModel):
    """What every section shares."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @validates_model(mode="before")
    @classmethod
    def knows_every_key(cls, value: Any) -> Any:
        """Refuse unknown keys with the nearest; set aside keys without a value."""
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a mapping of keys to values, got {_kind(value)}")
        for key in value:
            if key not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                raise ValueError(f"unknown key {key!r}{nearest(str(key), cls.model_fields)}. There are: {known}")
        return {key: item for key, item in value.items() if item is not None}

    def written(self) -> dict[str, Any]:
        """The fields that were given."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def parse(model: type[Border], value: Any) -> Border:
    """`value` as one of the models; raises `ConfigError`."""
    try:
        return model.model_validate(value)
    except ValidationError as fault:
        raise ConfigError(_message(fault)) from None


@cache
def model_of(kind: type[Any], section: str | None = None) -> type[Border]:
    """The model of a dataclass: of its fields that belong to a section of the file, or of those that name none."""
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {
        field.name: (_typed(hints[field.name]), ... if _is_required(field) else None)
        for field in dataclasses.fields(kind)
        if field.metadata.get("section") == section
    }
    return create_model(kind.__name__, __base__=Border, **fields)


def _typed(hint: Any) -> Any:
    """A field's type as pydantic is to read it."""
    if hint is Secret:
        return Annotated[Any, BeforeValidator(_secret)]
    if hint is Duration:
        return Annotated[Any, BeforeValidator(Duration.read)]
    if hint in (int, float):
        return Annotated[hint, BeforeValidator(_not_a_word)]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        kind = hint
        return Annotated[model_of(kind), AfterValidator(lambda model: kind(**model.written()))]
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return Union[tuple(_typed(option) for option in inside)]  # noqa: UP007 - made of a list
    if origin is tuple and inside[1:] == (...,):
        return tuple[_typed(inside[0]), ...]
    if origin in (Mapping, dict):
        if inside[1] is Any:
            return Annotated[dict[str, Any], AfterValidator(settings)]
        return dict[inside[0], _typed(inside[1])]
    return hint


def settings(value: Mapping[str, Any]) -> dict[str, Any]:
    """Free settings: what came from the environment by what it looks like, and secrets as `Secret`."""
    return {key: _setting(key, item) for key, item in value.items()}


def _setting(key: str, value: Any) -> Any:
    match value:
        case Mapping():
            return settings(value)
        case list():
            return [_setting(key, item) for item in value]
        case str() if _SECRET.search(key):
            return Secret(str(value))
        case Substituted():
            return _scalar(value)
    return value


def _scalar(text: str) -> str | int | float | bool:
    """The number or truth that a text spells, where it is spelled as they are printed; else the text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return str(text)
    number = float(text) if match[1] else int(text)
    return number if str(number) == text else str(text)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _secret(value: Any) -> Secret:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"must be text, got {_kind(value)}")
    return Secret(str(value))


def _not_a_word(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and not isinstance(value, Substituted)):
        raise ValueError(f"must be a number, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    kinds = {type(None): "nothing", list: "a list", dict: "a mapping", bool: "true or false"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else "text")


def _message(fault: ValidationError) -> str:
    errors = fault.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{_path(error['loc'])}{_plain(error)}" for error in errors[:MAX_FAULTS]]
    more = [f"and {len(errors) - MAX_FAULTS} more"] if len(errors) > MAX_FAULTS else []
    return "; ".join([*lines, *more])


def _path(loc: tuple[int | str, ...]) -> str:
    made = ""
    for part in loc:
        if isinstance(part, int):
            made += f"[{part}]"
        elif not part.startswith(("function-", "tuple[", "dict[")):
            made += f".{part}" if made else part
    return f"{made}: " if made else ""


def _plain(error: Any) -> str:
    if error["type"] == "missing":
        return "is missing"
    text = error["msg"].removeprefix("Value error, ")
    return text[:1].lower() + text[1:] if error["type"] != "value_error" else text
