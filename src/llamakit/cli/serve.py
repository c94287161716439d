"""`llama serve`: answer programs over the OpenAI API."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamakit.cli.options import Context, Device, Dtype, Kv, Quantize, Threads, complete_model
from llamakit.core.config import Duration, Secret, Settings, config_path, load
from llamakit.core.errors import ConfigError

if TYPE_CHECKING:
    from llamakit.stack.distribution import Distribution

MAX_KEY_FILE_BYTES = 1 << 16


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="Models by any name, the first the default.", autocompletion=complete_model
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Port to listen on; 0 takes a free one.")] = None,
    uds: Annotated[str | None, typer.Option(help="Listen on this Unix socket instead.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with keys, one a line, one of which every request must carry.")
    ] = None,
    require_key: Annotated[
        bool, typer.Option("--require-key", help="Demand a key of everybody; `llama key create` makes keys.")
    ] = False,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Serve other machines without a key.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Accepted Host header beside this machine's names.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Origin of web pages that may call; may be repeated.")
    ] = None,
    keep_alive: Annotated[
        str | None, typer.Option(help="How long an idle model stays, such as 5m; -1 for ever.")
    ] = None,
    max_loaded: Annotated[int | None, typer.Option(min=1, help="Models in memory at once.")] = None,
    preload: Annotated[bool, typer.Option(help="Load the models before the first request.")] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse unknown request fields instead of naming them.")
    ] = False,
    context: Context = None,
    threads: Threads = None,
    device: Device = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    kv: Kv = None,
    prompt_format: Annotated[
        str | None, typer.Option("--format", help="Prompt format, where it is not recognised.")
    ] = None,
    draft: Annotated[
        str | None, typer.Option(help="Smaller model of the same vocabulary that proposes tokens.")
    ] = None,
    speculation: Annotated[bool, typer.Option(help="Propose tokens from the text itself.")] = True,
    max_sequences: Annotated[int | None, typer.Option(min=1, help="Answers computed together.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="LLAMA_STORAGE",
            show_envvar=False,
            help="Where objects are kept: local, sqlite:PATH, :memory: or a PostgreSQL URL (better in LLAMA_STORAGE).",
        ),
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(help="A tool to offer, such as code-interpreter or tavily-search; may be repeated."),
    ] = None,
    mcp: Annotated[
        list[str] | None, typer.Option(help="An MCP server, NAME=URL or NAME=COMMAND; may be repeated.")
    ] = None,
    mcp_host: Annotated[
        list[str] | None, typer.Option(help="Host whose MCP servers requests may name; none by default.")
    ] = None,
    fetch_host: Annotated[
        list[str] | None, typer.Option(help="Host whose files and images requests may name; none by default.")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="PEM file of the certificate chain; switches TLS on.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="PEM file of its private key.")] = None,
    tls_client_ca: Annotated[
        str | None, typer.Option(help="PEM file; clients must show a certificate it signed.")
    ] = None,
    drain: Annotated[str | None, typer.Option(help="Time that running answers get when stopping, such as 30s.")] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="One JSON object a log line.")] = False,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            "--otlp-endpoint",
            envvar="LLAMA_OTLP_ENDPOINT",
            show_envvar=False,
            help="Send traces and metrics there by OTLP over HTTP, such as http://localhost:4318.",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    provider: Annotated[
        str | None, typer.Option(help="Who computes instead: a row of `llama stack list-providers inference`.")
    ] = None,
) -> None:
    """\b
    llama serve
    llama serve llama3.2:1b --port 9000 --keep-alive 1h

    Serve the OpenAI API (chat, completions, embeddings, models) on http://127.0.0.1:8321/v1. Other models on this
    machine load when a request names them and leave when idle. Keys come from LLAMA_API_KEY, --api-key-file or
    `llama key create` (then say --require-key); an address that other machines reach wants them. Ctrl-C stops after
    running answers. This is the distribution `local` with the flags on top; others start with `llama stack run`.
    """
    flags: dict[str, Any] = {"host": host, "port": port, "context": context, "threads": threads, "device": device}
    flags |= {"dtype": dtype, "quantize": quantize, "kv": kv, "keep_alive": keep_alive}
    loaded = load(Settings, file=config_path(), flags=flags)
    settings, told = loaded.value, {name for name, source in loaded.sources.items() if source != "default"}
    from llamakit.cli.serve_tools import with_fetching, with_tools
    from llamakit.cli.starting import start
    from llamakit.stack.distribution_file import load as load_distribution

    wishes: dict[str, Any] = {"max_loaded": max_loaded, "prompt_format": prompt_format, "draft": draft}
    wishes |= {"max_sequences": max_sequences}
    wishes |= {} if speculation else {"speculation": False}
    wishes = _compute(settings, wishes) | ({"keep_alive": settings.keep_alive} if "keep_alive" in told else {})
    server: dict[str, Any] = {name: getattr(settings, name) for name in ("host", "port") if name in told}
    server |= {"uds": uds, "tls_cert": tls_cert, "tls_key": tls_key, "tls_client_ca": tls_client_ca}
    server |= {"strict": strict or None, "preload": None if preload else False}
    server |= {"allow_anonymous": allow_anonymous or None, "require_key": require_key or None}
    server |= {"allowed_hosts": tuple(allowed_host or ()) or None, "cors_origins": tuple(cors_origin or ()) or None}
    server |= {"drain_s": float(Duration.parse(drain)) if drain is not None else None}
    server |= {"api_keys": _keys(settings, api_key_file) or None}
    server = {name: value for name, value in server.items() if value is not None}
    names = tuple(models or ((settings.model,) if "model" in told else ()))
    # The address is set below, together with the keys that an exposed one wants.
    base = load_distribution("local", {name: value for name, value in os.environ.items() if name != "LLAMA_HOST"})
    telemetry = {"json_logs": json_logs or None, "otlp_endpoint": otlp_endpoint}
    telemetry = {name: value for name, value in telemetry.items() if value is not None}
    distribution = _on_top(base, provider, names, wishes, server, storage, telemetry)
    distribution = with_tools(distribution, tool or (), mcp or (), mcp_host or ())
    distribution = with_fetching(distribution, fetch_host or ())
    start(distribution, offline=settings.offline, verbose=verbose)


def _on_top(
    base: Distribution,
    provider: str | None,
    names: tuple[str, ...],
    wishes: dict[str, Any],
    server: dict[str, Any],
    storage: str | None,
    telemetry: dict[str, Any],
) -> Distribution:
    """A distribution with what the flags say in the place of what it says."""
    from llamakit.providers.specs import Api
    from llamakit.stack.distribution import LOCAL_INFERENCE, ModelEntry, ProviderEntry

    rows, models = base.of(Api.inference), base.models
    if provider is not None and provider not in {row.provider_type for row in rows}:
        name = provider.partition("::")[2] or provider
        rows, models = (ProviderEntry(provider_id=name, provider_type=provider),), ()
    mine = provider or LOCAL_INFERENCE
    rows = tuple(
        replace(row, config={**row.config, **_taken(row.provider_type, wishes)}) if row.provider_type == mine else row
        for row in rows
    )
    if names:
        owner = next((row.provider_id for row in rows if row.provider_type == mine), None)
        models = tuple(ModelEntry(model_id=name, provider_id=owner) for name in names)
    return replace(
        base,
        providers={**base.providers, Api.inference: rows},
        models=models,
        storage=base.storage if storage is None else replace(base.storage, database=storage),
        server=replace(base.server, **server),
        telemetry=replace(base.telemetry, **telemetry),
    )


def _taken(provider_type: str, wishes: dict[str, Any]) -> dict[str, Any]:
    """What a provider is told of the wishes: the engine here all of them, others how long to stay."""
    from llamakit.stack.distribution import LOCAL_INFERENCE

    if provider_type == LOCAL_INFERENCE:
        return wishes
    return {name: value for name, value in wishes.items() if name == "keep_alive"}


def _compute(settings: Settings, wishes: dict[str, Any]) -> dict[str, Any]:
    """What the local provider is told beyond its own defaults."""
    wishes = wishes | {
        "context": settings.context,
        "threads": settings.threads,
        "device": None if settings.device == "auto" else settings.device,
        "dtype": None if settings.dtype == "auto" else settings.dtype,
        "quantize": None if settings.quantize == "auto" else settings.quantize,
        "kv": None if settings.kv == "auto" else settings.kv,
    }
    return {name: value for name, value in wishes.items() if value is not None}


def _keys(settings: Settings, file: Path | None) -> tuple[Secret, ...]:
    """Keys of the settings and the file; a flag would show them to everybody who lists processes."""
    keys = [settings.api_key] if settings.api_key is not None else []
    if file is not None:
        try:
            if file.stat().st_size > MAX_KEY_FILE_BYTES:
                raise ConfigError(f"--api-key-file {file} is larger than {MAX_KEY_FILE_BYTES} bytes")
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            raise ConfigError(f"--api-key-file: no file {file}") from None
        keys += [Secret(line) for line in lines if line and not line.startswith("#")]
        if not keys:
            raise ConfigError(f"--api-key-file {file} holds no key")
    return tuple(keys)
