"""`llama stack configure`: the values a distribution asks for, asked for one by one and kept in a file of one's own."""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamakit.cli.terminal import is_terminal, say
from llamakit.core.errors import ConfigError

if TYPE_CHECKING:
    from llamakit.stack.substitution import Variable

_PLAIN = re.compile(r"[\w./:@%+=,~?&*!-]+", re.ASCII)
"""Values that mean themselves in YAML."""


def command(
    name: Annotated[str, typer.Argument(help="Name of a distribution, or path of a file.", metavar="DISTRO|FILE")],
    values: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of a variable; may be repeated; nobody is asked.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write, instead of your own.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take --set and defaults.")] = False,
) -> None:
    """\b
    llama stack configure vllm
    llama stack configure onprem --set VLLM_URL=http://10.0.0.5:8000 --set LLAMA_PORT=9000 --yes

    Ask for what a distribution takes from the environment and write it as a file of your own, which `llama stack run`
    then finds under the same name. Variables of the environment still come first. An empty answer leaves a value as
    it is; what is secret is better left to the environment.
    """
    from llamakit.core.files import write_durably
    from llamakit.stack import distribution_file
    from llamakit.stack.packaging import example_environment
    from llamakit.stack.substitution import every_variable

    source = distribution_file.find(name)
    given = _given(values or [])
    written = source.values()
    known = {variable.name for variable in every_variable(written)}
    for variable in given:
        if variable not in known:
            from llamakit.core.config import nearest

            raise ConfigError(
                f"{source.name} reads no variable {variable!r}{nearest(variable, known)}. "
                f"It reads: {', '.join(sorted(known))}"
            )
    if not yes and not values:
        _ask(written, given)
    text = _filled(source.text, given)
    path = output or distribution_file.own_folder() / f"{source.name}{distribution_file.SUFFIX}"
    # What is wrong is told now, not at the next start.
    made = distribution_file.Source(name=path.stem, place=str(path), text=text)
    distribution_file.read(made, example_environment(made.values()))
    before = os.umask(0o077)  # it may hold keys
    try:
        write_durably(path, text.encode())
    finally:
        os.umask(before)
    say(f"{path} is written.", "good")
    if missing := distribution_file.asks_for(made):
        say(f"Still to be set in the environment: {', '.join(missing)}", "warn")
    say(f"Start it with: llama stack run {source.name if output is None else path}")


def _ask(written: dict[str, Any], given: dict[str, str]) -> None:
    """Ask for each variable in turn; an answer may bring in entries that ask for more."""
    from llamakit.stack.substitution import variables

    asked: set[str] = set(given)
    while todo := [v for v in variables(written, given) if v.name not in asked]:
        variable = todo[0]
        asked.add(variable.name)
        answer = _answer(variable)
        if answer:
            _check_value(variable.name, answer)
            given[variable.name] = answer


def _answer(variable: Variable) -> str:
    from llamakit.stack.packaging import is_secret

    if os.environ.get(variable.name):
        say(f"{variable.name} is set in the environment, and stays there.", "faint")
        return ""
    what = {
        "required": "must be set; Enter leaves it to the environment",
        "default": f"Enter keeps {variable.default or 'nothing'}",
        "switch": f"brings in {variable.where.rpartition('.')[0] or variable.where}; Enter leaves it out",
    }[variable.need]
    question = f"{variable.name} ({what}): "
    if is_secret(variable.name) and is_terminal(sys.stdin):
        return getpass.getpass(question, stream=sys.stderr).strip()
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _filled(text: str, given: dict[str, str]) -> str:
    """The text with the values as defaults; comments and everything else stay."""
    for name, value in given.items():
        text = re.sub(rf"\$\{{env\.{name}(?::=[^{{}}]*)?\}}", lambda _, n=name, v=value: f"${{env.{n}:={v}}}", text)
        text = re.sub(rf"\$\{{env\.{name}:\+([^{{}}]*)\}}", lambda match: match[1], text)
    return text


def _given(texts: list[str]) -> dict[str, str]:
    made = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ConfigError(f"--set takes NAME=VALUE, got {name!r}")
        _check_value(name, value)
        made[name] = value
    return made


def _check_value(name: str, value: str) -> None:
    if _PLAIN.fullmatch(value) is None or value.endswith(":"):
        raise ConfigError(
            f"the value of {name} holds characters that a file like this cannot; set the variable {name} instead"
        )
