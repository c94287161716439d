"""The root of the command line: the list of commands, errors as one message, exit codes.

Exit codes: 0 good, 1 failed, 2 misuse, 130 interrupted; decided here and nowhere else. Nothing heavy is imported
before a command asks for it, so that `llama --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llamakit import __version__
from llamakit.cli.app import new_app
from llamakit.core.errors import ConfigError, InvalidRequest, LlamakitError

FAILED, MISUSE, INTERRUPTED = 1, 2, 130

# fmt: off
COMMANDS: dict[str, tuple[str, str, str]] = {
    # name         section        module       one line
    "run":        ("Talk",        "run",       "Chat with a model, or answer one prompt."),
    "demo":       ("Talk",        "demo",      "A thread summed up, its action items, an invitation; offline."),
    "serve":      ("Talk",        "serve",     "Answer programs over the OpenAI API."),
    "key":        ("Talk",        "key",       "API keys of the server: create, list, revoke."),
    "stack":      ("Talk",        "stack",     "Servers described by a file: build, configure, run."),
    "rag":        ("Talk",        "rag",       "Documents of this machine: add, search, ask, list, rm."),
    "ps":         ("Talk",        "ps",        "Models that the running server has in memory."),
    "stop":       ("Talk",        "stop",      "Unload a model from the running server."),
    "pull":       ("Models",      "pull",      "Download a model."),
    "list":       ("Models",      "list",      "Models on this machine; --all: every known one."),
    "show":       ("Models",      "show",      "What a model is: shape, context, licence, names."),
    "rm":         ("Models",      "rm",        "Remove a model from this machine."),
    "create":     ("Models",      "create",    "Make a model from a Modelfile."),
    "convert":    ("Models",      "convert",   "Write a checkpoint in another format."),
    "quantize":   ("Models",      "quantize",  "Write a checkpoint with smaller weights."),
    "model":      ("Models",      "model",     "Meta's verbs: list, download, describe, prompt-format, ..."),
    "eval":       ("This machine","eval",      "Measure a model: what packing its weights costs."),
    "bench":      ("This machine","bench",     "Tokens per second, beside what the machine can do."),
    "doctor":     ("This machine","doctor",    "Check the installation."),
    "env":        ("This machine","env",       "Versions, places and variables, for a bug report."),
    "config":     ("This machine","config",    "Settings and where each came from."),
    "completion": ("This machine","completion","Print the completion script of a shell."),
}
# fmt: on


def build(name: str) -> Any:
    """The command `name`, its module loaded now: `command` for one command, `app` for a group of them."""
    module = importlib.import_module(f"llamakit.cli.{COMMANDS[name][1]}")
    app = getattr(module, "app", None)
    if app is None:
        app = new_app()
        app.command(name)(module.command)
    command = typer.main.get_command(app)
    command.name, command.short_help = name, COMMANDS[name][2]
    return command


class Root(TyperGroup):
    """Loads a subcommand when it is used; turns errors into messages and exit codes."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return build(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from llamakit.core.config import nearest

            ctx.fail(f"no command {args[0]!r}{nearest(args[0], COMMANDS)}. See them with: llama --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for section in dict.fromkeys(section for section, _, _ in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name, line) for name, (of, _, line) in COMMANDS.items() if of == section])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise
        except LlamakitError as error:
            raise typer.Exit(
                _report(error, MISUSE if isinstance(error, ConfigError | InvalidRequest) else FAILED)
            ) from error
        except OSError as error:
            raise typer.Exit(_report(error, FAILED)) from error


def _report(error: Exception, code: int) -> int:
    """Tell the person; with LLAMA_DEBUG=1 the traceback too."""
    if is_debugging():
        traceback.print_exception(error)
    from llamakit.cli.terminal import paint

    print(f"{paint('error:', 'bad', sys.stderr)} {error}", file=sys.stderr)
    return code


def is_debugging() -> bool:
    """Whether tracebacks are wanted; read from the environment alone, since settings may be what is broken."""
    return os.environ.get("LLAMA_DEBUG", "").lower() in ("1", "true", "yes", "on")


def _print_version(value: bool) -> None:
    if value:
        print(f"llamakit {__version__}")
        raise typer.Exit()


app = new_app(cls=Root, invoke_without_command=True, add_completion=True)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    """\b
    llama run                          chat with the model that comes with the package
    llama run llama3.2:1b "Hi there"   pull Llama 3.2 1B if it is not here, and answer

    Run, serve, make and guard Llama models on hardware you own.
    """
    if ctx.invoked_subcommand is None:
        from llamakit.cli.status import show_status

        show_status()


def main() -> None:
    """Entry point of the `llama` script and of `python -m llamakit`."""
    try:
        app(prog_name="llama")
    except Exception as error:
        if is_debugging():
            raise
        print(
            f"error: llamakit failed inside ({type(error).__name__}: {error}). This is a bug; "
            "please report it with the output of the same command under LLAMA_DEBUG=1, and of `llama env`",
            file=sys.stderr,
        )
        sys.exit(FAILED)
