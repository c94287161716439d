"""Bearer tokens of an OpenID Connect issuer: signature, issuer, audience and times checked, claims -> owner and scopes.

The issuer's public keys come through the guarded outbound client and are kept for a while; a token signed with an
unknown one has them read again, so that an issuer may change its keys. Only signatures of private keys
count, and which of them is said by the configuration, never by the token.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from llamakit.core.errors import LlamakitError, MissingExtra, OutboundFailed, OutboundRefused, Overloaded
from llamakit.outbound.client import OutboundClient, OutboundLimits
from llamakit.outbound.policy import OutboundPolicy
from llamakit.stack.access import DEFAULT_SCOPES, Scope, read_scopes
from llamakit.stack.oidc_config import OidcConfig

log = logging.getLogger(__name__)

MAX_TOKEN_CHARS = 16 << 10
MAX_KEYS = 64
KEYS_S = 600.0
"""Seconds for which the issuer's keys are taken as they were read."""
STALE_S = 86_400.0
"""Seconds for which they are still used when the issuer does not answer."""
RETRY_S = 10.0
"""Seconds between two readings for a key that is not there, so that made-up tokens do not flood the issuer."""
REMEMBER_S = 60.0
"""Seconds for which a checked token is not checked again."""
MAX_REMEMBERED = 4096
MIN_RSA_BITS = 2048
_LIMITS = OutboundLimits(max_bytes=512 << 10, total_s=10.0, connect_s=5.0)
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class TokenRefused(LlamakitError, PermissionError):
    """The token does not let anybody in; the message says why, and never what is in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What a good token says."""

    owner: str
    """Follows from issuer and subject; tells neither."""
    scopes: frozenset[Scope]
    expires_at: float
    """Seconds since 1970."""


def is_token(text: str) -> bool:
    """Whether `text` has the three parts of a signed token."""
    return len(text) <= MAX_TOKEN_CHARS and _TOKEN.fullmatch(text) is not None


class OidcVerifier:
    """Checks the tokens of one issuer."""

    def __init__(
        self,
        config: OidcConfig,
        *,
        ticks: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if importlib.util.find_spec("jwt") is None or importlib.util.find_spec("cryptography") is None:
            raise MissingExtra("tokens of an issuer need pyjwt and cryptography: pip install 'llamakit[oidc]'")
        self._config = config
        self._ticks = ticks
        self._wall = wall
        self._lock = asyncio.Lock()
        self._keys: dict[str | None, list[dict[str, Any]]] = {}
        self._read_at = self._tried_at = float("-inf")
        self._known: OrderedDict[bytes, tuple[float, Claims]] = OrderedDict()

    async def verify(self, token: str) -> Claims:
        """What the token says, once it has been checked; raises `TokenRefused`, or `Overloaded` without keys."""
        digest = hashlib.sha256(token.encode()).digest()
        until, claims = self._known.get(digest, (float("-inf"), None))
        if claims is not None and self._ticks() < until:
            return claims
        claims = self._claims(await self._decoded(token))
        lives_s = min(REMEMBER_S, claims.expires_at - self._wall())
        self._known[digest] = (self._ticks() + lives_s, claims)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return claims

    async def _decoded(self, token: str) -> dict[str, Any]:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise TokenRefused("the bearer token cannot be read as a signed token") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._config.algorithms:
            raise TokenRefused(
                f"the bearer token is signed by {str(algorithm)[:20]!r}, which is not accepted here; "
                f"accepted: {', '.join(self._config.algorithms)}"
            )
        if "crit" in header or "b64" in header:
            raise TokenRefused("the bearer token demands extensions that this server does not have")
        key = await self._key(kid if isinstance(kid, str) else None, algorithm)
        try:
            return jwt.decode(
                token,
                key=key,
                algorithms=[algorithm],
                audience=list(self._config.audience),
                issuer=self._config.issuer,
                leeway=self._config.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenRefused("the bearer token has expired; get a new one from the issuer") from None
        except jwt.ImmatureSignatureError:
            raise TokenRefused("the bearer token is not valid yet; compare the clocks of issuer and server") from None
        except jwt.InvalidAudienceError:
            raise TokenRefused("the bearer token is made out to another service") from None
        except jwt.InvalidIssuerError:
            raise TokenRefused("the bearer token is of another issuer") from None
        except jwt.MissingRequiredClaimError as fault:
            raise TokenRefused(f"the bearer token lacks the claim {fault.claim!r}") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise TokenRefused("the bearer token's signature is not the issuer's") from None

    async def _key(self, kid: str | None, algorithm: str) -> Any:
        """The public key that a token's header names."""
        now = self._ticks()
        if now - self._read_at > KEYS_S:
            await self._refresh(now)
        found = self._suitable(kid, algorithm)
        if not found and now - self._tried_at > RETRY_S:
            await self._refresh(now)
            found = self._suitable(kid, algorithm)
        if not found and self._read_at == float("-inf"):
            raise Overloaded("the issuer's keys cannot be read now, so no token can be checked", retry_after_s=RETRY_S)
        if len(found) != 1:
            raise TokenRefused("the bearer token is signed with a key that the issuer does not have")
        import jwt

        try:
            key = jwt.PyJWK(found[0], algorithm=algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError):
            raise TokenRefused("the bearer token names a key of the issuer that cannot be used") from None
        if getattr(key, "key_size", MIN_RSA_BITS) < MIN_RSA_BITS and algorithm[:2] in ("RS", "PS"):
            raise TokenRefused(f"the issuer's key has fewer than {MIN_RSA_BITS} bits")
        return key

    def _suitable(self, kid: str | None, algorithm: str) -> list[dict[str, Any]]:
        """Keys of that name (of any name where the token names none) that may make such a signature."""
        named = self._keys.get(kid, []) if kid is not None else [key for keys in self._keys.values() for key in keys]
        return [
            key
            for key in named
            if key.get("kty") == _KINDS[algorithm[:2]]
            and key.get("use", "sig") == "sig"
            and key.get("alg", algorithm) == algorithm
        ]

    async def _refresh(self, asked: float) -> None:
        """Read the issuer's keys; where that fails the old ones are used for a day."""
        async with self._lock:
            if self._tried_at >= asked:
                return
            self._tried_at = self._ticks()
            try:
                keys = await self._fetch_keys()
            except (OutboundFailed, OutboundRefused) as fault:
                log.warning("the keys of the issuer %s could not be read: %s", self._config.issuer, fault)
                if self._ticks() - self._read_at > KEYS_S + STALE_S:
                    self._keys, self._read_at = {}, float("-inf")
                return
            if keys != self._keys:
                self._known.clear()
            self._keys, self._read_at = keys, self._ticks()

    async def _fetch_keys(self) -> dict[str | None, list[dict[str, Any]]]:
        config = self._config
        url, policy = config.jwks_url, OutboundPolicy.to(config.jwks_url or config.issuer)
        if url is None:
            place = f"{config.issuer.rstrip('/')}/.well-known/openid-configuration"
            described = await _fetched(place, policy)
            if described.get("issuer") != config.issuer:
                raise OutboundFailed(f"{place} describes another issuer than {config.issuer}")
            url = described.get("jwks_uri")
            if not isinstance(url, str):
                raise OutboundFailed(f"{place} names no jwks_uri")
            policy = _policy_of(url, config.issuer, policy)
        listed = (await _fetched(url, policy)).get("keys")
        if not isinstance(listed, list) or len(listed) > MAX_KEYS:
            raise OutboundFailed(f"{url} holds no list of at most {MAX_KEYS} keys")
        keys: dict[str | None, list[dict[str, Any]]] = {}
        for key in listed:
            if isinstance(key, dict) and key.get("kty") in _KINDS.values():
                keys.setdefault(key.get("kid"), []).append(key)
        return keys

    def _claims(self, claims: Mapping[str, Any]) -> Claims:
        subject = _claim(claims, self._config.owner_claim)
        if not isinstance(subject, str) or not 0 < len(subject) <= 1024:
            raise TokenRefused(f"the bearer token's claim {self._config.owner_claim!r} tells nobody")
        digest = hashlib.sha256(f"{self._config.issuer}\n{subject}".encode()).hexdigest()
        return Claims(
            owner=f"oidc-{digest[:32]}",
            scopes=self._scopes(_claim(claims, self._config.scope_claim)),
            expires_at=float(claims["exp"]) + self._config.leeway_s,
        )

    def _scopes(self, claim: object) -> frozenset[Scope]:
        words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
        words = [word for word in words if isinstance(word, str)]
        if self._config.scopes:
            words = [name for word in words for name in self._config.scopes.get(word, ())]
        known = {scope.value for scope in Scope}
        found = read_scopes(word for word in words if word in known)
        if found:
            return found
        named = self._config.default_scopes
        return DEFAULT_SCOPES if named is None else read_scopes(named)


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """A claim by its name, which may hold dots itself or lead by them into objects."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _policy_of(url: str, issuer: str, own: OutboundPolicy) -> OutboundPolicy:
    """What may be reached for the keys: the issuer's own host, or the public one that it names, by https."""
    there, here = urlsplit(url), urlsplit(issuer)
    if (there.scheme, there.netloc) == (here.scheme, here.netloc):
        return own
    if there.scheme != "https" or not there.hostname:
        raise OutboundRefused("the issuer keeps its keys at an address that is not https")
    host = f"[{there.hostname}]" if ":" in there.hostname else there.hostname
    return OutboundPolicy(hosts=(f"{host}:{there.port or 443}",))


async def _fetched(url: str, policy: OutboundPolicy) -> dict[str, Any]:
    client = OutboundClient(policy, limits=_LIMITS)
    try:
        answer = await client.request("GET", url, headers={"accept": "application/json"})
    finally:
        await client.aclose()
    body = answer.json() if answer.ok else None
    if not isinstance(body, dict):
        raise OutboundFailed(f"{url} answered {answer.status} without a JSON object")
    return body
