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


def test_what_packing_costs_as_a_table_and_as_json(source: Path, tmp_path: Path) -> None:
    run, text = CliRunner(), tmp_path / "text.txt"
    text.write_text("Llamas carry wool over the mountains. " * 20, encoding="utf-8")
    arguments = ["eval", "quant", str(source), "--text", str(text), "--tokens", "300", "--window", "64"]
    done = run.invoke(app, [*arguments, "--json", "--schemes", "int8,q4_0,float32"])
    assert done.exit_code == 0, done.output
    rows = {row["weights"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["float32"]["kl"] == 0.0
    assert 0 < rows["int8"]["kl"] < rows["q4_0"]["kl"]
    assert rows["int8"]["tokens"] == 300
    assert rows["q4_0"]["size_bytes"] < rows["int8"]["size_bytes"] < rows["float32"]["size_bytes"]
    rounded = run.invoke(app, [*arguments, "--json", "--schemes", "float32", "--kv", "int8"])
    assert 0 < json.loads(rounded.stdout)["rows"][0]["kl"] < rows["q4_0"]["kl"]
    done = run.invoke(app, [*arguments, "--schemes", "int4", "--against", "bf16"])
    assert done.stdout.splitlines()[0].split()[:3] == ["weights", "size", "perplexity"]


def test_a_quantized_file_is_compared_with_the_original(source: Path, tmp_path: Path) -> None:
    run, file = CliRunner(), tmp_path / "x.gguf"
    assert run.invoke(app, ["quantize", str(source), str(file), "--to", "q8_0"]).exit_code == 0
    arguments = ["eval", "quant", str(file), "--tokens", "100", "--json"]
    done = run.invoke(app, [*arguments, "--against", str(source)])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["rows"]
    assert row["weights"] == "stored"
    assert 0 < row["kl"] < 0.1
    assert "quantized already" in run.invoke(app, arguments).stderr


def test_wishes_that_do_not_fit_are_misuse(source: Path, tmp_path: Path) -> None:
    run, binary = CliRunner(), tmp_path / "x.bin"
    binary.write_bytes(b"\xff\xfe")
    for more, message in (
        (["--schemes", "int3"], "got int3"),
        (["--schemes", ","], "got none"),
        (["--schemes", "stored"], "stores plain numbers"),
        (["--kv", "int3"], "--kv wants int8"),
        (["--text", str(tmp_path / "none")], "no file"),
        (["--text", str(binary)], "not UTF-8"),
    ):
        done = run.invoke(app, ["eval", "quant", str(source), "--tokens", "20", *more])
        assert done.exit_code == 2, done.output
        assert message in done.stderr
