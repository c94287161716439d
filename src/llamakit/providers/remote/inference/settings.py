"""Settings of a remote inference provider: run config, then the vendor's variables, then its row."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llamakit.core.config import Secret, nearest
from llamakit.core.errors import ConfigError
from llamakit.providers.shared.aws import Signer
from llamakit.providers.shared.remote import RemoteConfig
from llamakit.providers.shared.vendors import VENDORS, Vendor, vendor_of

_WAITING = ("connect_s", "idle_s", "total_s", "retries", "max_wait_s")
SHARED_SETTINGS = frozenset(
    {"base_url", "api_key", "api_key_env", "models", "model_names", "max_tokens", "keep_alive", *_WAITING}
)
"""Settings that every remote provider has. `keep_alive` is for services that can be told."""
MAX_TOKENS = 4096
_PLACE = re.compile(r"{(\w+)}")
_PLACE_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What one provider was told."""

    vendor: Vendor
    remote: RemoteConfig
    models: tuple[str, ...] = ()
    """Models it serves; empty serves whatever the service has."""
    model_names: Mapping[str, str] = field(default_factory=dict)
    """Alias to the service's own name."""
    max_tokens: int = MAX_TOKENS
    """Length of a completion that asks for none, where the service does not say what fits."""


def read_settings(config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings; raises `ConfigError` naming the setting and the variable that would do."""
    environ = os.environ if environ is None else environ
    try:
        vendor = vendor_of(config.get("vendor", "openai-compat"))
    except KeyError:
        rows = ", ".join(row.name for row in VENDORS)
        raise ConfigError(f"no vendor {config['vendor']!r}. There are: {rows}") from None
    known = {"vendor", *SHARED_SETTINGS, *vendor.places}
    for key in config:
        if key not in known:
            raise ConfigError(f"remote::{vendor.name} has no setting {key!r}{nearest(key, sorted(known))}")
    return Settings(
        vendor=vendor,
        remote=RemoteConfig(
            service=vendor.title,
            base_url=_base_url(vendor, config, environ),
            **key_headers(vendor, config, environ),
            **waiting(config),
        ),
        models=tuple(config.get("models") or ()),
        model_names=dict(config.get("model_names") or {}),
        max_tokens=read_max_tokens(config),
    )


def waiting(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of how long to wait that were given."""
    return {name: config[name] for name in _WAITING if name in config}


def key_headers(vendor: Vendor, config: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The header that carries the key, and what to do when it is refused."""
    if vendor.aws_service is not None and (signer := _signer(vendor.aws_service, vendor, config, environ)) is not None:
        return {"sign": signer, "key_hint": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}
    key, variable = read_key(vendor.name, vendor.key_env, config, environ, needs_key=vendor.needs_key)
    hint = f"check {variable}" if variable else "give it an api_key"
    if key is None:
        return {"key_hint": hint}
    value = f"Bearer {key.reveal()}" if vendor.key_header == "authorization" else key.reveal()
    return {"headers": {vendor.key_header: value}, "key_hint": hint}


def _signer(service: str, vendor: Vendor, config: Mapping[str, Any], environ: Mapping[str, str]) -> Signer | None:
    """The signer of AWS's own variables; None where there is a key, which comes first, or no key pair."""
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    has_key = config.get("api_key") or environ.get(config.get("api_key_env") or vendor.key_env or "")
    if has_key or not key_id or not secret:
        return None
    session = environ.get("AWS_SESSION_TOKEN")
    return Signer(
        region=_place(vendor, "region", config, environ),
        service=service,
        key_id=key_id,
        secret=Secret(secret),
        session=Secret(session) if session else None,
    )


def read_key(
    name: str, variable: str | None, config: Mapping[str, Any], environ: Mapping[str, str], *, needs_key: bool
) -> tuple[Secret | None, str | None]:
    """The key and the variable it may come from; raises `ConfigError` where it is missing or no key."""
    variable = config.get("api_key_env", variable)
    given = config.get("api_key") or (environ.get(variable) if variable else None)
    if not given:
        if needs_key:
            raise ConfigError(f"remote::{name} needs a key: set {variable}, or api_key")
        return None, variable
    key = given if isinstance(given, Secret) else Secret(str(given).strip())
    if _HEADER_VALUE.fullmatch(key.reveal()) is None:
        raise ConfigError(f"the key of remote::{name} holds characters that no key has; check {variable or 'api_key'}")
    return key, variable


def read_max_tokens(config: Mapping[str, Any]) -> int:
    """Length of an answer that asks for none; raises `ConfigError`."""
    value = config.get("max_tokens", MAX_TOKENS)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise ConfigError(f"max_tokens must be a positive integer, got {value!r}")
    return value


def _base_url(vendor: Vendor, config: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    given = config.get("base_url") or (environ.get(vendor.base_url_env) if vendor.base_url_env else None)
    if given is None:
        if not vendor.base_url:
            raise ConfigError(f"remote::{vendor.name} needs base_url, or the variable {vendor.base_url_env}")
        return _PLACE.sub(lambda match: _place(vendor, match[1], config, environ), vendor.base_url)
    if not isinstance(given, str):
        raise ConfigError(f"base_url must be text, got {given!r}")
    given = given.strip().rstrip("/")
    # Many write the address alone; nobody's wire begins at its root.
    return f"{given}/v1" if re.fullmatch(r"https?://[^/]+", given) else given


def _place(vendor: Vendor, place: str, config: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    variable = vendor.places[place]
    value = str(config.get(place) or environ.get(variable) or "")
    value = value.removeprefix("https://").strip("/")
    if not value:
        raise ConfigError(f"remote::{vendor.name} needs {place}: set {variable}, or {place}, or base_url")
    if _PLACE_VALUE.fullmatch(value) is None:
        raise ConfigError(f"{place} of remote::{vendor.name} is a plain name such as a region, got {value[:80]!r}")
    return value
