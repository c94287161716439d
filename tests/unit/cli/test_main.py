"""The root: what it lists, what it imports, and how errors leave it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

import llamakit
from llamakit.cli import main as root
from llamakit.cli import status
from llamakit.core.errors import ConfigError, DownloadError

SRC = Path(llamakit.__file__).parents[1]
HEAVY = ("torch", "numpy", "fastapi", "huggingface_hub", "tokenizers", "prompt_toolkit", "httpx2", "uvicorn", "psutil")


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages in memory after `llama <arguments>`, in a process of its own."""
    code = (
        "import sys; from llamakit.cli.main import main; sys.argv = ['llama', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code\n"
        "print('IMPORTED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": str(SRC), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LLAMA_HOME": "/nonexistent"},
    )
    return set(result.stdout.rpartition("IMPORTED")[2].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], [], ["run", "--help"], ["serve", "-h"], ["list", "--all"]]
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    assert imported_by(*arguments).isdisjoint(HEAVY)


def test_help_lists_every_command_in_sections(llama) -> None:
    result = llama("--help")
    assert result.exit_code == 0
    for name, (section, _, line) in root.COMMANDS.items():
        assert f"{name} " in result.output and line in result.output and f"{section}:" in result.output


def test_the_one_line_of_every_command_is_short_and_its_module_loads() -> None:
    for name, (_, _, line) in root.COMMANDS.items():
        assert len(line) < 70 and line.endswith("."), name
        command = root.build(name)
        assert command.name == name and command.help


def test_version(llama) -> None:
    assert llama("--version").output == f"llamakit {llamakit.__version__}\n"


def test_bare_llama_says_where_it_stands(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "is_listening", lambda host, port: True)
    result = llama()
    assert result.exit_code == 0
    assert "models  none" in result.output
    assert "running at http://127.0.0.1:8321" in result.output
    assert "llama pull llama3.2:1b" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rnu"], "no command 'rnu'; nearest: 'run'"),
        (["lsit"], "nearest: 'list'"),
        (["qqqqq"], "no command 'qqqqq'. See them with: llama --help"),
        (["pull"], "Missing argument"),
        (["pull", "--nope", "x"], "No such option"),
        (["bench", "--runs", "0"], "'--runs'"),
    ],
)
def test_misuse_is_2(llama, arguments: list[str], told: str) -> None:
    result = llama(*arguments)
    assert result.exit_code == 2
    assert told in result.output


@pytest.mark.parametrize(
    ("error", "code"), [(DownloadError("it broke"), 1), (ConfigError("it is wrong"), 2), (PermissionError("denied"), 1)]
)
def test_errors_are_one_message_and_a_code(llama, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(status, "show_status", fail)
    result = llama()
    assert result.exit_code == code
    assert result.stderr == f"error: {error}\n" and result.stdout == ""
    monkeypatch.setenv("LLAMA_DEBUG", "1")
    assert "Traceback" in llama().stderr


def test_ctrl_c_is_130(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "show_status", interrupt)
    assert llama().exit_code == 130


def test_a_bug_of_ours_is_a_message_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(status, "show_status", fail)
    monkeypatch.setattr(sys, "argv", ["llama"])
    with pytest.raises(SystemExit) as leave:
        root.main()
    assert leave.value.code == 1
    told = capsys.readouterr().err
    assert "RuntimeError: inside" in told and "This is a bug" in told and "Traceback" not in told
    monkeypatch.setenv("LLAMA_DEBUG", "1")
    with pytest.raises(RuntimeError):
        root.main()


def test_python_m_llamakit_is_the_same_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "llamakit", "--version"], capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(SRC), "PATH": "/usr/bin:/bin"}, check=True,
    )  # fmt: skip
    assert result.stdout == f"llamakit {llamakit.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_scripts(llama, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("_LLAMA_COMPLETE", "")
    result = llama("completion", shell)
    assert result.exit_code == 0 and "_LLAMA_COMPLETE" in result.stdout


def test_the_shell_is_offered_commands_and_models(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        "PYTHONPATH": str(SRC),
        "PATH": "/usr/bin:/bin",
        "_LLAMA_COMPLETE": "complete_bash",
        "HOME": "/nonexistent",
    }

    def offered(words: str, place: int) -> list[str]:
        result = subprocess.run(
            [sys.executable, "-m", "llamakit"], capture_output=True, text=True, timeout=60,
            env=environ | {"COMP_WORDS": words, "COMP_CWORD": str(place)},
        )  # fmt: skip
        return result.stdout.split()

    assert offered("llama p", 1) == ["ps", "pull"]
    assert "llama3.2:1b-instruct" in offered("llama run llama3.2", 2)


def test_commands_do_not_exit_by_themselves() -> None:
    """Exit codes are decided at the root; commands raise `typer.Exit` or an error."""
    for file in Path(root.__file__).parent.glob("*.py"):
        if file.name != "main.py":
            assert "sys.exit" not in file.read_text(), file
    assert issubclass(typer.Exit, RuntimeError)
