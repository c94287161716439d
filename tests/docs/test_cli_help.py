"""The help of every command: opens with two examples, and every example is a command line that is understood."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from llamakit.cli import main as root


def _commands() -> list[tuple[str, Any]]:
    """Every command with its full name, those of groups too."""
    found: list[tuple[str, Any]] = []
    for name in root.COMMANDS:
        command = root.build(name)
        inner = getattr(command, "commands", None)
        found += [(f"{name} {sub}", each) for sub, each in inner.items()] if inner else [(name, command)]
    return found


COMMANDS = _commands()


def _examples(command: Any) -> list[str]:
    """The lines at the top of a help text, up to the first empty one."""
    lines = command.help.removeprefix("\b").strip("\n").splitlines()
    return [line.strip() for line in lines[: next((n for n, line in enumerate(lines) if not line.strip()), len(lines))]]


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_help_opens_with_two_examples(name: str, command: Any) -> None:
    examples = _examples(command)
    assert len(examples) == 2
    assert all(f"llama {name}" in example for example in examples)
    result = CliRunner().invoke(root.app, [*name.split(), "--help"], prog_name="llama")
    assert result.exit_code == 0
    position = [result.output.index(example) for example in examples]
    assert position == sorted(position) and position[-1] < result.output.index("Options:")


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_examples_are_understood(name: str, command: Any) -> None:
    for example in _examples(command):
        line = example.partition(f"llama {name}")[2]
        words = shlex.split(line.partition(" >")[0].partition(")")[0].replace('"$', "$"), posix=True) if line else []
        command.make_context(name, words).close()


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_option_and_argument_is_explained(name: str, command: Any) -> None:
    with command.make_context(name, [], resilient_parsing=True) as ctx:
        for parameter in command.get_params(ctx):
            record = parameter.get_help_record(ctx)
            assert record is None or record[1].strip(), f"{name}: {parameter.name} has no help"


def test_no_help_line_is_wider_than_a_terminal() -> None:
    for name, _ in COMMANDS:
        output = CliRunner().invoke(root.app, [*name.split(), "--help"], prog_name="llama").output
        assert max(len(line) for line in output.splitlines()) <= 120, name
