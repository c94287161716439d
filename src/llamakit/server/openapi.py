"""The OpenAPI 3.1 document, made from the table of operations and the wire types it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from llamakit import __version__
from llamakit.api.wire import Wire
from llamakit.server.dialects import dialect_of, error_kind
from llamakit.server.field_docs import DocumentedSchema
from llamakit.server.routing import Operation
from llamakit.server.scopes import scope_of


class OpenApiDocument(Wire):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


_REF = "#/components/schemas/{model}"
_PLACE = re.compile(r"{(\w+)(?::\w+)?}")


def openapi_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole document as plain values."""
    kinds = {kind for operation in operations for kind in _kinds(operation)}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    named, schemas = models_json_schema(
        [(kind, "validation") for kind in ordered], ref_template=_REF, schema_generator=DocumentedSchema
    )
    refs: dict[type[BaseModel], Any] = {kind: named[kind, "validation"] for kind in ordered}
    paths: dict[str, Any] = {}
    for operation in operations:
        path = _PLACE.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, refs)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "llamakit",
            "version": __version__,
            "description": "Llama models behind OpenAI's API, with extensions that standard clients tolerate.",
        },
        "paths": paths,
        "components": {
            "schemas": {_public(name): schema for name, schema in schemas.get("$defs", {}).items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
    return _with_public_names(document)


def _public(name: str) -> str:
    """The name of a type outside this house, where nobody needs to tell the wire's form from ours."""
    return name.removeprefix("Wire")


def _with_public_names(value: Any) -> Any:
    match value:
        case dict():
            made = {key: _with_public_names(item) for key, item in value.items()}
            if isinstance(made.get("title"), str):
                made["title"] = _public(made["title"])
            if isinstance(made.get("$ref"), str):
                made["$ref"] = _REF.format(model=_public(made["$ref"].rpartition("/")[2]))
            mapping = made.get("mapping")
            if "propertyName" in made and isinstance(mapping, dict):
                made["mapping"] = {
                    tag: _REF.format(model=_public(ref.rpartition("/")[2])) for tag, ref in mapping.items()
                }
            return made
        case list():
            return [_with_public_names(item) for item in value]
    return value


def _kinds(operation: Operation) -> list[type[BaseModel]]:
    kinds = (operation.body, operation.answer, operation.chunk, _error_kind(operation))
    return [kind for kind in kinds if kind is not None]


def _error_kind(operation: Operation) -> type[BaseModel]:
    return error_kind(dialect_of(operation.path))


def _operation(operation: Operation, refs: dict[type[BaseModel], Any]) -> dict[str, Any]:
    wanted = scope_of(operation)
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.about,
        "tags": [operation.tag],
        "security": [] if wanted is None else [{"key": [wanted.value]}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PLACE.findall(operation.path)
        ]
        + [
            {"name": query.name, "in": "query", "description": query.about, "schema": {"type": "string"}}
            for query in operation.query
        ],
        "responses": {
            **_success(operation, refs),
            "4XX": _error("The request is at fault.", operation, refs),
            "5XX": _error("The server is at fault, or has no room now.", operation, refs),
        },
    }
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": {operation.body_media: {"schema": refs[operation.body]}}}
    if operation.chunk is not None:
        made["x-llama-stream"] = True
    return made


def _success(operation: Operation, refs: dict[type[BaseModel], Any]) -> dict[str, Any]:
    if operation.is_empty:
        return {"204": {"description": "Done."}}
    return {"200": {"description": "The answer.", "content": _content(operation, refs)}}


def _content(operation: Operation, refs: dict[type[BaseModel], Any]) -> dict[str, Any]:
    if operation.answer is None:
        return {operation.answer_media: {"schema": {"type": "string"}}}
    content: dict[str, Any] = {"application/json": {"schema": refs[operation.answer]}}
    if operation.chunk is not None:
        content[operation.framing.media_type] = {"schema": refs[operation.chunk]}
    return content


def _error(about: str, operation: Operation, refs: dict[type[BaseModel], Any]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": refs[_error_kind(operation)]}}}
