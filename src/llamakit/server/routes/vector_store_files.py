"""`/v1/vector_stores/{vector_store_id}/files` and `/file_batches`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.openai_lists import WireDeleted, read_page
from llamakit.api.vector_stores import (
    WireAttachRequest,
    WireAttributesUpdate,
    WireFileBatch,
    WireFileBatchRequest,
    WireStoreFile,
    WireStoreFileContent,
    WireStoreFiles,
)
from llamakit.server.exchange import exchange_of
from llamakit.server.routes.vector_stores import BOTH_WAYS
from llamakit.server.routing import Operation, Query, json_response
from llamakit.server.service import Service
from llamakit.stack.vector_files import wanted_of, wanted_of_batch

FILTERED = (*BOTH_WAYS, Query(name="filter", about="Only those in_progress, completed, failed or cancelled."))
FILES = "/v1/vector_stores/{vector_store_id}/files"
BATCHES = "/v1/vector_stores/{vector_store_id}/file_batches"


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    return [*_file_operations(service), *_batch_operations(service)]


def _file_operations(service: Service) -> list[Operation]:
    files = service.stack.vector_stores.files

    async def attach(http: Request) -> Response:
        wire = await service.read(http, WireAttachRequest)
        return json_response(await files.attach(*_which(http), wanted_of(wire)))

    async def list_files(http: Request) -> Response:
        page = read_page(http.query_params, both_ways=True)
        return json_response(await files.list(*_which(http), page, status=http.query_params.get("filter")))

    async def get_file(http: Request) -> Response:
        return json_response(await files.get(*_which(http), http.path_params["file_id"]))

    async def describe(http: Request) -> Response:
        wire = await service.read(http, WireAttributesUpdate)
        return json_response(await files.describe(*_which(http), http.path_params["file_id"], wire.attributes or {}))

    async def detach(http: Request) -> Response:
        return json_response(await files.detach(*_which(http), http.path_params["file_id"]))

    async def get_content(http: Request) -> Response:
        return json_response(await files.content(*_which(http), http.path_params["file_id"]))

    one = f"{FILES}/{{file_id}}"
    return [
        Operation(
            name="createVectorStoreFile",
            method="POST",
            path=FILES,
            about="Attach a file to a vector store.",
            endpoint=attach,
            tag="vector stores",
            body=WireAttachRequest,
            answer=WireStoreFile,
        ),
        Operation(
            name="listVectorStoreFiles",
            method="GET",
            path=FILES,
            about="The files of a vector store.",
            endpoint=list_files,
            tag="vector stores",
            answer=WireStoreFiles,
            query=FILTERED,
        ),
        Operation(
            name="getVectorStoreFile",
            method="GET",
            path=one,
            about="A file of a vector store, and what became of it.",
            endpoint=get_file,
            tag="vector stores",
            answer=WireStoreFile,
        ),
        Operation(
            name="updateVectorStoreFileAttributes",
            method="POST",
            path=one,
            about="Give a file of a vector store other attributes.",
            endpoint=describe,
            tag="vector stores",
            body=WireAttributesUpdate,
            answer=WireStoreFile,
        ),
        Operation(
            name="deleteVectorStoreFile",
            method="DELETE",
            path=one,
            about="Take a file out of a vector store; the file stays.",
            endpoint=detach,
            tag="vector stores",
            answer=WireDeleted,
        ),
        Operation(
            name="retrieveVectorStoreFileContent",
            method="GET",
            path=f"{one}/content",
            about="The chunks of a file.",
            endpoint=get_content,
            tag="vector stores",
            answer=WireStoreFileContent,
        ),
    ]


def _batch_operations(service: Service) -> list[Operation]:
    files = service.stack.vector_stores.files

    async def create_batch(http: Request) -> Response:
        wire = await service.read(http, WireFileBatchRequest)
        return json_response(await files.create_batch(*_which(http), wanted_of_batch(wire)))

    async def get_batch(http: Request) -> Response:
        return json_response(await files.get_batch(*_which(http), http.path_params["batch_id"]))

    async def cancel_batch(http: Request) -> Response:
        return json_response(await files.cancel_batch(*_which(http), http.path_params["batch_id"]))

    async def list_batch(http: Request) -> Response:
        page, query = read_page(http.query_params, both_ways=True), http.query_params
        found = await files.list(*_which(http), page, status=query.get("filter"), batch=http.path_params["batch_id"])
        return json_response(found)

    one = f"{BATCHES}/{{batch_id}}"
    return [
        Operation(
            name="createVectorStoreFileBatch",
            method="POST",
            path=BATCHES,
            about="Attach files together.",
            endpoint=create_batch,
            tag="vector stores",
            body=WireFileBatchRequest,
            answer=WireFileBatch,
        ),
        Operation(
            name="getVectorStoreFileBatch",
            method="GET",
            path=one,
            about="A batch of files, and how far it is.",
            endpoint=get_batch,
            tag="vector stores",
            answer=WireFileBatch,
        ),
        Operation(
            name="cancelVectorStoreFileBatch",
            method="POST",
            path=f"{one}/cancel",
            about="Cancel the files of a batch that still wait.",
            endpoint=cancel_batch,
            tag="vector stores",
            answer=WireFileBatch,
        ),
        Operation(
            name="listFilesInVectorStoreBatch",
            method="GET",
            path=f"{one}/files",
            about="The files of a batch.",
            endpoint=list_batch,
            tag="vector stores",
            answer=WireStoreFiles,
            query=FILTERED,
        ),
    ]


def _which(http: Request) -> tuple[str, str]:
    """Whose, and which."""
    return exchange_of(http).principal.name, http.path_params["vector_store_id"]
