"""`llama rag` on the model of the package: from files to an answer with where it stands, with nothing downloaded."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from llamakit.cli.main import app

THREAD = "Ann: The dentist is on Friday at 3 pm.\nBob: Thanks, I will be there.\n"


def test_ask_from_files(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLAMA_OFFLINE", "1")
    (tmp_path / "thread.txt").write_text(THREAD)
    (tmp_path / "llamas.md").write_text("# Llamas\n\nLlamas live in the Andes. Their wool is soft.\n")
    llama = CliRunner()
    assert llama.invoke(app, ["rag", "add", str(tmp_path / "thread.txt"), str(tmp_path / "llamas.md")]).exit_code == 0
    asked = llama.invoke(app, ["rag", "ask", "When is the dentist?", "--json"])
    made = json.loads(asked.stdout)
    assert "Friday at 3 pm" in made["answer"] and made["model"] == "cria"
    first = made["citations"][0]
    assert first["file"] == str(tmp_path / "thread.txt") and first["span"] == [0, len(THREAD.strip())]
    spoken = llama.invoke(app, ["rag", "ask", "When is the dentist?"])
    assert "Friday" in spoken.stdout and "[1] thread.txt, 0-68" in spoken.stdout
