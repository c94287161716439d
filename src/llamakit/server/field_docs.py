"""The line under each field of a wire type, read from its module when somebody asks for the OpenAPI document.

pydantic could read them as it makes each type, which would take a quarter of a server's start for a document that
most servers are never asked for.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue


class DocumentedSchema(GenerateJsonSchema):
    """JSON schemas whose properties say what the line under their field says."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        """The schema of one type."""
        made = super().model_schema(schema)
        kind: type[BaseModel] = schema["cls"]
        properties = made.get("properties", {})
        for name, text in docs_of(kind).items():
            field = kind.model_fields.get(name)
            for known in (name, field.alias if field is not None else None):
                if known in properties:
                    properties[known].setdefault("description", text)
        return made


@cache
def docs_of(kind: type[BaseModel]) -> Mapping[str, str]:
    """Field to the line under it, those of the types it extends among them."""
    made: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            made |= _docs_in(base.__module__).get(base.__qualname__, {})
    return made


@cache
def _docs_in(module: str) -> Mapping[str, Mapping[str, str]]:
    """Class to field to line, for a whole module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {name: dict(_lines(found)) for name, found in _classes(tree, "")}


def _classes(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
            yield from _classes(child, f"{prefix}{child.name}.")


def _lines(found: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for item, following in zip(found.body, found.body[1:], strict=False):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(following, ast.Expr):
            text = following.value.value if isinstance(following.value, ast.Constant) else None
            if isinstance(text, str):
                yield item.target.id, inspect.cleandoc(text)
