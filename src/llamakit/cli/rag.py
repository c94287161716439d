"""`llama rag`: documents of this machine, searched and asked about, with where each answer stands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from llamakit.cli.app import new_app
from llamakit.cli.terminal import paint, put, put_json, put_table, say, size
from llamakit.core.errors import InvalidRequest

if TYPE_CHECKING:
    from llamakit.cli.rag_store import Document, Shelf
    from llamakit.stack.vector_search import Found

T = TypeVar("T")
FAILED = 1
DEFAULT = "default"
SHOWN_CHARS = 300

app = new_app(no_args_is_help=True, help="Documents of this machine: add, search, ask, list, rm.")

Store = Annotated[str, typer.Option("--store", "-s", help="Name of the store; `add` makes one that is not there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Mode = Annotated[
    Literal["hybrid", "vector", "keyword"], typer.Option(help="By words and vectors, by vectors, or by words alone.")
]


@app.command("add", short_help="Read files and folders into a store.")
def add(
    paths: Annotated[list[Path], typer.Argument(help="Files, and folders with all that lies in them.")],
    store: Store = DEFAULT,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            help="Model that makes the vectors of a new store: all-minilm-l6-v2 where it is installed, else ngrams.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """\b
    llama rag add notes/ report.pdf
    llama rag add ~/papers --store papers --json

    Read documents into a store: text, Markdown, HTML, PDF, DOCX, PPTX, XLSX, CSV, JSON and code. What has not changed
    is passed over, what has changed takes the place of the old. Each one ends as done, or as failed with the reason.
    """
    from llamakit.cli.rag_store import find, opened

    found = find(paths)
    good, skipped = [each.path for each in found if each.reason is None], [each for each in found if each.reason]

    async def work() -> list[Document]:
        async with opened(store, embedder=embedder) as shelf:
            await shelf.make(embedder)
            ended = []
            async for document in shelf.add(good):
                ended.append(document)
                _tell(document, f"{len(ended)}/{len(good)}")
            return ended

    for each in skipped:
        say(f"skipped {each.path}: {each.reason}", "warn")
    documents = asyncio.run(work())
    counts = {status: sum(d.status == status for d in documents) for status in ("completed", "unchanged", "failed")}
    if as_json:
        left_out = [{"path": str(each.path), "reason": each.reason} for each in skipped]
        put_json({"store": store, "documents": [_facts(each) for each in documents], "skipped": left_out})
    else:
        put(f"{counts['completed']} read, {counts['unchanged']} unchanged, {counts['failed']} failed, "
            f"{len(skipped)} skipped, in store {store}")  # fmt: skip
        if counts["completed"]:
            say(f'Next: llama rag search "what you look for"{_flag(store)}', "faint")
    if counts["failed"]:
        raise typer.Exit(FAILED)


@app.command("search", short_help="The passages that fit a question best.")
def search(
    query: Annotated[list[str], typer.Argument(help="What to look for.")],
    store: Store = DEFAULT,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=50, help="Passages at most.")] = 5,
    mode: Mode = "hybrid",
    as_json: AsJson = False,
) -> None:
    """\b
    llama rag search "soft wool"
    llama rag search interest rate -n 3 --mode keyword --json

    Show the passages that fit best, each with its file, page and characters.
    """
    found = _with_store(store, lambda shelf: shelf.search(" ".join(query), limit=limit, mode=mode))
    if as_json:
        put_json([_cited(each) for each in found])
        return
    if not found:
        say("Nothing fits.")
    for number, each in enumerate(found, 1):
        put(paint(f"[{number}] {_place(each)}  {each.score:.2f}", "strong", _stdout()))
        text = " ".join(each.text.split())
        put(text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…")
        put()


@app.command("ask", short_help="An answer from the passages that fit, with where they stand.")
def ask(
    question: Annotated[list[str], typer.Argument(help="The question.")],
    store: Store = DEFAULT,
    model: Annotated[str, typer.Option("--model", "-m", help="Model that answers.", envvar="LLAMA_MODEL")] = "cria",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=50, help="Passages at most.")] = 4,
    mode: Mode = "hybrid",
    as_json: AsJson = False,
) -> None:
    """\b
    llama rag ask "When is the dentist?"
    llama rag ask "What did we promise the customer?" --store contracts --model llama3.2:3b

    Answer a question from the documents alone, in this process. Passages that do not fit the model's context are left
    out and named. The model of the package is very small: for real documents name a larger one.
    """
    from llamakit.cli.rag_answer import answer
    from llamakit.cli.rag_store import opened

    text = " ".join(question)
    show = None if as_json else lambda piece: print(piece, end="", flush=True)

    async def work() -> Any:
        async with opened(store, model=model) as shelf:
            found = await shelf.search(text, limit=limit, mode=mode)
            if not found:
                raise InvalidRequest(f"store {store!r} holds nothing that fits; add documents: llama rag add PATH")
            return await answer(shelf.stack.inference, model, text, found, show)

    made = asyncio.run(work())
    for each in made.left_out:
        say(f"left out, {model} has no room for it: {_place(each)}", "warn")
    if as_json:
        put_json({"answer": made.text, "model": model, "citations": [_cited(each) for each in made.cited]})
        return
    put("\n")
    for number, each in enumerate(made.cited, 1):
        put(paint(f"[{number}] {_place(each)}", "faint", _stdout()))


@app.command("list", short_help="The stores, or the documents of one.")
def list_(
    store: Annotated[str | None, typer.Option("--store", "-s", help="Show the documents of this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """\b
    llama rag list
    llama rag list --store default --json

    List the stores, or the documents of one with what became of each.
    """
    if store is not None:
        documents = _with_store(store, lambda shelf: shelf.documents())
        if as_json:
            put_json([_facts(each) for each in documents])
        elif documents:
            rows = [(d.path, d.status, size(d.usage_bytes), d.reason or "") for d in documents]
            put_table(("DOCUMENT", "STATUS", "SIZE", "REASON"), rows)
        else:
            say("It holds no documents.")
        return
    from llamakit.cli.rag_store import stores

    found = asyncio.run(stores())
    if as_json:
        put_json(found)
    elif found:
        put_table(("STORE", "DOCUMENTS", "FAILED", "SIZE", "EMBEDDER", "ID"), [_row(each) for each in found])
    else:
        say("No stores are here yet. Make one with: llama rag add PATH")


@app.command("rm", short_help="Remove documents, or a whole store.")
def rm(
    documents: Annotated[list[str] | None, typer.Argument(help="Paths, file names or ids.")] = None,
    store: Store = DEFAULT,
    everything: Annotated[bool, typer.Option("--all", help="The store with all its documents.")] = False,
    as_json: AsJson = False,
) -> None:
    """\b
    llama rag rm report.pdf
    llama rag rm --all --store papers

    Remove documents from a store, or the store itself. The files they were read from stay.
    """
    if everything == bool(documents):
        raise InvalidRequest("name documents to remove, or --all for the whole store")
    gone = _with_store(store, lambda shelf: shelf.drop() if everything else shelf.remove(documents or []))
    if as_json:
        put_json([_facts(each) for each in gone])
        return
    put(f"removed {len(gone)} documents from store {store}" + (" and the store" if everything else ""))


def _with_store(name: str, work: Callable[[Shelf], Awaitable[T]]) -> T:
    from llamakit.cli.rag_store import opened

    async def run() -> T:
        async with opened(name) as shelf:
            return await work(shelf)

    return asyncio.run(run())


def _tell(document: Document, place: str) -> None:
    if document.status == "failed":
        say(f"{place} failed {document.path}: {document.reason}", "bad")
    elif document.status == "completed":
        say(f"{place} read {document.path}", "faint")


def _facts(document: Document) -> dict[str, Any]:
    return {
        "file_id": document.file_id,
        "path": document.path,
        "status": document.status,
        "reason": document.reason,
        "usage_bytes": document.usage_bytes,
    }


def _cited(found: Found) -> dict[str, Any]:
    return {
        "file": found.attributes.get("path", found.filename),
        "file_id": found.file_id,
        "page": found.page,
        "span": list(found.span),
        "score": round(found.score, 4),
        "text": found.text,
    }


def _place(found: Found) -> str:
    """File, page and characters, such as `report.pdf, page 3, 120-480`."""
    page = "" if found.page is None else f", page {found.page}"
    return f"{found.filename}{page}, {found.span[0]}-{found.span[1]}"


def _row(store: dict[str, Any]) -> Sequence[str]:
    counts = store["file_counts"]
    name = store["name"] or "(no name)"
    return (
        name, str(counts["completed"]), str(counts["failed"]), size(store["usage_bytes"]), store["embedding_model"],
        store["id"],
    )  # fmt: skip


def _flag(store: str) -> str:
    return "" if store == DEFAULT else f" --store {store}"


def _stdout() -> Any:
    import sys

    return sys.stdout
