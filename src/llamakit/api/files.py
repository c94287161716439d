"""OpenAI's files and uploads on the wire: what is asked with a file, and how each object is spelled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.wire import FIRST, Wire, found
from llamakit.core.errors import InvalidRequest

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
"""What a client may give a file for."""
MADE_PURPOSES = ("assistants_output", "batch_output", "fine-tune-results")
"""What files are for that the server itself makes."""
MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 30 * 86_400
MAX_NAME_CHARS = 255
MAX_PARTS = 10_000

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class WireFileExpiry(Wire):
    """When a file goes by itself."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S)]


class WireFileForm(Wire):
    """The form of `POST /v1/files`, sent as multipart/form-data."""

    file: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    """The content, with its file name."""
    purpose: Purpose
    expires_after: WireFileExpiry | None = None
    """As the form fields `expires_after[anchor]` and `expires_after[seconds]`."""


class WireFile(Wire):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal[
        "assistants", "assistants_output", "batch", "batch_output", "fine-tune", "fine-tune-results", "vision",
        "user_data", "evals",
    ]  # fmt: skip
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None


class WireFiles(Wire):
    """A page of files."""

    object: Literal["list"]
    data: list[WireFile]
    first_id: str
    last_id: str
    has_more: bool


class WireUploadRequest(Wire):
    """Body of `POST /v1/uploads`."""

    filename: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]
    purpose: Purpose
    bytes: Annotated[int, Field(ge=1, lt=2**63)]
    """Size of the whole file."""
    mime_type: Annotated[str, Field(min_length=1, max_length=255)]
    expires_after: WireFileExpiry | None = None
    """Expiry of the file that comes of it."""


class WirePartForm(Wire):
    """The form of a part, sent as multipart/form-data."""

    data: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    """The next stretch of the file; its place is said at the end."""


class WireUploadPart(Wire):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str


class WireUploadCompletion(Wire):
    """Body of `POST /v1/uploads/{upload_id}/complete`."""

    part_ids: Annotated[list[str], FIRST, Field(min_length=1, max_length=MAX_PARTS)]
    """The parts in the order of the file."""
    md5: Annotated[str, Field(pattern="^[0-9a-fA-F]{32}$")] | None = None
    """MD5 of the whole file, in hexadecimal, to be compared."""


class WireUpload(Wire):
    """An upload in parts."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: WireFile | None


def read_file_form(fields: Mapping[str, str]) -> tuple[Purpose, int | None]:
    """Purpose and seconds until expiry of a form; raises `InvalidRequest` naming the field."""
    for name in fields:
        if name not in ("purpose", "expires_after[anchor]", "expires_after[seconds]"):
            raise InvalidRequest(
                f"the form has no field {found(name)}; fields are file, purpose, expires_after[anchor], "
                "expires_after[seconds]",
                param=name[:80],
            )
    purpose = fields.get("purpose")
    if purpose is None:
        raise InvalidRequest("purpose is required", param="purpose", code="missing_required_parameter")
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if (anchor is None) != (seconds is None):
        raise InvalidRequest("expires_after wants both anchor and seconds", param="expires_after")
    if anchor is not None and anchor != "created_at":
        raise InvalidRequest(f"expires_after.anchor must be created_at, got {found(anchor)}", param="expires_after")
    return check_purpose(purpose), None if seconds is None else check_expiry(seconds)


def check_purpose(purpose: str) -> Purpose:
    """The purpose, if a client may give it."""
    match purpose:
        case "assistants" | "batch" | "fine-tune" | "vision" | "user_data" | "evals":
            return purpose
    raise InvalidRequest(f"purpose must be one of {', '.join(PURPOSES)}, got {found(purpose)}", param="purpose")


def check_expiry(seconds: str | int) -> int:
    """Seconds until a file goes, within the published bounds."""
    text = str(seconds)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and MIN_EXPIRY_S <= int(text) <= MAX_EXPIRY_S):
        raise InvalidRequest(
            f"expires_after.seconds must be a whole number in [{MIN_EXPIRY_S}, {MAX_EXPIRY_S}], got {found(seconds)}",
            param="expires_after",
        )
    return int(text)


def check_name(name: str) -> str:
    """The last part of a file's name: what a client calls a folder is none of ours."""
    last = name.replace("\\", "/").rpartition("/")[2]
    if not 0 < len(last) <= MAX_NAME_CHARS or _CONTROL.search(last) or last in (".", ".."):
        raise InvalidRequest(
            f"a file name has 1 to {MAX_NAME_CHARS} printable characters, got {found(name)}", param="file"
        )
    return last


def file_body(
    id: str,
    *,
    size: int,
    created_at: int,
    expires_at: int | None,
    filename: str,
    purpose: str,
) -> dict[str, Any]:
    """A file as OpenAI spells it; one that is stored is ready to be used."""
    return {
        "id": id,
        "object": "file",
        "bytes": size,
        "created_at": created_at,
        "expires_at": expires_at,
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }


def upload_body(
    id: str,
    *,
    size: int,
    created_at: int,
    expires_at: int,
    filename: str,
    purpose: str,
    status: str,
    file: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """An upload as OpenAI spells it."""
    return {
        "id": id,
        "object": "upload",
        "bytes": size,
        "created_at": created_at,
        "expires_at": expires_at,
        "filename": filename,
        "purpose": purpose,
        "status": status,
        "file": None if file is None else dict(file),
    }


def part_body(id: str, *, created_at: int, upload: str) -> dict[str, Any]:
    """A part as OpenAI spells it."""
    return {"id": id, "object": "upload.part", "created_at": created_at, "upload_id": upload}
