"""Data URLs (RFC 2397): an address that is its own content."""

from __future__ import annotations

import base64
import binascii
import urllib.parse

from llamakit.core.errors import InvalidRequest

DEFAULT_TYPE = "text/plain"


def read_data_url(url: str, param: str) -> tuple[str, bytes]:
    """Media type, without its parameters, and content; raises `InvalidRequest` for any other address."""
    head, comma, data = url.partition(",")
    if not comma or not head.lower().startswith("data:"):
        raise InvalidRequest(
            f"{param} must be a data URL such as data:text/plain;base64,...; other addresses are not fetched",
            param=param,
        )
    mime, *parameters = head[len("data:") :].split(";")
    try:
        if "base64" in (parameter.strip().lower() for parameter in parameters):
            return mime or DEFAULT_TYPE, base64.b64decode(urllib.parse.unquote(data), validate=True)
    except (binascii.Error, ValueError) as fault:
        raise InvalidRequest(f"{param} is not base64: {fault}", param=param) from None
    return mime or DEFAULT_TYPE, urllib.parse.unquote_to_bytes(data)
