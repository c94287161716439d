"""`llama serve`: answer programs over the OpenAI API."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from llamakit.cli.options import Context, Device, Dtype, Quantize, Threads, complete_model, ensure_here, require_torch
from llamakit.cli.terminal import say
from llamakit.core.config import Duration, Secret, Settings, config_path, load
from llamakit.core.errors import ConfigError

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
    tls_cert: Annotated[str | None, typer.Option(help="PEM file of the certificate chain; switches TLS on.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="PEM file of its private key.")] = None,
    tls_client_ca: Annotated[
        str | None, typer.Option(help="PEM file; clients must show a certificate it signed.")
    ] = None,
    drain: Annotated[str | None, typer.Option(help="Time that running answers get when stopping, such as 30s.")] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="One JSON object a log line.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    provider: Annotated[
        str, typer.Option(help="Who computes: a row of `llama stack list-providers inference`.")
    ] = "inline::local",
) -> None:
    """\b
    llama serve
    llama serve llama3.2:1b --port 9000 --keep-alive 1h

    Serve the OpenAI API (chat, completions, embeddings, models) on http://127.0.0.1:8321/v1. Other models on this
    machine load when a request names them and leave when idle. Keys come from LLAMA_API_KEY, --api-key-file or
    `llama key create` (then say --require-key); an address that other machines reach wants them. Ctrl-C stops after
    running answers.
    """
    flags: dict[str, Any] = {"host": host, "port": port, "context": context, "threads": threads, "device": device}
    flags |= {"dtype": dtype, "quantize": quantize, "keep_alive": keep_alive}
    settings = load(Settings, file=config_path(), flags=flags).value
    from llamakit.stack.distribution import LOCAL_INFERENCE, TelemetryConfig, single

    is_local = provider == LOCAL_INFERENCE
    names = tuple(models or ((settings.model,) if is_local else ()))
    if is_local:
        require_torch()
        for name in names:
            ensure_here(name, offline=settings.offline)
    from llamakit.server.logs import configure_logging
    from llamakit.server.serve import serve
    from llamakit.stack.run_config import ServeConfig

    wishes: dict[str, Any] = {"max_loaded": max_loaded, "prompt_format": prompt_format, "draft": draft}
    wishes |= {"max_sequences": max_sequences}
    wishes |= {} if speculation else {"speculation": False}
    given: dict[str, Any] = {"drain_s": float(Duration.parse(drain))} if drain is not None else {}
    server = ServeConfig(
        preload=preload,
        strict=strict,
        host=settings.host,
        port=settings.port,
        uds=uds,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        api_keys=_keys(settings, api_key_file),
        require_key=require_key,
        allow_anonymous=allow_anonymous,
        allowed_hosts=tuple(allowed_host or ()),
        cors_origins=tuple(cors_origin or ()),
        **given,
    )
    distribution = single(
        provider,
        names,
        {"keep_alive": settings.keep_alive} | (_compute(settings, wishes) if is_local else {}),
        server=server,
        telemetry=TelemetryConfig(json_logs=json_logs),
        **({} if storage is None else {"database": storage}),
    )
    configure_logging(as_json=json_logs, level=logging.DEBUG if verbose else logging.INFO)
    serve(distribution, on_ready=lambda address: _welcome(address, names, json_logs=json_logs))


def _welcome(address: str, names: tuple[str, ...], *, json_logs: bool) -> None:
    if json_logs or not address.startswith("http"):
        return
    say(f"\n  {address}/v1 speaks the OpenAI API. Try:", "strong")
    model = names[0] if names else "MODEL"
    say(
        f"  curl {address}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'\n'
        "  Ctrl-C stops.\n"
    )


def _compute(settings: Settings, wishes: dict[str, Any]) -> dict[str, Any]:
    """What the local provider is told beyond its own defaults."""
    wishes = wishes | {
        "context": settings.context,
        "threads": settings.threads,
        "device": None if settings.device == "auto" else settings.device,
        "dtype": None if settings.dtype == "auto" else settings.dtype,
        "quantize": None if settings.quantize == "auto" else settings.quantize,
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
