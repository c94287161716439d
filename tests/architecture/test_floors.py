"""The house keeps its floors: imports only go down, and light commands stay light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_imports_only_go_down() -> None:
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


@pytest.mark.parametrize("room", ["core", "api", "text", "hub", "data", "evals", "stack", "server", "cli.main"])
def test_the_service_wing_starts_without_torch(room: str) -> None:
    code = f"import sys, llamakit.{room}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("word", ["pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib"])
def test_no_room_imports_a_deserialiser_of_objects(word: str) -> None:
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert f"import {word}" not in text and f"from {word} " not in text, f"{path} uses {word}"
        assert "torch.load(" not in text, f"{path} calls torch.load"


SPEAKS_HTTP = {"outbound", "hub", "cli", "agents"}
"""The guarded client; downloads from the one configured hub; commands that talk to the person's own server. Agents hand
the MCP library a client over the guarded transport."""


@pytest.mark.parametrize("call", ["httpx2.AsyncClient(", "httpx2.Client(", "urllib.request", "http.client"])
def test_only_the_outbound_room_reaches_other_hosts(call: str) -> None:
    rooms = ROOT / "src" / "llamakit"
    users = {
        path.relative_to(rooms).parts[0]
        for path in rooms.rglob("*.py")
        if any(f" {call}" in line or f"({call}" in line for line in path.read_text("utf-8").splitlines())
    }
    assert users <= SPEAKS_HTTP
