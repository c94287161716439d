"""Who asks: decided where the route is already known, and denied unless a key or a token says otherwise.

Keys of the run config are kept as hashes, and one that comes in is compared with every one of them in constant time.
Others are looked up in the database; bearer tokens are the issuer's word.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from starlette.datastructures import Headers

from llamakit.core.errors import InvalidRequest
from llamakit.server.errors import Forbidden, MissingScope, Unauthenticated
from llamakit.server.exchange import ANONYMOUS, Principal
from llamakit.stack.access import STRANGER_SCOPES, KeyLimits, Scope, may
from llamakit.stack.keys import Key, KeyBook, is_key
from llamakit.stack.oidc import Claims, OidcVerifier, TokenRefused, is_token
from llamakit.stack.run_config import ServeConfig

_SALT_CONTEXT = b"llamakit prefix cache"


class Authenticator:
    """Tells the principal of a request, or raises `Unauthenticated`."""

    def __init__(self, config: ServeConfig, keys: KeyBook, verifier: OidcVerifier | None = None) -> None:
        given = [key.reveal().encode() for key in config.api_keys]
        self._known = tuple((hashlib.sha256(key).digest(), _principal(key, config.limits)) for key in given)
        self._keys = keys
        self._verifier = verifier
        self._limits = config.limits
        self._secret = secrets.token_bytes(32)
        self._wants_key = config.wants_key
        self._takes_strangers = config.is_exposed and not config.wants_key
        scopes = STRANGER_SCOPES if self._takes_strangers else ANONYMOUS.scopes
        self._anybody = Principal(name=ANONYMOUS.name, scopes=scopes, limits=config.limits)

    async def identify(self, headers: Headers) -> Principal:
        """Whose key or token the headers carry; everybody is the same where none is wanted and none is known."""
        text = _presented(headers)
        if text is None:
            if self._wants_key:
                raise Unauthenticated("this server wants an API key; send it as `Authorization: Bearer <key>`")
            return self._anybody
        principal = self._static(text)
        # Clients that need no key send any text in its place, so only what claims to be one of ours is held to it. One
        # that the configuration names too may still do only what was said when it was made.
        if is_key(text):
            key = await self._keys.find(text)
            if key is not None:
                return self._holder(key)
            if principal is None:
                raise Unauthenticated("the API key is not one this server knows: it was revoked, or has expired")
        if principal is not None:
            return principal
        if self._verifier is not None and is_token(text):
            try:
                return self._bearer(await self._verifier.verify(text))
            except TokenRefused as fault:
                raise Unauthenticated(str(fault)) from None
        if self._wants_key:
            raise Unauthenticated("the API key is not one this server knows")
        return self._anybody

    def check(self, principal: Principal, wanted: Scope) -> None:
        """Raise `Forbidden` where the principal does not hold the scope."""
        if may(principal.scopes, wanted):
            return
        if self._takes_strangers and principal is self._anybody:
            raise Forbidden(
                "this server is open to other machines without a key, so models are not added or removed over HTTP; "
                "give it a key, or use the `llama` command on its machine"
            )
        raise MissingScope(
            f"this needs the scope {wanted.value!r}, which {principal.name} does not hold; "
            f"make a key with `llama key create NAME --scope {wanted.value}`",
            scope=wanted.value,
        )

    def _static(self, text: str) -> Principal | None:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        found: Principal | None = None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def _holder(self, key: Key) -> Principal:
        return Principal(
            name=key.owner,
            salt=self._salt(key.owner),
            scopes=key.scopes,
            limits=key.limits if key.limits.any else self._limits,
            meter=key.id,
            key=key.id,
            called=key.name,
        )

    def _bearer(self, claims: Claims) -> Principal:
        return Principal(
            name=claims.owner,
            salt=self._salt(claims.owner),
            scopes=claims.scopes,
            limits=self._limits,
            ends_at=claims.expires_at,
        )

    def _salt(self, owner: str) -> str:
        """Owners share no cached prefix; what separates them cannot be guessed, and lasts as long as the cache."""
        return hmac.new(self._secret, _SALT_CONTEXT + owner.encode(), hashlib.sha256).hexdigest()


def _presented(headers: Headers) -> str | None:
    """The key in the headers: OpenAI's clients send a bearer, others send x-api-key."""
    if len(headers.getlist("authorization")) > 1:
        raise InvalidRequest("more than one Authorization header")
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("x-api-key")


def _principal(key: bytes, limits: KeyLimits) -> Principal:
    """The salt follows from the key and tells nothing of it; the name is a stretch of another hash."""
    name = hashlib.sha256(b"llamakit principal" + key).hexdigest()[:12]
    return Principal(name=f"key-{name}", salt=hmac.new(key, _SALT_CONTEXT, hashlib.sha256).hexdigest(), limits=limits)
