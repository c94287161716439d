"""`llama rag` in a process: what goes in, what is found, what failures say, and that nothing is loaded for it."""

from __future__ import annotations

import json
import sys

import pytest
from tests.unit.cli.conftest import Llama

from llamakit.api.inference import LoadedModel
from llamakit.cli.rag_answer import answer
from llamakit.core.errors import PromptTooLong
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.stack.vector_search import Found


@pytest.fixture
def notes(world):
    folder = world / "notes"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    (folder / "llamas.md").write_text("# Llamas\n\nLlamas live in the Andes. Their wool is soft.\n")
    (folder / "deep" / "banks.txt").write_text("The central bank sets the rate of interest.\n")
    (folder / "deep" / ".hidden" / "secret.txt").write_text("hidden")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 broken")
    (folder / "data.bin").write_bytes(b"\0\1\2")
    return folder


def data(result):
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


def test_documents_go_in_and_come_back(llama: Llama, notes):
    added = llama("rag", "add", "notes")
    assert added.exit_code == 1  # one failed
    assert added.stdout.strip() == "2 read, 0 unchanged, 1 failed, 1 skipped, in store default"
    assert "data.bin: no document of a known kind" in added.stderr
    assert "broken.pdf" in added.stderr and "PDF" in added.stderr
    assert "hidden" not in added.output
    found = data(llama("rag", "search", "soft", "wool", "-n", "1", "--json"))
    assert [(each["file"], each["page"]) for each in found] == [(str(notes / "llamas.md"), None)]
    start, end = found[0]["span"]
    assert (notes / "llamas.md").read_text()[start:end] == found[0]["text"]
    shown = llama("rag", "search", "interest rates", "--mode", "keyword").stdout
    assert shown.startswith("[1] banks.txt, 0-43") and "central bank" in shown


def test_what_has_not_changed_is_passed_over_and_what_has_takes_its_place(llama: Llama, notes):
    (notes / "broken.pdf").unlink()
    (notes / "data.bin").unlink()
    assert llama("rag", "add", "notes").exit_code == 0
    (notes / "llamas.md").write_text("Camels have humps.\n")
    again = data(llama("rag", "add", "notes", "notes/llamas.md", "--json"))
    states = {each["path"]: each["status"] for each in again["documents"]}
    assert states == {str(notes / "llamas.md"): "completed", str(notes / "deep" / "banks.txt"): "unchanged"}
    assert data(llama("rag", "search", "wool", "--mode", "keyword", "--json")) == []
    documents = data(llama("rag", "list", "--store", "default", "--json"))
    assert sorted(each["path"] for each in documents) == sorted(states)


def test_stores_are_listed_and_removed(llama: Llama, notes):
    llama("rag", "add", "notes/llamas.md", "--store", "animals")
    llama("rag", "add", "notes/deep")
    table = llama("rag", "list").stdout
    assert "animals" in table and "default" in table and "ngrams" in table
    assert llama("rag", "rm", "banks.txt").stdout.strip() == "removed 1 documents from store default"
    assert data(llama("rag", "list", "-s", "default", "--json")) == []
    assert "and the store" in llama("rag", "rm", "--all", "-s", "animals").stdout
    assert [store["name"] for store in data(llama("rag", "list", "--json"))] == ["default"]
    assert (notes / "llamas.md").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "nowhere"), 2, "no file or folder nowhere"),
        (("search", "x"), 1, "llama rag add PATH"),
        (("ask", "x", "--model", "no-such-model"), 1, "llama rag add PATH"),
        (("list", "--store", "none"), 1, "no store 'none'"),
        (("rm", "x", "--all"), 2, "--all"),
        (("rm",), 2, "--all"),
    ],
)
def test_what_cannot_be_done_says_what_can(llama: Llama, arguments, code, said):
    result = llama("rag", *arguments)
    assert result.exit_code == code and said in result.stderr, result.output


def test_a_name_of_no_document(llama: Llama, notes):
    llama("rag", "add", "notes/llamas.md")
    result = llama("rag", "rm", "llamas.md", "other.md")
    assert result.exit_code == 1 and "no document 'other.md'" in result.stderr
    assert len(data(llama("rag", "list", "-s", "default", "--json"))) == 1


def test_searching_loads_no_model(llama: Llama, notes, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert llama("rag", "add", "notes/llamas.md").exit_code == 0
    assert data(llama("rag", "search", "wool", "--json"))


def passage(text, n=1):
    return Found(
        file_id=f"file-{n}", filename=f"{n}.md", score=1.0, text=text, attributes={}, page=2, span=(0, len(text)),
        chunk_id=f"chunk-{n}",
    )  # fmt: skip


class Narrow(EchoInference):
    """Holds 600 tokens, which are bytes."""

    async def load(self, model, keep_alive=None):
        return LoadedModel(name=model, memory_bytes=0, context_length=600, device="cpu")


async def test_an_answer_is_asked_for_with_numbered_passages():
    pieces = []
    found = [passage("Wool is soft."), passage("Banks.", 2)]
    made = await answer(Narrow(EchoConfig(models=("echo",))), "echo", "What is soft?", found, pieces.append)
    assert made.text == "".join(pieces) and made.cited == found and not made.left_out
    assert made.text.startswith("What is soft?") and "[1] 1.md\nWool is soft.\n\n[2] 2.md\nBanks." in made.text


async def test_passages_without_room_are_left_out_and_named():
    found = [passage("x" * 100), passage("y" * 300, 2)]
    made = await answer(Narrow(EchoConfig(models=("echo",))), "echo", "?", found, None)
    assert made.cited == found[:1] and made.left_out == found[1:] and "yyy" not in made.text
    with pytest.raises(PromptTooLong, match="name a larger model"):
        await answer(Narrow(EchoConfig(models=("echo",))), "echo", "?", [passage("x" * 500)], None)
