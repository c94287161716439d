"""`/v1/vector_stores`: the stores themselves, and searching them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.openai_lists import WireDeleted, read_page
from llamakit.api.vector_search import WireSearchRequest, WireSearchResults, results_body, set_aside
from llamakit.api.vector_stores import WireStore, WireStoreRequest, WireStores, WireStoreUpdate
from llamakit.server.exchange import exchange_of
from llamakit.server.routes.openai_responses import PAGE
from llamakit.server.routing import Operation, Query, json_response
from llamakit.server.service import Service
from llamakit.stack.vector_search import found_body, read_ranking

BOTH_WAYS = (*PAGE, Query(name="before", about="Id of the first object the client has, to go back."))


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    stores = service.stack.vector_stores

    async def create_store(http: Request) -> Response:
        wire = await service.read(http, WireStoreRequest)
        return json_response(await stores.create(exchange_of(http).principal.name, wire))

    async def list_stores(http: Request) -> Response:
        page = read_page(http.query_params, both_ways=True)
        return json_response(await stores.list(exchange_of(http).principal.name, page))

    async def get_store(http: Request) -> Response:
        return json_response(await stores.get(*_which(http)))

    async def update_store(http: Request) -> Response:
        wire = await service.read(http, WireStoreUpdate)
        return json_response(await stores.update(*_which(http), wire))

    async def delete_store(http: Request) -> Response:
        return json_response(await stores.delete(*_which(http)))

    async def search_store(http: Request) -> Response:
        wire = await service.read(http, WireSearchRequest, set_aside)
        fusion, threshold = read_ranking(wire.ranking_options)
        queries = [wire.query] if isinstance(wire.query, str) else wire.query
        work = stores.search(
            *_which(http),
            queries,
            filters=None if wire.filters is None else wire.filters.model_dump(),
            limit=wire.max_num_results or 10,
            mode=wire.search_mode or "hybrid",
            threshold=threshold,
            fusion=fusion,
        )
        found = await service.wanted(http, work)
        return json_response(results_body(queries, [found_body(result) for result in found]))

    one = "/v1/vector_stores/{vector_store_id}"
    return [
        Operation(
            name="createVectorStore",
            method="POST",
            path="/v1/vector_stores",
            about="A new vector store.",
            endpoint=create_store,
            tag="vector stores",
            body=WireStoreRequest,
            answer=WireStore,
        ),
        Operation(
            name="listVectorStores",
            method="GET",
            path="/v1/vector_stores",
            about="The vector stores there are.",
            endpoint=list_stores,
            tag="vector stores",
            answer=WireStores,
            query=BOTH_WAYS,
        ),
        Operation(
            name="getVectorStore",
            method="GET",
            path=one,
            about="A vector store, and how many of its files are ready.",
            endpoint=get_store,
            tag="vector stores",
            answer=WireStore,
        ),
        Operation(
            name="modifyVectorStore",
            method="POST",
            path=one,
            about="Change name, expiry or metadata.",
            endpoint=update_store,
            tag="vector stores",
            body=WireStoreUpdate,
            answer=WireStore,
        ),
        Operation(
            name="deleteVectorStore",
            method="DELETE",
            path=one,
            about="Delete a vector store; its files stay.",
            endpoint=delete_store,
            tag="vector stores",
            answer=WireDeleted,
        ),
        Operation(
            name="searchVectorStore",
            method="POST",
            path=f"{one}/search",
            about="The chunks that best answer a question.",
            endpoint=search_store,
            tag="vector stores",
            body=WireSearchRequest,
            answer=WireSearchResults,
        ),
    ]


def _which(http: Request) -> tuple[str, str]:
    """Whose, and which."""
    return exchange_of(http).principal.name, http.path_params["vector_store_id"]
