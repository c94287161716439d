from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny import tiny_checkpoint
from typer.testing import CliRunner

from llamakit.cli.main import app
from llamakit.kernels import native


@pytest.fixture
def source(tmp_path: Path) -> Path:
    if native.library() is None:
        pytest.skip("no compiled kernels here; build them with `python -m llamakit.kernels.cpu.build`")
    return tiny_checkpoint(tmp_path / "source")


def test_a_directory_or_a_file_by_the_name_of_the_target(source: Path, tmp_path: Path) -> None:
    run = CliRunner()
    done = run.invoke(app, ["quantize", str(source), str(tmp_path / "a"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["quantization"] == "int4"
    assert said["size_bytes"] < said["source_bytes"]
    assert "Next: llama run" in done.stderr
    assert (tmp_path / "a" / "model.packed").is_file()
    done = run.invoke(app, ["quantize", str(source), str(tmp_path / "a.gguf"), "--to", "Q8_0", "--json"])
    assert json.loads(done.stdout)["quantization"] == "q8_0"
    shown = run.invoke(app, ["show", str(tmp_path / "a.gguf"), "--json"])
    assert json.loads(shown.stdout)["runs_as"] == "stored, in integers"


def test_nothing_is_replaced_without_force(source: Path, tmp_path: Path) -> None:
    run, target = CliRunner(), tmp_path / "a.gguf"
    target.write_text("mine")
    done = run.invoke(app, ["quantize", str(source), str(target)])
    assert (done.exit_code, target.read_text()) == (2, "mine")
    assert "exists" in done.stderr
    assert run.invoke(app, ["quantize", str(source), str(target), "--to", "q4_0", "--force"]).exit_code == 0
    assert target.read_bytes()[:4] == b"GGUF"


def test_an_unknown_name_lists_the_known_ones(source: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["quantize", str(source), str(tmp_path / "a"), "--to", "int3"])
    assert done.exit_code == 2
    assert "q4_k_m" in done.stderr
    assert "int4" in done.stderr
