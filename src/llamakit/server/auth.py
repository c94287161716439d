"""Who asks: decided where the route is already known, and denied unless a key says otherwise.

Only hashes of the keys are kept. A key is compared with every one of them in constant time.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers

from llamakit.core.errors import InvalidRequest
from llamakit.server.errors import Forbidden, Unauthenticated
from llamakit.server.exchange import ANONYMOUS, Principal
from llamakit.stack.run_config import ServeConfig

_SALT_CONTEXT = b"llamakit prefix cache"


class Authenticator:
    """Tells the principal of a request, or raises `Unauthenticated`."""

    def __init__(self, config: ServeConfig) -> None:
        keys = [key.reveal().encode() for key in config.api_keys]
        self._known = tuple((hashlib.sha256(key).digest(), _principal(key)) for key in keys)
        self._takes_strangers = config.is_exposed and not keys

    def identify(self, headers: Headers) -> Principal:
        """The principal whose key the headers carry; everybody is the same where there are no keys."""
        if not self._known:
            return ANONYMOUS
        key = _presented(headers)
        if key is None:
            raise Unauthenticated("this server wants an API key; send it as `Authorization: Bearer <key>`")
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        principal: Principal | None = None
        for known, candidate in self._known:
            if hmac.compare_digest(known, digest):
                principal = candidate
        if principal is None:
            raise Unauthenticated("the API key is not one this server knows")
        return principal

    def check_may_change(self) -> None:
        """Raise `Forbidden` where anybody on the network may ask: strangers do not change this machine's files."""
        if self._takes_strangers:
            raise Forbidden(
                "this server is open to other machines without a key, so models are not added or removed over HTTP; "
                "give it a key, or use the `llama` command on its machine"
            )


def _presented(headers: Headers) -> str | None:
    """The key in the headers: OpenAI's clients send a bearer, others send x-api-key."""
    if len(headers.getlist("authorization")) > 1:
        raise InvalidRequest("more than one Authorization header")
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("x-api-key")


def _principal(key: bytes) -> Principal:
    """The salt follows from the key and tells nothing of it; the name is a stretch of another hash."""
    name = hashlib.sha256(b"llamakit principal" + key).hexdigest()[:12]
    return Principal(name=f"key-{name}", salt=hmac.new(key, _SALT_CONTEXT, hashlib.sha256).hexdigest())
