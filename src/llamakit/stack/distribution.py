"""What a server is made of: providers, the models they answer for, what is registered at the start, where it is kept.

Plain facts, checked against each other. Knows no file format, no disk and no provider's module; `distribution_file`
reads it from YAML by these very fields, so a field added to a section here is a key of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llamakit.core.config import Secret, nearest
from llamakit.core.errors import ConfigError
from llamakit.providers.specs import Api
from llamakit.stack.fetching import FetchConfig
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.storage import LOCAL, check_target

VERSION = 1
"""Version of the file's form."""
MAX_KEPT_SPANS = 10_000_000
LOCAL_INFERENCE = "inline::local"
"""Type of the provider whose models are files of this machine."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderEntry:
    """One provider of one API."""

    provider_id: str
    """Its name in this distribution; models, shields and tool groups refer to it."""
    provider_type: str
    """Row of the provider table: `inline::local`, `remote::vllm`. See `llama stack list-providers`."""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Its settings. Those named like keys, tokens and passwords arrive as `Secret`."""

    def __post_init__(self) -> None:
        if _ID.fullmatch(self.provider_id) is None:
            raise ConfigError(
                f"provider_id holds letters, digits, '.', '_', ':' and '-', got {self.provider_id[:80]!r}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """A model by the name that clients use."""

    model_id: str
    provider_id: str | None = None
    """Who answers for it; may be left out where there is one inference provider."""
    provider_model_id: str | None = None
    """The provider's own name of it; the same where it is left out."""
    model_type: Literal["llm", "embedding"] = "llm"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Facts to show, such as embedding_dimension."""

    def __post_init__(self) -> None:
        if not 0 < len(self.model_id) <= 512:
            raise ConfigError(f"model_id must have 1 to 512 characters, got {len(self.model_id)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShieldEntry:
    """A shield that is there from the start."""

    shield_id: str
    provider_id: str | None = None
    provider_shield_id: str | None = None
    """What the provider knows it by, such as the model it asks."""
    params: Mapping[str, Any] = field(default_factory=dict)
    guards: tuple[Literal["input", "output"], ...] = ()
    """Where it stands before every model (`input`: what is asked) or behind it (`output`: what is answered)."""
    fails_open: bool = False
    """As a guard: let through what it cannot judge. False: a shield that is down stops every answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McpEndpoint:
    """Where an MCP server listens."""

    uri: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolGroupEntry:
    """A group of tools that is there from the start."""

    toolgroup_id: str
    provider_id: str | None = None
    mcp_endpoint: McpEndpoint | None = None
    args: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorStoreConfig:
    """How vector stores are made where a request does not say it."""

    provider_id: str | None = None
    """Who keeps the vectors; the first vector_io provider where it is left out."""
    embedding_model: str | None = None
    """Model that embeds; where it is left out, a served model of type embedding, else one in process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageConfig:
    """Where the server keeps what it acknowledges."""

    database: str = field(default=LOCAL, repr=False)
    """`local` (under the data home), `sqlite:PATH`, `:memory:`, or a PostgreSQL URL that several servers may share."""

    def __post_init__(self) -> None:
        check_target(self.database)


@dataclass(frozen=True, kw_only=True, slots=True)
class TelemetryConfig:
    """What the server tells of itself."""

    json_logs: bool = False
    """One JSON object a log line."""
    otlp_endpoint: str | None = None
    """Where traces and metrics go by OTLP over HTTP, such as http://localhost:4318; nothing of what is said."""
    otlp_headers: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    """Headers for it, such as a key."""
    service_name: str = "llamakit"
    """What the server calls itself there."""
    sample: float = 1.0
    """Part of the traces that is recorded; a caller that brings a trace decides for itself."""
    export_s: float = 10.0
    """Seconds between two sendings."""
    keep_spans: int = 0
    """Spans that are kept in the database for `/v1/telemetry`, the oldest leaving first; 0 keeps none."""

    def __post_init__(self) -> None:
        if not 0 <= self.sample <= 1:
            raise ConfigError(f"telemetry.sample must be in [0, 1], got {self.sample!r}")
        if not 0.05 <= self.export_s <= 3600:
            raise ConfigError(f"telemetry.export_s must be in [0.05, 3600] seconds, got {self.export_s!r}")
        if not 0 <= self.keep_spans <= MAX_KEPT_SPANS:
            raise ConfigError(f"telemetry.keep_spans must be in [0, {MAX_KEPT_SPANS}], got {self.keep_spans!r}")
        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise ConfigError("telemetry.otlp_endpoint is an http(s) address such as http://localhost:4318")


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """A server, wholly described."""

    version: int = VERSION
    name: str = ""
    """What it is called; the file's own name where it is left out."""
    about: str = ""
    """One line for `llama stack list-distros`."""
    apis: tuple[str, ...] = ()
    """What is served, by the names of `llama stack list-apis`; empty serves everything."""
    providers: Mapping[str, tuple[ProviderEntry, ...]] = field(default_factory=dict)
    """Providers by API, in the order in which they are preferred."""
    models: tuple[ModelEntry, ...] = ()
    """Models by name, the first the default."""
    shields: tuple[ShieldEntry, ...] = ()
    tool_groups: tuple[ToolGroupEntry, ...] = ()
    vector_stores: VectorStoreConfig = field(default_factory=VectorStoreConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    server: ServeConfig = field(default_factory=ServeConfig)
    """Where it listens and who may come in: the sections `server` and `auth` of a file."""
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    """What requests may have fetched for them."""

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ConfigError(f"version must be {VERSION}, the form that this build reads; got {self.version!r}")
        apis = [str(api) for api in Api]
        for api, rows in self.providers.items():
            if api not in apis:
                raise ConfigError(f"providers: no API {api!r}{nearest(api, apis)}. There are: {', '.join(apis)}")
            remote = [row.provider_id for row in rows if row.provider_type.startswith("remote::")]
            if self.server.offline and remote:
                raise ConfigError(f"server.offline shuts every way out, and these providers need one: {remote[0]}")
            _check_distinct(f"providers.{api}", (row.provider_id for row in rows))
        if self.server.offline and self.fetch.hosts:
            raise ConfigError("server.offline shuts every way out; leave fetch.hosts out")
        _check_distinct("models", (model.model_id for model in self.models))
        _check_distinct("shields", (shield.shield_id for shield in self.shields))
        _check_distinct("tool_groups", (group.toolgroup_id for group in self.tool_groups))
        for model in self.models:
            self._check_provider(model)

    def of(self, api: Api) -> tuple[ProviderEntry, ...]:
        """The providers of an API."""
        return self.providers.get(api, ())

    def provider_of(self, model: ModelEntry) -> str:
        """The id of the provider that answers for a model."""
        return model.provider_id if model.provider_id is not None else self.of(Api.inference)[0].provider_id

    def _check_provider(self, model: ModelEntry) -> None:
        known = [row.provider_id for row in self.of(Api.inference)]
        if model.provider_id is None and len(known) != 1:
            raise ConfigError(
                f"model {model.model_id!r} names no provider_id, and there are {len(known)} inference providers; "
                f"give it one of: {', '.join(known) or 'none is there'}"
            )
        if model.provider_id is not None and model.provider_id not in known:
            raise ConfigError(
                f"model {model.model_id!r} is for the provider {model.provider_id!r}, which is not there"
                f"{nearest(model.provider_id, known)}. There are: {', '.join(known) or 'none'}"
            )


def single(
    provider_type: str = LOCAL_INFERENCE,
    models: Iterable[str] = (),
    config: Mapping[str, Any] | None = None,
    *,
    database: str = LOCAL,
    server: ServeConfig | None = None,
    telemetry: TelemetryConfig | None = None,
) -> Distribution:
    """The distribution of one inference provider, for whoever starts a server in Python."""
    provider = ProviderEntry(
        provider_id=provider_type.partition("::")[2] or provider_type, provider_type=provider_type, config=config or {}
    )
    return Distribution(
        providers={Api.inference: (provider,)},
        models=tuple(ModelEntry(model_id=name) for name in models),
        storage=StorageConfig(database=database),
        server=server or ServeConfig(),
        telemetry=telemetry or TelemetryConfig(),
    )


def _check_distinct(where: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"{where}: {name!r} is there twice; ids are distinct")
        seen.add(name)
