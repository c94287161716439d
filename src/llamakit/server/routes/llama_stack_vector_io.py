"""`/v1/vector-dbs`, `/v1/vector-io` and `/v1/tool-runtime/rag-tool`: databases, their chunks, and documents in them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.llama_stack_lists import data_body
from llamakit.api.llama_stack_rag import LlamaStackRagInsert, LlamaStackRagQuery, LlamaStackRagResult
from llamakit.api.llama_stack_vector_io import (
    DEFAULT_RESULTS,
    LlamaStackFound,
    LlamaStackInsert,
    LlamaStackQuery,
    LlamaStackQueryParams,
    LlamaStackVectorDb,
    LlamaStackVectorDbRequest,
    LlamaStackVectorDbs,
    query_text,
    target_of,
    to_chunks,
)
from llamakit.rag.fuse import Fusion
from llamakit.server.exchange import owner_of
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service

TAG = "llama stack vector io"


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    dbs, rag = service.stack.vector_dbs, service.stack.rag_tool

    async def list_dbs(http: Request) -> Response:
        return json_response(data_body(await dbs.list(owner_of(http))))

    async def register_db(http: Request) -> Response:
        wire = await service.read(http, LlamaStackVectorDbRequest, idle)
        return json_response(await dbs.register(owner_of(http), wire))

    async def get_db(http: Request) -> Response:
        return json_response(await dbs.get(owner_of(http), http.path_params["vector_db_id"]))

    async def unregister_db(http: Request) -> Response:
        await dbs.unregister(owner_of(http), http.path_params["vector_db_id"])
        return Response(status_code=204)

    async def insert(http: Request) -> Response:
        wire = await service.read(http, LlamaStackInsert)
        work = dbs.insert(owner_of(http), target_of(wire), to_chunks(wire))
        await service.wanted(http, work)
        return Response(status_code=204)

    async def query(http: Request) -> Response:
        wire = await service.read(http, LlamaStackQuery)
        params = wire.params or LlamaStackQueryParams()
        work = dbs.query(
            owner_of(http),
            target_of(wire),
            query_text(wire),
            limit=params.k or params.max_chunks or DEFAULT_RESULTS,
            mode=params.mode or "vector",
            threshold=params.score_threshold or 0.0,
            fusion=fusion_of(params),
        )
        found = await service.wanted(http, work)
        return json_response({"chunks": [chunk for chunk, _ in found], "scores": [score for _, score in found]})

    async def rag_insert(http: Request) -> Response:
        wire = await service.read(http, LlamaStackRagInsert)
        await service.wanted(http, rag.insert(owner_of(http), wire))
        return Response(status_code=204)

    async def rag_query(http: Request) -> Response:
        wire = await service.read(http, LlamaStackRagQuery)
        return json_response(await service.wanted(http, rag.query(owner_of(http), wire)))

    one = "/v1/vector-dbs/{vector_db_id:path}"
    return [
        Operation(
            name="listVectorDbs",
            method="GET",
            path="/v1/vector-dbs",
            about="Vector databases by their names, and vector stores that have none.",
            endpoint=list_dbs,
            tag=TAG,
            answer=LlamaStackVectorDbs,
        ),
        Operation(
            name="registerVectorDb",
            method="POST",
            path="/v1/vector-dbs",
            about="A new vector database.",
            endpoint=register_db,
            tag=TAG,
            body=LlamaStackVectorDbRequest,
            answer=LlamaStackVectorDb,
        ),
        Operation(
            name="getVectorDb",
            method="GET",
            path=one,
            about="One of them.",
            endpoint=get_db,
            tag=TAG,
            answer=LlamaStackVectorDb,
        ),
        Operation(
            name="unregisterVectorDb",
            method="DELETE",
            path=one,
            about="Delete a vector database with its chunks.",
            endpoint=unregister_db,
            tag=TAG,
            is_empty=True,
        ),
        Operation(
            name="insertChunks",
            method="POST",
            path="/v1/vector-io/insert",
            about="Keep chunks that the caller cut, and embed those that come without vectors.",
            endpoint=insert,
            tag=TAG,
            body=LlamaStackInsert,
            is_empty=True,
        ),
        Operation(
            name="queryChunks",
            method="POST",
            path="/v1/vector-io/query",
            about="The chunks that answer best.",
            endpoint=query,
            tag=TAG,
            body=LlamaStackQuery,
            answer=LlamaStackFound,
        ),
        Operation(
            name="insertDocuments",
            method="POST",
            path="/v1/tool-runtime/rag-tool/insert",
            about="Cut, embed and keep documents.",
            endpoint=rag_insert,
            tag=TAG,
            body=LlamaStackRagInsert,
            is_empty=True,
        ),
        Operation(
            name="queryDocuments",
            method="POST",
            path="/v1/tool-runtime/rag-tool/query",
            about="What several databases have on a question, as text for a model.",
            endpoint=rag_query,
            tag=TAG,
            body=LlamaStackRagQuery,
            answer=LlamaStackRagResult,
        ),
    ]


def fusion_of(params: LlamaStackQueryParams) -> Fusion | None:
    """How the two lists of a hybrid search become one; raises `InvalidRequest` for values out of range."""
    given = params.reranker_params or {}
    if params.reranker_type == "weighted":
        return Fusion(kind="weighted", alpha=given.get("alpha", 0.5))
    return Fusion(impact=given.get("impact_factor", 60.0))


def idle(wire: LlamaStackVectorDbRequest) -> tuple[str, ...]:
    """Known fields that have no effect here."""
    return tuple(
        name
        for name, value in (("provider_id", wire.provider_id), ("provider_vector_db_id", wire.provider_vector_db_id))
        if value is not None
    )
