"""How much of OpenAI's API our OpenAPI document describes, by the types that the installed `openai` package carries.

    python bench/openapi_coverage.py              shares by group, and what is missing
    python bench/openapi_coverage.py --json       the same for machines

OpenAI publishes its specification as YAML; no package index carries it, but the official client is generated from
it, so its resources (paths) and its types (properties) say the same. Every operation of the client is read from its
source; the request and answer types are then walked beside our schemas. A property counts once for each type that
has it, and is missing where one place that wants it lacks it. What our document leaves untyped counts as missing.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib
import json
import re
import sys
import typing
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, Required

import openai
from openai._models import BaseModel
from pydantic.fields import FieldInfo
from typing_extensions import get_type_hints, is_typeddict

from llamakit.server.app import build_app
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import single
from llamakit.stack.run_config import ServeConfig

GROUPS = (
    "chat",
    "completions",
    "embeddings",
    "models",
    "responses",
    "conversations",
    "files",
    "uploads",
    "vector_stores",
    "batches",
    "moderations",
)
"""First parts of the paths that are compared; prompts have no paths in the client."""
_CALLS = {"_get": "get", "_post": "post", "_put": "put", "_patch": "patch", "_delete": "delete", "_get_api_list": "get"}
_PLACE = re.compile(r"{[^}]*}")
_EMPTY = (type(None), str, int, float, bool, bytes, object)


@dataclass(kw_only=True)
class Published:
    """One operation of the client."""

    method: str
    path: str
    bodies: list[tuple[Any, set[str]]] = field(default_factory=list)
    """Types with the names of theirs that stand in the body; no names are all of them."""
    queries: list[tuple[Any, set[str]]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list)
    is_list: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Method and path, the names of its places left out."""
        return self.method, _PLACE.sub("{}", self.path)

    @property
    def group(self) -> str:
        """First part of the path."""
        return self.path.strip("/").partition("/")[0]


@dataclass(kw_only=True)
class Tally:
    """What one group wants, and what of it is there."""

    operations: set[str] = field(default_factory=set)
    missing_operations: set[str] = field(default_factory=set)
    properties: set[str] = field(default_factory=set)
    missing_properties: set[str] = field(default_factory=set)


def published() -> list[Published]:
    """Every operation of the installed client, read from the source of its resources."""
    found: dict[tuple[str, str], Published] = {}
    root = Path(openai.__path__[0]) / "resources"
    for path in sorted(root.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        name = ".".join(("openai.resources", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        # Types are asked for where they are compared only: importing them all takes ten seconds.
        names = vars(importlib.import_module(name)) if any(f'"/{group}' in source for group in GROUPS) else {}
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("Async"):
                for operation in _operations(node, names):
                    found.setdefault(operation.key, operation)
    return list(found.values())


def _operations(resource: ast.ClassDef, names: Mapping[str, Any]) -> Iterator[Published]:
    for function in resource.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in ast.walk(function):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in _CALLS
                and call.args
                and (path := _path_of(call.args[0])) is not None
            ):
                yield _operation(call, function, path, names)


def _operation(call: ast.Call, function: ast.FunctionDef, path: str, names: Mapping[str, Any]) -> Published:
    assert isinstance(call.func, ast.Attribute), "only method calls come here"
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    method = _CALLS[call.func.attr]
    if isinstance(keywords.get("method"), ast.Constant):
        method = typing.cast(ast.Constant, keywords["method"]).value
    made = Published(method=method, path=path, is_list=call.func.attr == "_get_api_list")
    # A body may be transformed beforehand, so the types are looked for in the whole function.
    for part, kinds in (("body", made.bodies), ("options", made.queries)):
        scope = keywords.get(part)
        if scope is not None:
            kinds += _transformed(scope, names)
    answer = keywords.get("model", keywords.get("cast_to"))
    if answer is not None:
        made.answers += _named(answer, names)
    if "stream_cls" in keywords:
        made.chunks += _named(keywords["stream_cls"], names)
    return made


def _path_of(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call) and node.args:
        node = node.args[0]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/"):
        return node.value
    return None


def _transformed(scope: ast.expr, names: Mapping[str, Any]) -> list[tuple[Any, set[str]]]:
    """The TypedDicts that `maybe_transform` is given, with the keys it is given."""
    return [
        (kind, {key.value for key in getattr(call.args[0], "keys", ()) if isinstance(key, ast.Constant)})
        for call in ast.walk(scope)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "maybe_transform"
        for kind in _named(call.args[1], names)
    ]


def _named(node: ast.expr, names: Mapping[str, Any]) -> list[Any]:
    """Types that an expression names, the outermost first."""
    if isinstance(node, ast.Name | ast.Attribute):
        value: Any = names.get(node.id) if isinstance(node, ast.Name) else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            value = getattr(names.get(node.value.id), node.attr, None)
        return [value] if value is not None and value not in (Any, type(None)) and not _is_machinery(value) else []
    return [
        kind for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr) for kind in _named(child, names)
    ]


def _is_machinery(value: Any) -> bool:
    """Names of the client's own workings: casts, streams, pages."""
    module = getattr(value, "__module__", "") or ""
    is_type = is_typeddict(value) or (isinstance(value, type) and issubclass(value, BaseModel))
    is_alias = typing.get_origin(value) is not None
    return (module.startswith(("openai._", "openai.pagination", "typing")) and not is_alias) or not (
        is_type or is_alias
    )


class Comparison:
    """Walks a published type beside one of our schemas."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._schemas = document["components"]["schemas"]
        self._seen: set[tuple[int, str]] = set()

    def compare(
        self, kind: Any, schema: Mapping[str, Any], tally: Tally, only: Collection[str] = (), *, in_list: bool = False
    ) -> None:
        """Count the properties of `kind` (of all, or only some at the top), and those that `schema` lacks."""
        if in_list:
            lists = [one["properties"] for one in self._variants(schema)]
            schema = {"anyOf": [one["data"] for one in lists if "data" in one]}
        variants = list(_objects(kind))
        ours = list(self._variants(schema))
        for variant in variants:
            matching = _matching(variant, ours, alone=len(variants) == 1)
            key = (id(variant), json.dumps([sorted(one.get("properties", ())) for one in matching]))
            if key in self._seen:
                continue
            self._seen.add(key)
            for name, inner in _properties(variant).items():
                if only and name not in only:
                    continue
                label = f"{variant.__name__}.{name}"
                tally.properties.add(label)
                found = [one["properties"][name] for one in matching if name in one.get("properties", {})]
                has_objects = any(True for _ in _objects(inner))
                typed = [each for each in found if not has_objects or any(True for _ in self._variants(each))]
                if len(typed) < max(1, len(found)):
                    tally.missing_properties.add(label)
                for each in typed:
                    self.compare(inner, each, tally)

    def _variants(self, schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The objects that a schema allows, through references, unions and lists."""
        if "$ref" in schema:
            yield from self._variants(self._schemas[schema["$ref"].rpartition("/")[2]])
        for union in ("anyOf", "oneOf", "allOf"):
            for each in schema.get(union, ()):
                yield from self._variants(each)
        if isinstance(schema.get("items"), dict):
            yield from self._variants(schema["items"])
        if isinstance(schema.get("additionalProperties"), dict):
            yield from self._variants(schema["additionalProperties"])
        if "properties" in schema:
            yield schema


def _objects(kind: Any) -> Iterator[Any]:
    """The object types within a type."""
    if isinstance(kind, typing.TypeAliasType if sys.version_info >= (3, 12) else ()):
        kind = kind.__value__
    if is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        yield kind
        return
    if typing.get_origin(kind) is typing.Literal or kind in _EMPTY:
        return
    for inner in typing.get_args(kind):
        if not isinstance(inner, FieldInfo | str):
            yield from _objects(inner)


def _properties(kind: Any) -> dict[str, Any]:
    """Names on the wire to types."""
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        return {_wire_name(name, hint): _bare(hint) for name, hint in hints.items()}
    return {(info.alias or name): info.annotation for name, info in kind.model_fields.items()}


def _bare(hint: Any) -> Any:
    while typing.get_origin(hint) in (Required, NotRequired):
        (hint,) = typing.get_args(hint)
    return hint


def _wire_name(name: str, hint: Any) -> str:
    """The alias that `PropertyInfo` gives, if it gives one."""
    bare = _bare(hint)
    for mark in getattr(bare, "__metadata__", ()):
        if getattr(mark, "alias", None):
            return mark.alias
    return name


def _matching(variant: Any, ours: list[Mapping[str, Any]], *, alone: bool) -> list[Mapping[str, Any]]:
    """Our objects that stand for a published one: those with its constant, where both have one."""
    marks = _constants(variant)
    if not marks:
        return ours
    same = [one for one in ours if any(_allowed(one, name) & values for name, values in marks.items())]
    open_ones = [one for one in ours if all(not _allowed(one, name) for name in marks)]
    return same or (ours if alone else open_ones)


def _constants(variant: Any) -> dict[str, set[Any]]:
    made = {}
    for name in ("type", "role", "object"):
        hint = _bare(_properties(variant).get(name))
        literals = [kind for kind in (hint, *typing.get_args(hint)) if typing.get_origin(kind) is typing.Literal]
        values = {value for literal in literals for value in typing.get_args(literal)}
        if values:
            made[name] = values
    return made


def _allowed(schema: Mapping[str, Any], name: str) -> set[Any]:
    field = schema.get("properties", {}).get(name, {})
    choices = [field, *field.get("anyOf", ())]
    return {value for each in choices for value in (each.get("enum") or ([each["const"]] if "const" in each else []))}


def document() -> dict[str, Any]:
    """Our OpenAPI document."""
    stack = build_stack(single("inline::echo", ["echo"], database=":memory:"))
    app = build_app(stack, ServeConfig())
    made = app.openapi()
    asyncio.run(stack.aclose())
    return made


def measure(document: Mapping[str, Any]) -> tuple[dict[str, Tally], dict[str, int]]:
    """A tally for each group, and how many paths there are in all and here."""
    ours = {
        (method, _PLACE.sub("{}", path.removeprefix("/v1"))): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    tallies: dict[str, Tally] = defaultdict(Tally)
    every = published()
    comparison = Comparison(document)
    for operation in every:
        if operation.group not in GROUPS or "?" in operation.path:  # a second, experimental life of a path
            continue
        tally = tallies[operation.group]
        label = f"{operation.method.upper()} {operation.path}"
        tally.operations.add(label)
        mine = ours.get(operation.key)
        if mine is None:
            tally.missing_operations.add(label)
            continue
        _compare(comparison, operation, mine, tally)
    here = {path for _, path in ours}
    all_paths = {operation.key[1] for operation in every}
    return dict(tallies), {"published": len(all_paths), "served": len(all_paths & here)}


def _compare(comparison: Comparison, operation: Published, mine: Mapping[str, Any], tally: Tally) -> None:
    body = mine.get("requestBody", {}).get("content", {})
    for schema in (content["schema"] for content in body.values()):
        for kind, only in operation.bodies:
            comparison.compare(kind, schema, tally, only)
    asked = {parameter["name"].removesuffix("[]") for parameter in mine["parameters"]}
    for kind, only in ((variant, only) for each, only in operation.queries for variant in _objects(each)):
        for name in only & _properties(kind).keys():
            label = f"{kind.__name__}.{name} (query)"
            tally.properties.add(label)
            if name not in asked:
                tally.missing_properties.add(label)
    answers = mine["responses"].get("200", {}).get("content", {})
    for media, content in answers.items():
        kinds = operation.answers if media == "application/json" else operation.chunks
        for kind in kinds:
            comparison.compare(kind, content["schema"], tally, in_list=operation.is_list)


def share(part: Iterable[Any], missing: Iterable[Any]) -> float:
    """Percent of `part` that is not missing."""
    whole = len(set(part))
    return 100.0 if not whole else round(100 * (whole - len(set(missing))) / whole, 1)


def main() -> None:
    """Print the shares; with `--json` as one object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    asked = parser.parse_args()
    tallies, paths = measure(document())
    wanted = [label for tally in tallies.values() for label in tally.properties]
    lacking = [label for tally in tallies.values() for label in tally.missing_properties]
    groups = {
        name: {
            "operations": len(tally.operations),
            "missing_operations": sorted(tally.missing_operations),
            "properties": len(tally.properties),
            "share": share(tally.properties, tally.missing_properties),
            "missing_properties": sorted(tally.missing_properties),
        }
        for name, tally in sorted(tallies.items())
    }
    result = {
        "openai": openai.__version__,
        "paths": paths,
        "properties": len(wanted),
        "share": round(100 * (len(wanted) - len(lacking)) / len(wanted), 1),
        "groups": groups,
    }
    if asked.json:
        print(json.dumps(result, indent=2))
        return
    for name, group in groups.items():
        lost = len(group["missing_operations"])
        done = f"{group['operations'] - lost}/{group['operations']} operations"
        print(f"{name:14} {done:>18} {group['properties']:5} properties {group['share']:6.1f} %")
    print(
        f"{'all':14} {paths['served']}/{paths['published']} paths of the whole API, {result['share']} % of properties"
    )
    for name, group in groups.items():
        for label in (*group["missing_operations"], *group["missing_properties"]):
            print(f"missing in {name}: {label}")


if __name__ == "__main__":
    main()
