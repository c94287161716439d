"""Qdrant for tests: its own storage engine in process, behind as much of its REST API as we speak.

No package brings Qdrant's server. `qdrant-edge-py` brings the crates below it: segments, write-ahead log, payload
indexes, filters, sparse vectors with their IDF. This file is the thin front: every request is checked by the models
that `qdrant-client` generates from Qdrant's published OpenAPI document (unknown fields are refused there), every
answer is made of them, and statuses and error bodies are those of the server. `python -m tests.qdrant FOLDER PORT`
serves it from a process of its own, which may be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_SCHEMAS = {"keyword": "Keyword", "integer": "Integer", "float": "Float", "bool": "Bool"}
BODY_BYTES = 32 << 20
"""What the server takes in one request unless it is told otherwise."""


class Refused(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Engine:
    """Collections under one folder."""

    folder: Path
    api_key: str | None = None
    shards: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path and body of every request that was taken."""

    def __post_init__(self) -> None:
        from qdrant_client.http import models
        from qdrant_edge import EdgeShard

        self.models = models
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shards |= {path.name: EdgeShard.load(str(path)) for path in self.folder.iterdir()}

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The `result`."""
        name, _, rest = path.removeprefix("/collections/").partition("/")
        if rest == "":
            return {"PUT": self._create, "DELETE": self._drop}[method](name, body)
        if name not in self.shards:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        made = getattr(self, "_" + rest.replace("/", "_"))
        return made(self.shards[name], body)

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()

    def _create(self, name: str, body: Any) -> bool:
        import qdrant_edge as edge

        wanted = self._read("CreateCollection", body)
        if name in self.shards:
            raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
        vectors = {
            vector: edge.EdgeVectorParams(size=params.size, distance=getattr(edge.Distance, params.distance.value))
            for vector, params in wanted.vectors.items()
        }
        sparse = {
            vector: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)
            for vector, params in wanted.sparse_vectors.items()
            if params.modifier.value == "idf"
        }
        (self.folder / name).mkdir()
        config = edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse)
        self.shards[name] = edge.EdgeShard.create(str(self.folder / name), config)
        return True

    def _drop(self, name: str, body: Any) -> bool:
        shard = self.shards.pop(name, None)
        if shard is None:
            return False
        shard.close()
        shutil.rmtree(self.folder / name)
        return True

    def _index(self, shard: Any, body: Any) -> Any:
        import qdrant_edge as edge

        wanted = self._read("CreateFieldIndex", body)
        schema = getattr(edge.PayloadSchemaType, _SCHEMAS[wanted.field_schema.value])
        shard.update(edge.UpdateOperation.create_field_index(wanted.field_name, schema))
        return _completed()

    def _points(self, shard: Any, body: Any) -> Any:
        import qdrant_edge as edge

        if "ids" in body:
            wanted = self._read("PointRequest", body)
            return [_record(found) for found in shard.retrieve(wanted.ids, wanted.with_payload, wanted.with_vector)]
        wanted = self._read("PointsList", body)
        shard.update(edge.UpdateOperation.upsert_points([_point(point) for point in wanted.points]))
        return _completed()

    def _points_batch(self, shard: Any, body: Any) -> Any:
        import qdrant_edge as edge

        made = []
        for operation in self._read("UpdateOperations", body).operations:
            match operation:
                case self.models.SetPayloadOperation(set_payload=change):
                    update = edge.UpdateOperation.set_payload_by_filter(_filter(change.filter), change.payload)
                case self.models.DeleteOperation(delete=self.models.FilterSelector(filter=filter)):
                    update = edge.UpdateOperation.delete_points_by_filter(_filter(filter))
                case _:
                    raise Refused(501, f"the stand-in has no {type(operation).__name__}")
            shard.update(update)
            made.append(_completed())
        return made

    def _points_count(self, shard: Any, body: Any) -> Any:
        import qdrant_edge as edge

        wanted = self._read("CountRequest", body)
        return {"count": shard.count(edge.CountRequest(exact=wanted.exact, filter=_filter(wanted.filter)))}

    def _points_scroll(self, shard: Any, body: Any) -> Any:
        import qdrant_edge as edge

        wanted = self._read("ScrollRequest", body)
        points, following = shard.scroll(
            edge.ScrollRequest(
                offset=wanted.offset,
                limit=wanted.limit,
                filter=_filter(wanted.filter),
                with_payload=wanted.with_payload,
                with_vector=wanted.with_vector,
            )
        )
        return self._made("ScrollResult", {"points": [_record(point) for point in points],
                                           "next_page_offset": following})  # fmt: skip

    def _points_query(self, shard: Any, body: Any) -> Any:
        import qdrant_edge as edge

        wanted = self._read("QueryRequest", body)
        query: Any = wanted.query
        if isinstance(query, self.models.NearestQuery):
            query = query.nearest
        if isinstance(query, self.models.SparseVector):
            query = edge.SparseVector(query.indices, query.values)
        params = None if wanted.params is None else edge.SearchParams(exact=bool(wanted.params.exact))
        found = shard.query(
            edge.QueryRequest(
                limit=wanted.limit,
                query=edge.Query.Nearest(query, using=wanted.using),
                filter=_filter(wanted.filter),
                with_payload=wanted.with_payload,
                with_vector=wanted.with_vector,
                params=params,
            )
        )
        points = [_record(point) | {"version": point.version, "score": point.score} for point in found]
        return self._made("QueryResponse", {"points": points})

    def _facet(self, shard: Any, body: Any) -> Any:
        import qdrant_edge as edge

        wanted = self._read("FacetRequest", body)
        found = shard.facet(
            edge.FacetRequest(wanted.key, limit=wanted.limit, exact=bool(wanted.exact), filter=_filter(wanted.filter))
        )
        return {"hits": [{"value": hit.value, "count": hit.count} for hit in found.hits]}

    def _read(self, model: str, body: Any) -> Any:
        try:
            return TypeAdapter(getattr(self.models, model)).validate_python(body)
        except ValidationError as error:
            raise Refused(400, f"Format error in JSON body: {str(error)[:500]}") from error

    def _made(self, model: str, result: Any) -> Any:
        return json.loads(TypeAdapter(getattr(self.models, model)).validate_python(result).model_dump_json())


def _completed() -> dict[str, Any]:
    return {"operation_id": 0, "status": "completed"}


def _point(point: Any) -> Any:
    import qdrant_edge as edge

    vectors = {
        name: vector if isinstance(vector, list) else edge.SparseVector(vector.indices, vector.values)
        for name, vector in point.vector.items()
    }
    return edge.Point(point.id, vectors, point.payload)


def _record(point: Any) -> dict[str, Any]:
    return {"id": str(point.id), "payload": point.payload}


def _filter(filter: Any) -> Any:
    """A filter of the published models as one of the engine's."""
    import qdrant_edge as edge

    if filter is None:
        return None
    parts = {name: getattr(filter, name) for name in ("must", "should", "must_not")}
    return edge.Filter(
        **{
            name: [_condition(one) for one in (part if isinstance(part, list) else [part])]
            for name, part in parts.items()
            if part is not None
        }
    )


def _condition(condition: Any) -> Any:
    import qdrant_edge as edge
    from qdrant_client.http import models

    match condition:
        case models.Filter():
            return _filter(condition)
        case models.NestedCondition(nested=nested):
            return edge.NestedCondition(nested.key, _filter(nested.filter))
        case models.FieldCondition(key=key, match=models.MatchValue(value=value)):
            return edge.FieldCondition(key, match=edge.MatchValue(value))
        case models.FieldCondition(key=key, match=models.MatchAny(any=values)):
            return edge.FieldCondition(key, match=edge.MatchAny(values))
        case models.FieldCondition(key=key, range=models.Range() as range):
            return edge.FieldCondition(key, range=edge.RangeFloat(**range.model_dump(exclude_none=True)))
    raise Refused(501, f"the stand-in has no condition {condition!r}")


def build_app(engine: Engine) -> Starlette:
    """The REST front."""

    async def answer(http: Request) -> JSONResponse:
        try:
            if engine.api_key is not None and http.headers.get("api-key") != engine.api_key:
                raise Refused(401, "Must provide an API key or an Authorization bearer token")
            raw = await http.body()
            if len(raw) > BODY_BYTES:
                raise Refused(413, f"Payload error: JSON payload ({len(raw)} bytes) is larger than allowed")
            body = json.loads(raw) if raw else None
            engine.seen.append((http.method, str(http.url.path), body))
            result = await asyncio.to_thread(engine.answer, http.method, http.url.path, body)
        except Refused as refused:
            return JSONResponse({"status": {"error": str(refused)}, "time": 0.0}, refused.status)
        return JSONResponse({"result": result, "status": "ok", "time": 0.0})

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "PUT", "POST", "DELETE"])])


@contextlib.contextmanager
def qdrant_at(folder: Path, *, api_key: str | None = None, port: int = 0, **tls: Any) -> Iterator[tuple[str, Engine]]:
    """URL and engine of a stand-in in a thread of its own; skips where its packages are not installed."""
    pytest.importorskip("qdrant_edge")
    pytest.importorskip("qdrant_client")
    engine = Engine(folder, api_key)
    server = _server(engine, port, **tls)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        threading.Event().wait(0.01)
    scheme = "https" if tls else "http"
    try:
        yield f"{scheme}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", engine
    finally:
        server.should_exit = True
        thread.join(10)
        engine.close()


def port_of(url: str) -> int:
    """The port of a stand-in."""
    port = urlsplit(url).port
    assert port is not None
    return port


def _server(engine: Engine, port: int, **tls: Any) -> uvicorn.Server:
    config = uvicorn.Config(build_app(engine), port=port, log_level="error", lifespan="off", ws="none", **tls)
    return uvicorn.Server(config)


if __name__ == "__main__":
    _server(Engine(Path(sys.argv[1])), int(sys.argv[2])).run()
