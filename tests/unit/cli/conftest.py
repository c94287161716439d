"""The command line in a process, in a world of its own: data, cache and settings lie in a temporary directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llamakit.cli.main import app
from llamakit.hub import embedded

Llama = Callable[..., Result]


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No setting of this machine is seen, and nothing outside the directory is written."""
    for name in list(os.environ):
        if name.startswith(("LLAMA_", "HF_", "HUGGINGFACE_", "HUGGING_FACE_")) or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LLAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(embedded, "ROOT", tmp_path / "embedded")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def llama() -> Llama:
    """Runs one command: `llama("list", "--json")`."""

    def run(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=input, prog_name="llama")

    return run
