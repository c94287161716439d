"""Bearer tokens against a real issuer with keys of its own: what lets in, and the many ways that do not."""

from __future__ import annotations

import base64
import hmac
import json
import time

import pytest
from tests.issuer import Issuer, jwk_of, key_of

from llamakit.core.errors import ConfigError, MissingExtra, Overloaded
from llamakit.stack.access import DEFAULT_SCOPES, Scope
from llamakit.stack.oidc import KEYS_S, RETRY_S, STALE_S, OidcVerifier, TokenRefused, is_token
from llamakit.stack.oidc_config import OidcConfig

jwt = pytest.importorskip("jwt")


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer():
    with Issuer() as issuer:
        issuer.publish()
        yield issuer


def verifier_of(issuer, clock=time.monotonic, **settings):
    config = OidcConfig(**{"issuer": issuer.url, "audience": ("llamakit", "other-name"), **settings})
    return OidcVerifier(config, ticks=clock)


async def test_a_good_token_tells_who_and_what(issuer):
    verifier = verifier_of(issuer)
    anna = await verifier.verify(issuer.token())
    again = await verifier.verify(issuer.token(aud=["x", "other-name"]))
    boris = await verifier.verify(issuer.token(sub="boris"))
    assert anna.owner == again.owner != boris.owner and anna.owner.startswith("oidc-")
    assert "anna" not in anna.owner and anna.scopes == DEFAULT_SCOPES
    assert issuer.num_asked == 2


@pytest.mark.parametrize(("kind", "algorithm"), [("RSA", "PS256"), ("EC", "ES256"), ("Ed25519", "EdDSA")])
async def test_other_signatures(issuer, kind, algorithm):
    issuer.publish(kind, "two", algorithm)
    assert (await verifier_of(issuer).verify(issuer.token(kind, "two", algorithm))).owner


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "lacks the claim 'exp'"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "lacks the claim 'iss'"),
        ({"aud": "somebody-else"}, "another service"),
        ({"aud": None}, "lacks the claim 'aud'"),
        ({"sub": None}, "tells nobody"),
        ({"sub": ""}, "tells nobody"),
    ],
)
async def test_wrong_claims(issuer, claims, reason):
    with pytest.raises(TokenRefused, match=reason):
        await verifier_of(issuer).verify(issuer.token(**claims))


def forged(header, claims, signature=b"x"):
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


async def test_the_token_does_not_choose_how_it_is_checked(issuer):
    claims = {"iss": issuer.url, "aud": "llamakit", "sub": "anna", "exp": int(time.time()) + 60}
    public = json.dumps(issuer.keys[0]).encode()
    unsigned = forged({"alg": "HS256", "kid": "one"}, claims, b"").rstrip(".")
    by_secret = forged({"alg": "HS256", "kid": "one"}, claims, hmac.digest(public, unsigned.encode(), "sha256"))
    verifier = verifier_of(issuer)
    for token in (
        forged({"alg": "none", "kid": "one"}, claims),
        forged({"alg": "None", "kid": "one"}, claims),
        forged({"kid": "one"}, claims),
        forged({"alg": ["RS256"], "kid": "one"}, claims),
        by_secret,
        issuer.token(algorithm="RS384"),
        issuer.token(headers={"crit": ["exp"]}),
    ):
        with pytest.raises(TokenRefused):
            await verifier.verify(token)


async def test_only_the_issuers_keys_count(issuer):
    verifier = verifier_of(issuer)
    stranger = jwt.encode(
        {"iss": issuer.url, "aud": "llamakit", "sub": "anna", "exp": int(time.time()) + 60},
        key_of("RSA", "stranger"),
        algorithm="RS256",
        headers={"kid": "one", "jku": "https://evil.example/keys", "jwk": jwk_of(key_of("RSA", "s"), "one", "RS256")},
    )
    good = issuer.token()
    head, body, signature = good.split(".")
    for token in (stranger, f"{head}.{body}.{signature[:-8]}AAAAAAAA", f"{head}.{body}x.{signature}"):
        with pytest.raises(TokenRefused):
            await verifier.verify(token)
    with pytest.raises(TokenRefused, match="does not have"):
        await verifier.verify(issuer.token(kid="two"))


async def test_a_key_is_used_only_for_what_it_is(issuer):
    issuer.keys[0]["use"] = "enc"
    with pytest.raises(TokenRefused):
        await verifier_of(issuer).verify(issuer.token())
    issuer.keys[0] |= {"use": "sig", "alg": "PS256"}
    with pytest.raises(TokenRefused):
        await verifier_of(issuer).verify(issuer.token())


@pytest.mark.filterwarnings("ignore")
async def test_short_keys_are_refused(issuer):
    issuer.publish("short", "short")
    with pytest.raises(TokenRefused, match="2048"):
        await verifier_of(issuer).verify(issuer.token("short", "short"))


async def test_without_a_name_the_only_key_is_meant(issuer):
    token = issuer.token(kid=None)
    assert await verifier_of(issuer).verify(token)
    issuer.publish(kid="two")
    with pytest.raises(TokenRefused):
        await verifier_of(issuer).verify(token)


async def test_keys_may_change(issuer):
    clock = Clock()
    verifier = verifier_of(issuer, clock)
    await verifier.verify(issuer.token())
    issuer.publish(kid="two")
    clock.now += RETRY_S + 1
    assert await verifier.verify(issuer.token(kid="two"))
    issuer.keys.pop(0)
    clock.now += KEYS_S + 1
    assert await verifier.verify(issuer.token(kid="two"))
    with pytest.raises(TokenRefused):
        await verifier.verify(issuer.token())


async def test_made_up_key_names_do_not_flood_the_issuer(issuer):
    verifier = verifier_of(issuer, Clock())
    await verifier.verify(issuer.token())
    asked = issuer.num_asked
    for number in range(20):
        with pytest.raises(TokenRefused):
            await verifier.verify(issuer.token(kid=f"made-up-{number % 2}"))
    assert issuer.num_asked <= asked + 2


async def test_an_issuer_that_is_down_is_survived_for_a_day(issuer):
    clock = Clock()
    verifier = verifier_of(issuer, clock)
    await verifier.verify(issuer.token())
    issuer.is_down = True
    clock.now += KEYS_S + 1
    assert await verifier.verify(issuer.token(jti="new"))
    clock.now += STALE_S
    with pytest.raises(Overloaded):
        await verifier.verify(issuer.token(jti="newer"))
    issuer.is_down = False
    clock.now += RETRY_S + 1
    assert await verifier.verify(issuer.token(jti="newest"))


@pytest.mark.parametrize(
    "described", [{"issuer": "https://evil.example"}, {"jwks_uri": None}, {"jwks_uri": "http://169.254.169.254/keys"}]
)
async def test_a_wrong_description_is_not_followed(issuer, described):
    issuer.described = described
    with pytest.raises(Overloaded):
        await verifier_of(issuer).verify(issuer.token())


@pytest.mark.parametrize(
    ("settings", "claims", "scopes"),
    [
        ({}, {"scope": "openid inference models:read"}, {Scope.inference, Scope.models_read}),
        ({}, {"scope": "openid profile"}, DEFAULT_SCOPES),
        ({"default_scopes": ()}, {"scope": "openid"}, set()),
        ({"default_scopes": ("metrics",)}, {}, {Scope.metrics}),
        (
            {"scope_claim": "realm_access.roles", "scopes": {"staff": ("inference", "tools")}},
            {"realm_access": {"roles": ["staff", "admin"]}},
            {Scope.inference, Scope.tools},
        ),
        ({"scope_claim": "https://x.y/roles"}, {"https://x.y/roles": ["admin", 3]}, {Scope.admin}),
        ({"scope_claim": "groups"}, {"groups": {"admin": True}}, DEFAULT_SCOPES),
    ],
)
async def test_claims_become_scopes(issuer, settings, claims, scopes):
    assert (await verifier_of(issuer, **settings).verify(issuer.token(**claims))).scopes == scopes


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://id.example.org"},
        {"issuer": "https://user:pass@id.example.org"},
        {"issuer": "id.example.org"},
        {"audience": ()},
        {"algorithms": ("HS256",)},
        {"algorithms": ("none",)},
        {"algorithms": ()},
        {"leeway_s": 1e9},
        {"scopes": {"staff": ("everything",)}},
        {"jwks_url": "ftp://x/keys"},
    ],
)
def test_settings_that_would_let_anybody_in(wrong):
    with pytest.raises(ConfigError):
        OidcConfig(**{"issuer": "https://id.example.org", "audience": ("llamakit",), **wrong})


def test_what_looks_like_a_token():
    assert is_token("a.b.c") and not any(is_token(text) for text in ("a.b", "a.b.c.d", "", "a.b.ü", "a." * 9000 + "c"))


async def test_keys_at_a_place_of_their_own(issuer):
    issuer.described = {"issuer": "never asked"}
    assert await verifier_of(issuer, jwks_url=f"{issuer.url}/keys").verify(issuer.token())
    assert issuer.num_asked == 1


@pytest.mark.parametrize(
    "keys", [[{"kty": "RSA", "kid": "one"}], [{"kty": "oct", "kid": "one", "k": "AAAA"}], ["x"], "x"]
)
async def test_damaged_keys_let_nobody_in(issuer, keys):
    token = issuer.token()
    issuer.keys = keys
    with pytest.raises((TokenRefused, Overloaded)):
        await verifier_of(issuer).verify(token)


def test_without_the_packages_the_server_does_not_start(issuer, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="oidc"):
        verifier_of(issuer)
