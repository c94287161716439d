"""`llama demo`: what this is for, shown on this machine with the network shut."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from llamakit.cli.app import new_app
from llamakit.cli.demo_assistant import Demo, Shown, Turned
from llamakit.cli.options import Device, Dtype, Quantize, Threads, complete_model, load_llm
from llamakit.cli.terminal import paint, put, put_json, say
from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.hub import embedded

MAX_FILE_BYTES = 1 << 20
THREAD = """\
Maria: Hi everyone!
Tom: Hello!
Maria: Are you free for the team meeting on Friday at 3 pm?
Tom: Sounds good!
Ana: Great.
Maria: Hey Tom, would you mind? We need you to send the slides by Thursday.
Tom: On it!
Ana: I'll print the agenda before Friday.
Tom: Thanks!
Ana: See you!
"""
EVENT = "team meeting"
"""What the thread above plans."""

app = new_app(no_args_is_help=True, help="What this is for, shown on this machine with the network shut.")


@app.callback()
def demo() -> None:
    """\b
    llama demo assistant
    llama demo assistant --thread chat.txt --model llama3.2:3b
    """


@app.command("assistant", short_help="Sum up a thread, list what is to do, send the invitation.")
def assistant(
    thread: Annotated[
        Path | None, typer.Option(help="Text file with your own messages, one a line; built-in ones by default.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many of the last messages count.")] = 10,
    event: Annotated[str | None, typer.Option(help="Which event to invite to, in the thread's words.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Any model of this machine; by default the package's.", autocompletion=complete_model),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the invitation.")] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    threads: Threads = None,
    device: Device = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
) -> None:
    """\b
    llama demo assistant
    llama demo assistant --thread chat.txt --event "project review" --model llama3.2:3b

    Sum up the last messages of a thread, list its action items, and send the calendar invitation by a tool call: an
    .ics file in this folder. The network is shut from the first step to the last, and the count of attempts is shown.
    """
    messages = _messages(thread, last)
    if not out.is_dir():
        raise ConfigError(f"--out {out} is not a folder; make it first")
    from llamakit.outbound.sealed import sealed

    wishes: dict[str, Any] = {"threads": threads, "device": device, "dtype": dtype, "quantize": quantize}
    with sealed() as seal, load_llm(model or embedded.DEFAULT, offline=True, **wishes) as llm:
        shown = Shown(is_quiet=as_json)
        shown.thread(llm.name, messages)
        told = Demo(llm, out, shown).run(messages, event or (EVENT if thread is None else None))
        opened, attempts = seal.connections_opened, list(seal.attempts)
    if as_json:
        put_json(_as_json(llm.name, messages, told, opened, attempts))
    else:
        _close(told, opened, attempts, seal.is_known_to_the_kernel)
    if not any(turn.events for turn in told):
        say("The model did not send an invitation that could be written; try another one with --model.", "warn")
        raise typer.Exit(1)


def _messages(file: Path | None, last: int) -> list[str]:
    """The last messages, one a line."""
    if file is None:
        text = THREAD
    else:
        if not file.is_file():
            raise ConfigError(f"--thread: no file {file}")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"--thread {file} is larger than {MAX_FILE_BYTES} bytes")
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as fault:
            raise InvalidRequest(f"--thread {file} is not UTF-8 text: {fault.reason}") from fault
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InvalidRequest(f"--thread {file} holds no messages")
    return lines[-last:]


def _close(told: list[Turned], opened: int, attempts: list[str], is_known: bool) -> None:
    tokens, seconds = sum(turn.tokens for turn in told), sum(turn.seconds for turn in told)
    put()
    proof = f"Connections opened: {opened}. Attempts refused: {len(attempts)}."
    put(paint(proof, "good" if opened == 0 else "bad", sys.stdout) + " Nothing left this machine.")
    if not is_known:
        say("The kernel does not list this process's sockets here; the count is the interpreter's.", "faint")
    say(f"{tokens} tokens in {seconds:.1f} s.", "faint")
    for turn in told:
        for event in turn.events:
            say(f"Open {event['path']} with any calendar program.", "faint")
    say("With your own messages: llama demo assistant --thread FILE", "faint")


def _as_json(model: str, messages: list[str], told: list[Turned], opened: int, attempts: list[str]) -> dict[str, Any]:
    summary, items, invited = told
    return {
        "model": model,
        "messages": messages,
        "summary": summary.text,
        "action_items": [line.removeprefix("- ") for line in items.text.splitlines() if line.strip()],
        "tool_calls": invited.calls,
        "events": invited.events,
        "answer": invited.text,
        "network": {"connections_opened": opened, "attempts_refused": attempts},
        "tokens": sum(turn.tokens for turn in told),
        "seconds": sum(turn.seconds for turn in told),
    }
