"""The smallest value that fits a JSON Schema, for a provider that has no model to ask.

Covers what tools and response formats use: types, enums, constants, objects, arrays, unions, local
references, and lower bounds. A schema beyond that is refused, never answered wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamakit.core.errors import InvalidRequest

MAX_DEPTH = 32


def example_of(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """A value of `schema`; references are looked up in `root`. Raises `InvalidRequest`."""
    root = schema if root is None else root
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"the JSON Schema nests or refers deeper than {MAX_DEPTH} levels", param="response_format")
    if "$ref" in schema:
        return example_of(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return example_of(schema[union][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else None)
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object" | None:
            wanted = schema.get("required", ())
            known = schema.get("properties", {})
            return {name: example_of(known.get(name, {"type": "null"}), root, depth + 1) for name in wanted}
        case "array":
            return [example_of(schema.get("items", {}), root, depth + 1) for _ in range(schema.get("minItems", 0))]
        case "string":
            return "x" * schema.get("minLength", 0)
        case "integer" | "number":
            return max(0, schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
        case "boolean":
            return False
        case "null":
            return None
    raise InvalidRequest(f"the JSON Schema type {kind!r} is unknown", param="response_format")


def _resolve(reference: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    node: Any = root
    for step in str(reference).removeprefix("#").strip("/").split("/"):
        node = node.get(step) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or not str(reference).startswith("#/"):
        raise InvalidRequest(f"the JSON Schema refers to {reference!r}, which is not in it", param="response_format")
    return node
