"""Which issuer's tokens a server accepts, for whom they must be made out, and what they allow. Touches no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from llamakit.core.errors import ConfigError
from llamakit.stack.access import read_scopes

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that only the holder of a private key can make. Shared secrets and `none` are not among them."""
MAX_LEEWAY_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class OidcConfig:
    """One OpenID Connect issuer."""

    issuer: str
    """Its URL, exactly as tokens say it in `iss`; keys are found at its `/.well-known/openid-configuration`."""
    audience: tuple[str, ...]
    """Names of this server in `aud`; a token must be made out to one of them."""
    jwks_url: str | None = None
    """Where its keys are, where that is not to be asked of the issuer."""
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    """Signatures that are accepted."""
    owner_claim: str = "sub"
    """Claim that tells callers apart; what they keep belongs to its value."""
    scope_claim: str = "scope"
    """Claim with what the caller may do: words in a text, or a list of texts; dots lead into objects."""
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a word of that claim allows here. Without this the words are the scopes' own names."""
    default_scopes: tuple[str, ...] | None = None
    """Scopes of a token that names none; by default those of a new key. Empty lets only named scopes in."""
    leeway_s: float = 30.0
    """Seconds by which the issuer's clock may differ."""

    def __post_init__(self) -> None:
        for name, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            if url is not None:
                _check_url(name, url)
        if not self.audience or not all(self.audience):
            raise ConfigError("oidc.audience must name this server, or a token made out to another would be taken")
        for algorithm in self.algorithms or ("",):
            if algorithm not in ALGORITHMS:
                raise ConfigError(f"oidc.algorithms holds some of {', '.join(ALGORITHMS)}; got {algorithm!r}")
        if not 0 <= self.leeway_s <= MAX_LEEWAY_S:
            raise ConfigError(f"oidc.leeway_s must be in [0, {MAX_LEEWAY_S:g}], got {self.leeway_s!r}")
        if not self.owner_claim or not self.scope_claim:
            raise ConfigError("oidc.owner_claim and oidc.scope_claim must name a claim")
        for words in (*self.scopes.values(), self.default_scopes or ()):
            read_scopes(words)


def _check_url(name: str, url: str) -> None:
    """https, or http to this very machine; no query, no credentials."""
    parts = urlsplit(url)
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.fragment:
        raise ConfigError(f"oidc.{name} is an https:// URL without credentials, got {url[:200]!r}")
    if parts.scheme == "http" and not is_local:
        raise ConfigError(f"oidc.{name} must be https: who changes plain http on its way hands out keys of his own")
    if name == "issuer" and parts.query:
        raise ConfigError(f"oidc.issuer has no query, got {url[:200]!r}")
