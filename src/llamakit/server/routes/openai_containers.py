"""`/v1/containers`: the working folders of the code interpreter, and the files in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from llamakit.api.containers import (
    WireContainer,
    WireContainerFile,
    WireContainerFileForm,
    WireContainerFileRequest,
    WireContainerFiles,
    WireContainerRequest,
    WireContainers,
)
from llamakit.api.files import check_name
from llamakit.api.openai_lists import WireDeleted, read_page
from llamakit.core.errors import InvalidRequest
from llamakit.server.exchange import owner_of
from llamakit.server.multipart import read_form
from llamakit.server.routes.openai_files import BINARY, FORM
from llamakit.server.routes.openai_responses import PAGE
from llamakit.server.routing import Operation, json_response
from llamakit.server.service import Service

TAG = "containers"


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    return [*_container_operations(service), *_file_operations(service)]


def _container_operations(service: Service) -> list[Operation]:
    containers = service.stack.containers

    async def create_container(http: Request) -> Response:
        wire = await service.read(http, WireContainerRequest)
        return json_response(await containers.create(owner_of(http), wire))

    async def list_containers(http: Request) -> Response:
        return json_response(await containers.list(owner_of(http), read_page(http.query_params)))

    async def get_container(http: Request) -> Response:
        return json_response(await containers.get(*_which(http)))

    async def delete_container(http: Request) -> Response:
        return json_response(await containers.delete(*_which(http)))

    one = "/v1/containers/{container_id}"
    return [
        Operation(
            name="createContainer",
            method="POST",
            path="/v1/containers",
            about="Make a container for the code interpreter.",
            endpoint=create_container,
            tag=TAG,
            body=WireContainerRequest,
            answer=WireContainer,
        ),
        Operation(
            name="listContainers",
            method="GET",
            path="/v1/containers",
            about="The containers that are there.",
            endpoint=list_containers,
            tag=TAG,
            answer=WireContainers,
            query=PAGE,
        ),
        Operation(
            name="retrieveContainer",
            method="GET",
            path=one,
            about="What is known of a container.",
            endpoint=get_container,
            tag=TAG,
            answer=WireContainer,
        ),
        Operation(
            name="deleteContainer",
            method="DELETE",
            path=one,
            about="End a container and forget its files.",
            endpoint=delete_container,
            tag=TAG,
            answer=WireDeleted,
        ),
    ]


def _file_operations(service: Service) -> list[Operation]:
    containers, limits = service.stack.containers, service.limits

    async def add_file(http: Request) -> Response:
        if http.headers.get("content-type", "").startswith("application/json"):
            wire = await service.read(http, WireContainerFileRequest)
            return json_response(await containers.copy_file(*_which(http), wire.file_id))

        async def keep(pieces: AsyncIterator[bytes]) -> bytes:
            return b"".join([piece async for piece in pieces])

        fields, file = await read_form(http, "file", keep, limits, file_bytes=limits.body_bytes)
        if fields:
            raise InvalidRequest("the form has the one field file; a file_id comes in a JSON body", param="file")
        return json_response(await containers.add_file(*_which(http), check_name(file.name), file.kept))

    async def list_files(http: Request) -> Response:
        return json_response(await containers.files(*_which(http), read_page(http.query_params)))

    async def get_file(http: Request) -> Response:
        return json_response(await containers.file(*_which(http), http.path_params["file_id"]))

    async def get_content(http: Request) -> Response:
        name, data = await containers.content(*_which(http), http.path_params["file_id"])
        shown = quote(name, safe="")
        return Response(
            data, media_type=BINARY, headers={"content-disposition": f"attachment; filename*=UTF-8''{shown}"}
        )

    async def delete_file(http: Request) -> Response:
        return json_response(await containers.delete_file(*_which(http), http.path_params["file_id"]))

    many = "/v1/containers/{container_id}/files"
    one = f"{many}/{{file_id}}"
    return [
        Operation(
            name="createContainerFile",
            method="POST",
            path=many,
            about="Put a file into a container: its content as a form, or a file of the server by its id as JSON.",
            endpoint=add_file,
            tag=TAG,
            body=WireContainerFileForm,
            body_media=FORM,
            answer=WireContainerFile,
        ),
        Operation(
            name="listContainerFiles",
            method="GET",
            path=many,
            about="The files in a container.",
            endpoint=list_files,
            tag=TAG,
            answer=WireContainerFiles,
            query=PAGE,
        ),
        Operation(
            name="retrieveContainerFile",
            method="GET",
            path=one,
            about="What is known of a file in a container.",
            endpoint=get_file,
            tag=TAG,
            answer=WireContainerFile,
        ),
        Operation(
            name="retrieveContainerFileContent",
            method="GET",
            path=f"{one}/content",
            about="The content of a file in a container.",
            endpoint=get_content,
            tag=TAG,
            answer_media=BINARY,
        ),
        Operation(
            name="deleteContainerFile",
            method="DELETE",
            path=one,
            about="Take a file out of a container.",
            endpoint=delete_file,
            tag=TAG,
            answer=WireDeleted,
        ),
    ]


def _which(http: Request) -> tuple[str, str]:
    """Whose, and which."""
    return owner_of(http), http.path_params["container_id"]
