"""`${env.NAME}` in a distribution: values that come from the environment when it is read.

`${env.NAME}` is the variable, which must be set; `${env.NAME:=default}` the variable or the default, which may be
empty; `${env.NAME:+value}` the value where the variable is set, else nothing. A variable that is set to nothing
counts as not set. What comes out empty counts as not written: its key is left out, and so is a whole entry whose id
comes out empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from llamakit.core.errors import ConfigError

_FORM = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)(?::([=+])([^{}]*))?\}")
_LIKE = re.compile(r"\$\{[^}]{0,60}\}?")
_IDS = ("provider_id", "model_id", "shield_id", "toolgroup_id")


class Substituted(str):
    """Text that came from the environment, and so may mean a number; what was written in the file means itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """A variable that a distribution reads."""

    name: str
    where: str
    """Path of the value that holds it, such as `providers.inference[0].config.api_key`."""
    need: Literal["required", "default", "switch"]
    """Whether the value cannot do without it, has a default, or is there only where it is set."""
    default: str = ""


class _Missing:
    """Nothing came out."""


_MISSING = _Missing()


def substitute(value: Any, environ: Mapping[str, str]) -> Any:
    """`value` with every form replaced; raises `ConfigError` naming all variables that must be set and are not."""
    unset: list[Variable] = []
    made = _replace(value, "", environ, unset)
    if unset:
        names = "; ".join(f"{variable.name} (for {variable.where})" for variable in unset)
        raise ConfigError(
            f"these variables must be set: {names}. Set them, or keep values for them with `llama stack configure`"
        )
    return {} if isinstance(made, _Missing) else made


def variables(value: Any, environ: Mapping[str, str]) -> list[Variable]:
    """The variables that `value` reads under an environment, in order; those of entries left out are not read."""
    found: dict[str, Variable] = {}
    for where, text in _texts(value, "", environ):
        for match in _FORM.finditer(text):
            name, operator, default = match.groups()
            need: Literal["required", "default", "switch"] = (
                "required" if operator is None else "default" if operator == "=" else "switch"
            )
            if name not in found or (found[name].need != "required" and need == "required"):
                found[name] = Variable(name=name, where=where, need=need, default=default if operator == "=" else "")
    return list(found.values())


def every_variable(value: Any) -> list[Variable]:
    """The variables of all entries; what only an entry needs that may be left out has an empty default."""
    needed = variables(value, {})
    names = {variable.name for variable in needed}
    switches = {variable.name: "on" for variable in needed if variable.need == "switch"}
    more = [variable for variable in variables(value, switches) if variable.name not in names]
    return [*needed, *(replace(v, need="default") if v.need == "required" else v for v in more)]


def _texts(value: Any, where: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield where, value
        case dict():
            ids = [key for key in _IDS if key in value]
            for key in ids:
                yield from _texts(value[key], _below(where, key), environ)
            if not _is_left_out(value, where, environ):
                for key, item in value.items():
                    if key not in ids:
                        yield from _texts(item, _below(where, key), environ)
        case list():
            for place, item in enumerate(value):
                yield from _texts(item, f"{where}[{place}]", environ)


def _is_left_out(value: dict[Any, Any], where: str, environ: Mapping[str, str]) -> bool:
    return any(_replace(value[key], _below(where, key), environ, []) is _MISSING for key in _IDS if key in value)


def _replace(value: Any, where: str, environ: Mapping[str, str], unset: list[Variable]) -> Any:
    match value:
        case str() if "${" in value:
            return _replace_text(value, where, environ, unset)
        case dict():
            if _is_left_out(value, where, environ):
                return _MISSING
            made = {key: _replace(item, _below(where, key), environ, unset) for key, item in value.items()}
            return {key: item for key, item in made.items() if item is not _MISSING}
        case list():
            items = [_replace(item, f"{where}[{place}]", environ, unset) for place, item in enumerate(value)]
            return [item for item in items if item is not _MISSING]
    return value


def _replace_text(text: str, where: str, environ: Mapping[str, str], unset: list[Variable]) -> Any:
    def value_of(match: re.Match[str]) -> str:
        name, operator, given = match.groups()
        found = environ.get(name, "")
        if operator == "+":
            return given if found else ""
        if not found and operator is None:
            unset.append(Variable(name=name, where=where, need="required"))
            # Not nothing: that would leave out the entry it is missing from.
            return "?"
        return found or given or ""

    rest = _FORM.sub("", text)
    if odd := _LIKE.search(rest):
        raise ConfigError(f"{where}: {odd[0]!r} is none of ${{env.NAME}}, ${{env.NAME:=default}}, ${{env.NAME:+value}}")
    made = _FORM.sub(value_of, text)
    return Substituted(made) if made else _MISSING


def _below(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)
