"""`llama run`: a chat in the terminal, or one prompt answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamakit.cli.options import Context, Device, Dtype, Kv, Quantize, Threads, complete_model, load_llm
from llamakit.cli.piped import read_piped
from llamakit.cli.speaking import Spoken, as_json, say_speed, speak, stdout_shower
from llamakit.cli.terminal import put_json
from llamakit.core.config import data_home
from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.messages import ToolSpec, system, user
from llamakit.core.sampling import Constraint

if TYPE_CHECKING:
    from llamakit.runtime.llm import LLM

INTERRUPTED = 130
MAX_FILE_BYTES = 1 << 20
HISTORY = "history"


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="Any name of a model; by default the one of the package.", autocompletion=complete_model),
    ] = None,
    prompt: Annotated[list[str] | None, typer.Argument(help="What to say; without it, a chat begins.")] = None,
    system_text: Annotated[str | None, typer.Option("--system", help="What the model is told first.")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-t", help="0 always takes the likeliest token.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the likeliest tokens up to this mass.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep this many of the likeliest tokens.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Drop tokens below this share of the likeliest one.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", "-n", help="Most tokens to answer.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be repeated.")] = None,
    schema: Annotated[Path | None, typer.Option(help="JSON Schema file that the answer must match.")] = None,
    tools: Annotated[Path | None, typer.Option(help="JSON file with a list of tools, as OpenAI writes them.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text as it stands, without a prompt format.")
    ] = False,
    as_object: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say tokens and seconds.")] = False,
    prompt_format: Annotated[
        str | None, typer.Option("--format", help="Prompt format, where it is not recognised.")
    ] = None,
    draft: Annotated[
        str | None, typer.Option(help="Smaller model of the same vocabulary that proposes tokens.")
    ] = None,
    speculation: Annotated[bool, typer.Option(help="Propose tokens from the text itself.")] = True,
    context: Context = None,
    threads: Threads = None,
    device: Device = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    kv: Kv = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only what is here.")] = False,
) -> None:
    """\b
    llama run
    cat notes.txt | llama run llama3.2:1b "List the action items"

    Chat with a model, or answer one prompt: given as words, on standard input, or both (the words first). A known model
    that is not on this machine is offered for download.
    """
    text = _prompt_text(prompt or [])
    sampling = _sampling(temperature, top_p, top_k, min_p, max_tokens, seed, tuple(stop or ()), schema)
    specs = _read_tools(tools) if tools is not None else ()
    if raw and (system_text is not None or specs):
        raise InvalidRequest("--raw continues a text and knows no messages; leave out --system and --tools")
    if text is None and (as_object or raw or schema is not None or specs):
        raise InvalidRequest(
            "--json, --raw, --schema and --tools answer one prompt; give it as words or on standard input"
        )

    def load(name: str | None) -> LLM:
        return load_llm(
            name,
            context=context,
            threads=threads,
            device=device,
            dtype=dtype,
            quantize=quantize,
            kv=kv,
            prompt_format=prompt_format,
            speculation=speculation,
            draft=draft,
            offline=offline,
        )

    if text is None:
        _chat(load(model), load, system_text, sampling, verbose)
        return
    with load(model) as llm:
        llm.prompter.sampling(sampling)
        if raw:
            events = llm.stream_prompt(text, sampling=sampling)
        else:
            start = [system(system_text)] if system_text is not None else []
            events = llm.stream([*start, user(text)], sampling=sampling, tools=specs)
        spoken = speak(events, (lambda piece: None) if as_object else stdout_shower())
        _finish(llm, spoken, as_object=as_object, verbose=verbose)


def _finish(llm: LLM, spoken: Spoken, *, as_object: bool, verbose: bool) -> None:
    if as_object:
        put_json(as_json(llm.name, spoken))
    else:
        print(flush=True)
    if verbose:
        say_speed(spoken)
    if spoken.was_interrupted:
        raise typer.Exit(INTERRUPTED)


def _chat(llm: LLM, load: Any, system_text: str | None, sampling: dict[str, Any], verbose: bool) -> None:
    from llamakit.cli.chat import Chat, run_chat
    from llamakit.cli.lines import line_reader
    from llamakit.cli.slash import WORDS

    chat = Chat(llm=llm, load=load, show=stdout_shower(), system=system_text, sampling=sampling, is_verbose=verbose)
    try:
        llm.prompter.sampling(sampling)
        run_chat(chat, line_reader(data_home() / HISTORY, WORDS))
    finally:
        chat.llm.close()


def _prompt_text(words: list[str]) -> str | None:
    """Words and standard input as one prompt; None where a person is to type."""
    piped = read_piped(is_needed=not words)
    parts = [" ".join(words)] if words else []
    if piped is not None and piped.strip():
        parts.append(piped.rstrip("\n"))
    if not parts and piped is not None:
        raise InvalidRequest('standard input is empty; give a prompt: llama run MODEL "prompt"')
    return "\n\n".join(parts) if parts else None


def _sampling(
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    min_p: float | None,
    max_tokens: int | None,
    seed: int | None,
    stop: tuple[str, ...],
    schema: Path | None,
) -> dict[str, Any]:
    """The given fields of SamplingParams."""
    fields: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "max_tokens": max_tokens,
        "seed": seed,
        "stop": stop or None,
        "constraint": _read_schema(schema) if schema is not None else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _read_schema(path: Path) -> Constraint:
    if not isinstance(data := _read_json(path, "--schema"), dict):
        raise ConfigError(f"--schema {path} must hold a JSON object, the schema")
    return Constraint(kind="json_schema", source=json.dumps(data))


def _read_tools(path: Path) -> tuple[ToolSpec, ...]:
    """Tools from `[{"type": "function", "function": {"name": ..., "parameters": ...}}]`, or the inner objects alone."""
    data = _read_json(path, "--tools")
    specs: list[ToolSpec] = []
    for entry in data if isinstance(data, list) else [data]:
        inner = entry.get("function", entry) if isinstance(entry, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise ConfigError(f"--tools {path} must hold a list of functions with a name, got {entry!r}")
        parameters = inner.get("parameters", {})
        if not isinstance(parameters, dict):
            raise ConfigError(f"--tools {path}: parameters of {inner['name']} must be a JSON Schema object")
        description = str(inner.get("description", ""))
        specs.append(ToolSpec(name=inner["name"], description=description, parameters=parameters))
    return tuple(specs)


def _read_json(path: Path, flag: str) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{flag} {path} is larger than {MAX_FILE_BYTES} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{flag}: no file {path}") from None
    except (ValueError, RecursionError) as fault:
        raise ConfigError(f"{flag} {path} is not JSON: {fault}") from fault
