"""Distributions as YAML: where they are found, how a file becomes a `Distribution`.

A distribution is named by the path of a file, by the name of one that `llama stack configure` wrote, or by the name
of one that comes with the package.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import create_model
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from llamakit.core.config import data_home, nearest
from llamakit.core.errors import ConfigError
from llamakit.stack.border import Border, model_of, parse
from llamakit.stack.distribution import Distribution
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.substitution import substitute, variables

MAX_BYTES = 1 << 20
FOLDER = "distributions"
"""Of the package, and below the data home."""
SUFFIX = ".yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The text of a distribution."""

    name: str
    place: str
    """The path of its file, or `package`."""
    text: str

    def values(self) -> dict[str, Any]:
        """Its plain values, as they are written; raises `ConfigError`."""
        return parse_yaml(self.text, self.place if self.place != "package" else self.name)


def shipped() -> list[str]:
    """Names of the distributions that come with the package."""
    folder = files("llamakit.stack") / FOLDER
    return sorted(item.name.removesuffix(SUFFIX) for item in folder.iterdir() if item.name.endswith(SUFFIX))


def own_folder() -> Path:
    """Where the distributions of this machine are."""
    return data_home() / FOLDER


def own() -> list[str]:
    """Names of the distributions of this machine."""
    folder = own_folder()
    return sorted(path.stem for path in folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


def find(name: str) -> Source:
    """The text of a distribution, by path or name; raises `ConfigError` with the nearest name."""
    if os.sep in name or name.endswith((SUFFIX, ".yml")):
        path = Path(name).expanduser()
        return Source(name=path.stem, place=str(path), text=_read(path))
    if name in own():
        path = own_folder() / f"{name}{SUFFIX}"
        return Source(name=name, place=str(path), text=_read(path))
    names = shipped()
    if name in names:
        text = (files("llamakit.stack") / FOLDER / f"{name}{SUFFIX}").read_text(encoding="utf-8")
        return Source(name=name, place="package", text=text)
    known = sorted({*names, *own()})
    raise ConfigError(
        f"no distribution {name!r}{nearest(name, known)}. There are: {', '.join(known)}; or give the path of a file"
    )


def load(name: str, environ: Mapping[str, str] | None = None) -> Distribution:
    """The distribution of a path or name under an environment; raises `ConfigError`."""
    return read(find(name), environ)


def read(source: Source, environ: Mapping[str, str] | None = None) -> Distribution:
    """The distribution of a text under an environment; raises `ConfigError` with the path of each fault."""
    try:
        environ = os.environ if environ is None else environ
        written = source.values()
        values = substitute(written, environ)
        if switches := _left_out(written, environ):
            raise ConfigError(f"every inference provider is left out; set one of: {', '.join(switches)}")
        return to_distribution({"name": source.name, **values})
    except ConfigError as fault:
        raise ConfigError(f"distribution {source.name}: {fault}") from None


def asks_for(source: Source, environ: Mapping[str, str] | None = None) -> list[str]:
    """What must be set before it can run: names of variables, and `one of A, B` where none brings in a provider."""
    environ = os.environ if environ is None else environ
    written = source.values()
    needed = [v.name for v in variables(written, environ) if v.need == "required" and not environ.get(v.name)]
    switches = _left_out(written, environ)
    return [*needed, *([f"one of {', '.join(switches)}"] if switches else [])]


def _left_out(written: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """The variables that bring in inference providers, where every one of them is left out."""
    providers = written.get("providers")
    wanted = providers.get("inference") if isinstance(providers, dict) else None
    ids = [row.get("provider_id") for row in wanted or () if isinstance(row, dict)]
    switches = [variable.name for variable in variables(wanted, {}) if variable.need == "switch"]
    is_switched = bool(ids) and all(isinstance(id, str) and ":+" in id for id in ids)
    return switches if is_switched and not any(environ.get(name) for name in switches) else []


def to_distribution(values: Mapping[str, Any]) -> Distribution:
    """Plain values as a distribution; raises `ConfigError`."""
    written = parse(_file_model(), values).written()
    sections = [written.pop(name) for name in ("server", "auth") if name in written]
    try:
        server = ServeConfig(**{key: value for section in sections for key, value in section.written().items()})
    except ConfigError as fault:
        raise ConfigError(f"server and auth: {fault}") from None
    return Distribution(**{**written, "server": server})


def sections() -> tuple[str, ...]:
    """The keys at the top of a file."""
    return tuple(_file_model().model_fields)


@cache
def _file_model() -> type[Border]:
    """The model of a whole file: that of `Distribution`, where how a server is reached stands in two sections."""
    whole = model_of(Distribution)
    fields: dict[str, Any] = {
        name: (field.rebuild_annotation(), field.default)
        for name, field in whole.model_fields.items()
        if name != "server"
    }
    names = {str(f.metadata["section"]) for f in dataclasses.fields(ServeConfig) if "section" in f.metadata}
    fields["server"] = (model_of(ServeConfig), None)
    fields |= {name: (model_of(ServeConfig, name), None) for name in sorted(names)}
    return create_model("DistributionFile", __base__=Border, **fields)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in a YAML text; raises `ConfigError` for anything else, for a key written twice and for aliases."""
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as fault:
        raise ConfigError(f"{where} is no YAML: {' '.join(str(fault).split())}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must hold a mapping with version, providers, models, ...; see `llama stack show`")
    return value


class _Loader(yaml.SafeLoader):
    """Plain YAML: keys are distinct texts and nothing refers to anything else in the file."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise ComposerError(None, None, "aliases are not used here", event.start_mark)
        return super().compose_node(parent, index)  # pyright: ignore[reportArgumentType]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key is plain text", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"key {key.value!r} is twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes, a distribution at most {MAX_BYTES}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no file {path}. Distributions by name: {', '.join(shipped())}") from None
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"cannot read {path}: {fault}") from None
