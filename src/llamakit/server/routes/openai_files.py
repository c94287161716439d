"""`/v1/files`, `/v1/uploads` and the contents of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from llamakit.api.files import (
    WireFile,
    WireFileForm,
    WireFiles,
    WirePartForm,
    WireUpload,
    WireUploadCompletion,
    WireUploadPart,
    WireUploadRequest,
    check_name,
    read_file_form,
)
from llamakit.api.openai_lists import WireDeleted, read_page
from llamakit.server.exchange import exchange_of
from llamakit.server.multipart import read_form
from llamakit.server.routes.openai_responses import PAGE
from llamakit.server.routing import Operation, Query, json_response
from llamakit.server.service import Service
from llamakit.storage.blobs import Blob

FORM = "multipart/form-data"
BINARY = "application/octet-stream"
MAX_PAGE = 10_000


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    return [*_file_operations(service), *_upload_operations(service)]


def _file_operations(service: Service) -> list[Operation]:
    files, limits = service.stack.files, service.limits

    async def create_file(http: Request) -> Response:
        async def keep(pieces: AsyncIterator[bytes]) -> Blob:
            return await files.receive(pieces, limit=limits.file_bytes)

        fields, file = await read_form(http, "file", keep, limits, file_bytes=limits.file_bytes)
        purpose, expires_s = read_file_form(fields)
        owner = exchange_of(http).principal.name
        return json_response(await files.add(owner, check_name(file.name), purpose, file.kept, expires_s))

    async def list_files(http: Request) -> Response:
        page = read_page(http.query_params, limit=MAX_PAGE, most=MAX_PAGE)
        return json_response(await files.list(exchange_of(http).principal.name, page, http.query_params.get("purpose")))

    async def get_file(http: Request) -> Response:
        return json_response(await files.get(*_which(http, "file_id")))

    async def delete_file(http: Request) -> Response:
        return json_response(await files.delete(*_which(http, "file_id")))

    async def get_content(http: Request) -> Response:
        file = await files.get(*_which(http, "file_id"))
        name = quote(file["filename"], safe="")
        return StreamingResponse(
            files.pieces(*_which(http, "file_id")),
            media_type=BINARY,
            headers={
                "content-length": str(file["bytes"]),
                "content-disposition": f"attachment; filename*=UTF-8''{name}",
            },
        )

    one = "/v1/files/{file_id}"
    return [
        Operation(
            name="createFile",
            method="POST",
            path="/v1/files",
            about="Keep a file.",
            endpoint=create_file,
            tag="files",
            body=WireFileForm,
            body_media=FORM,
            answer=WireFile,
        ),
        Operation(
            name="listFiles",
            method="GET",
            path="/v1/files",
            about="The files there are.",
            endpoint=list_files,
            tag="files",
            answer=WireFiles,
            query=(*PAGE, Query(name="purpose", about="Only those for this purpose.")),
        ),
        Operation(
            name="retrieveFile",
            method="GET",
            path=one,
            about="What is known of a file.",
            endpoint=get_file,
            tag="files",
            answer=WireFile,
        ),
        Operation(
            name="downloadFile",
            method="GET",
            path=f"{one}/content",
            about="The content of a file.",
            endpoint=get_content,
            tag="files",
            answer_media=BINARY,
        ),
        Operation(
            name="deleteFile",
            method="DELETE",
            path=one,
            about="Delete a file, out of every vector store too.",
            endpoint=delete_file,
            tag="files",
            answer=WireDeleted,
        ),
    ]


def _upload_operations(service: Service) -> list[Operation]:
    uploads, limits = service.stack.uploads, service.limits

    async def create_upload(http: Request) -> Response:
        wire = await service.read(http, WireUploadRequest)
        return json_response(await uploads.create(exchange_of(http).principal.name, wire))

    async def add_part(http: Request) -> Response:
        async def keep(pieces: AsyncIterator[bytes]) -> dict[str, object]:
            return await uploads.add(*_which(http, "upload_id"), pieces)

        _, part = await read_form(http, "data", keep, limits, file_bytes=limits.part_bytes)
        return json_response(part.kept)

    async def complete_upload(http: Request) -> Response:
        wire = await service.read(http, WireUploadCompletion)
        return json_response(await uploads.complete(*_which(http, "upload_id"), wire))

    async def cancel_upload(http: Request) -> Response:
        return json_response(await uploads.cancel(*_which(http, "upload_id")))

    one = "/v1/uploads/{upload_id}"
    return [
        Operation(
            name="createUpload",
            method="POST",
            path="/v1/uploads",
            about="Announce a file that comes in parts.",
            endpoint=create_upload,
            tag="uploads",
            body=WireUploadRequest,
            answer=WireUpload,
        ),
        Operation(
            name="addUploadPart",
            method="POST",
            path=f"{one}/parts",
            about="Send a part.",
            endpoint=add_part,
            tag="uploads",
            body=WirePartForm,
            body_media=FORM,
            answer=WireUploadPart,
        ),
        Operation(
            name="completeUpload",
            method="POST",
            path=f"{one}/complete",
            about="Put the parts together to a file.",
            endpoint=complete_upload,
            tag="uploads",
            body=WireUploadCompletion,
            answer=WireUpload,
        ),
        Operation(
            name="cancelUpload",
            method="POST",
            path=f"{one}/cancel",
            about="End an upload and forget its parts.",
            endpoint=cancel_upload,
            tag="uploads",
            answer=WireUpload,
        ),
    ]


def _which(http: Request, place: str) -> tuple[str, str]:
    """Whose, and which."""
    return exchange_of(http).principal.name, http.path_params[place]
