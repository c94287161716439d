"""Ids that this server gives: a prefix that says what it names, and 192 random bits.

Nobody can guess one, so an id of somebody else and an id of nothing are alike.
"""

from __future__ import annotations

import re
import secrets

_GIVEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def new_id(prefix: str) -> str:
    """A fresh id such as `chatcmpl-` and 48 hex digits."""
    return f"{prefix}-{secrets.token_hex(24)}"


def is_plain_id(text: str) -> bool:
    """Whether an id that a client gives (a request id) is safe in headers and logs."""
    return _GIVEN.fullmatch(text) is not None
