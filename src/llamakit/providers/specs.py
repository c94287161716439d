"""The table of providers: which API each serves, its name, and where its builder is.

A row is data. Nothing is imported until a run config asks for the row. Third parties add rows by the entry
point group `llamakit.providers`, each naming a `ProviderSpec`; the rows here use the same door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from llamakit.providers.shared.search_engines import ENGINES
from llamakit.providers.shared.vendors import VENDORS

ENTRY_POINT_GROUP = "llamakit.providers"


class Api(StrEnum):
    """What a provider can provide."""

    inference = "inference"
    tools = "tools"
    safety = "safety"
    vector_io = "vector_io"


Build = Callable[[Mapping[str, Any], Mapping[Api, Any]], Any]
"""Takes the settings of a provider and the APIs it needs, gives the provider; raises `ConfigError`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderSpec:
    """One provider."""

    api: Api
    name: str
    """`inline::` or `remote::` and a name."""
    target: str
    """`module:function` of its `Build`."""
    needs: tuple[Api, ...] = ()
    """APIs it is given when it is built."""
    summary: str = ""
    extra: str | None = None
    """Extra of the package that it needs installed."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the row itself has; a run config adds to them and does not replace them."""


BUILT_IN: tuple[ProviderSpec, ...] = (
    ProviderSpec(
        api=Api.inference,
        name="inline::local",
        target="llamakit.providers.inline.inference.local:build",
        extra="torch",
        summary="Llama models on this machine, by this project's own engine.",
    ),
    ProviderSpec(
        api=Api.inference,
        name="inline::echo",
        target="llamakit.providers.inline.inference.echo:build",
        summary="Says back what it is told, token by token: for tests of clients and of the server.",
    ),
    ProviderSpec(
        api=Api.inference,
        name="inline::minilm",
        target="llamakit.providers.inline.inference.minilm:build",
        summary="Embeddings in process by all-MiniLM-L6-v2, from a package of PyPI, without torch.",
    ),
    ProviderSpec(
        api=Api.inference,
        name="inline::ngrams",
        target="llamakit.providers.inline.inference.ngrams:build",
        summary="Embeddings of words and letters, with no model at all.",
    ),
    *(
        ProviderSpec(
            api=Api.inference,
            name=f"remote::{vendor.name}",
            target="llamakit.providers.remote.inference.openai_compat:build",
            summary=f"Models of {vendor.title}, over OpenAI's wire.",
            settings={"vendor": vendor.name},
        )
        for vendor in VENDORS
    ),
    ProviderSpec(
        api=Api.inference,
        name="remote::anthropic",
        target="llamakit.providers.remote.inference.anthropic:build",
        summary="Models of Anthropic.",
    ),
    ProviderSpec(
        api=Api.tools,
        name="inline::file-search",
        target="llamakit.providers.inline.tools.file_search:build",
        summary="Search of the server's own files, with citations.",
    ),
    ProviderSpec(
        api=Api.tools,
        name="inline::code-interpreter",
        target="llamakit.providers.inline.tools.code_interpreter:build",
        summary="Python code behind kernel limits: no network, no files of the machine. Linux with bubblewrap.",
    ),
    *(
        ProviderSpec(
            api=Api.tools,
            name=f"remote::{engine.name}",
            target="llamakit.providers.remote.tools.web_search:build",
            summary=f"Web search by {engine.title}.",
            settings={"engine": engine.name},
        )
        for engine in ENGINES
    ),
    ProviderSpec(
        api=Api.tools,
        name="remote::openai-images",
        target="llamakit.providers.remote.tools.images:build",
        summary="Images drawn by OpenAI, or by any service that speaks its images.",
    ),
    ProviderSpec(
        api=Api.tools,
        name="remote::wolfram-alpha",
        target="llamakit.providers.remote.tools.wolfram_alpha:build",
        summary="Wolfram|Alpha: computed answers to short questions.",
    ),
    ProviderSpec(
        api=Api.safety,
        name="inline::llama-guard",
        target="llamakit.providers.inline.safety.llama_guard:build",
        needs=(Api.inference,),
        summary="Shields by Llama Guard, or any other model that is served here.",
    ),
    ProviderSpec(
        api=Api.safety,
        name="inline::word-list",
        target="llamakit.providers.inline.safety.word_list:build",
        summary="Shields by lists of words, without a model.",
    ),
    ProviderSpec(
        api=Api.tools,
        name="remote::model-context-protocol",
        target="llamakit.providers.remote.tools.mcp:build",
        extra="mcp",
        summary="The tools of MCP servers, at URLs that the outbound settings allow, and of configured programs.",
    ),
    ProviderSpec(
        api=Api.vector_io,
        name="inline::numpy",
        target="llamakit.providers.inline.vector_io.local:build",
        summary="Exact search by numpy over mapped files, words by SQLite: the default beside SQLite.",
        settings={"kind": "numpy"},
    ),
    ProviderSpec(
        api=Api.vector_io,
        name="inline::faiss",
        target="llamakit.providers.inline.vector_io.local:build",
        extra="faiss",
        summary="The same, with a graph of FAISS where vectors are many.",
        settings={"kind": "faiss"},
    ),
    ProviderSpec(
        api=Api.vector_io,
        name="inline::sqlite-vec",
        target="llamakit.providers.inline.vector_io.local:build",
        extra="sqlite-vec",
        summary="Exact search by sqlite-vec inside SQLite, through apsw.",
        settings={"kind": "sqlite-vec"},
    ),
    ProviderSpec(
        api=Api.vector_io,
        name="remote::pgvector",
        target="llamakit.providers.remote.vector_io.pgvector:build",
        extra="postgres",
        summary="PostgreSQL with pgvector: the default beside PostgreSQL.",
    ),
    ProviderSpec(
        api=Api.vector_io,
        name="remote::qdrant",
        target="llamakit.providers.remote.vector_io.qdrant:build",
        summary="Qdrant, on this machine, in the own network or in its cloud: vectors, words and texts.",
    ),
)
