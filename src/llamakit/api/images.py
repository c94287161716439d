"""Base64 of an image -> `ImagePart`, its size and kind checked; looks at no pixel and fetches nothing."""

from __future__ import annotations

import base64
import binascii

from llamakit.api.limits import LIMITS
from llamakit.api.wire import found
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")


def to_image(data: str, param: str, *, kind: str | None = None) -> ImagePart:
    """The image of `kind`, or of the kind its first bytes tell; raises `InvalidRequest` naming `param`."""
    if kind is not None and kind not in IMAGE_TYPES:
        raise InvalidRequest(f"{param} must hold one of {', '.join(IMAGE_TYPES)}, got {found(kind)}", param=param)
    if len(data) * 3 // 4 > LIMITS.image_bytes:
        raise InvalidRequest(f"{param} holds more than {LIMITS.image_bytes} bytes", param=param)
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as fault:
        raise InvalidRequest(f"{param} is not base64: {fault}", param=param) from None
    kind = kind or _sniffed(decoded)
    if kind is None:
        raise InvalidRequest(f"{param} begins like none of {', '.join(IMAGE_TYPES)}", param=param)
    return ImagePart(data=decoded, mime=kind)


def _sniffed(data: bytes) -> str | None:
    """The kind by the first bytes, as each format's specification has them."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if data.startswith((b"GIF87a", b"GIF89a")) else None
