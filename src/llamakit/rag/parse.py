"""A file to pages of text: its kind is told from name and content, its reader runs in a killable child.

Knows kinds and limits; the readers know formats. Text stays in the document's order, and each chunk
cut from it later can say on which page and between which characters it stood.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from llamakit.core.errors import DocumentError
from llamakit.sandbox.child import ChildLimits, read_in_child

MAX_DOCUMENT_BYTES = 256 << 20

_BY_SUFFIX = {
    "text": ("txt", "text", "log", "rst", "org", "tex", "srt", "vtt"),
    "markdown": ("md", "markdown", "mdx"),
    "html": ("html", "htm", "xhtml"),
    "csv": ("csv",),
    "tsv": ("tsv", "tab"),
    "json": ("json", "geojson", "ipynb"),
    "jsonl": ("jsonl", "ndjson"),
    "pdf": ("pdf",),
    "docx": ("docx", "docm"),
    "pptx": ("pptx", "pptm"),
    "xlsx": ("xlsx", "xlsm"),
    "code": (
        "py", "pyi", "js", "mjs", "ts", "tsx", "jsx", "java", "kt", "swift", "c", "h", "cc", "cpp", "hpp", "cs", "go",
        "rs", "rb", "php", "pl", "lua", "r", "jl", "scala", "sh", "bash", "zsh", "ps1", "sql", "yaml", "yml", "toml",
        "ini", "cfg", "conf", "xml", "css", "scss", "proto", "tf", "dockerfile", "makefile", "cmake", "gradle", "vue",
    ),
}  # fmt: skip
_KIND_OF = {suffix: kind for kind, suffixes in _BY_SUFFIX.items() for suffix in suffixes}
_BY_MIME = {
    "text/plain": "text",
    "text/markdown": "markdown",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/json": "json",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_OFFICE = ("docx", "pptx", "xlsx")


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a document: a page, slide or sheet, or the whole of one that has none."""

    text: str
    number: int | None = None
    """From 1; None where the format has no pages."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document as text."""

    kind: str
    pages: tuple[Page, ...]
    title: str | None = None


def kind_of(name: str, document: bytes, mime: str | None = None) -> str:
    """The kind by content where that is certain, else by name, else by media type; `DocumentError` for none."""
    if document[:1024].lstrip().startswith(b"%PDF-"):
        return "pdf"
    path = PurePosixPath(name.lower())
    kind = _KIND_OF.get(path.suffix.lstrip(".") or path.name) or _BY_MIME.get((mime or "").partition(";")[0].strip())
    if kind is None and (mime or "").startswith("text/"):
        kind = "text"
    is_zip = document.startswith(b"PK\x03\x04")
    if kind in _OFFICE and is_zip:
        return kind
    if kind is None or kind == "pdf" or kind in _OFFICE or is_zip:
        known = ", ".join(_BY_SUFFIX)
        raise DocumentError(f"{name[:100]!r} is no document of a known kind; known are {known}")
    return kind


async def parse(name: str, document: bytes, *, mime: str | None = None, limits: ChildLimits | None = None) -> Parsed:
    """Read a document in a child process.

    Raises `DocumentError` with the reason, `SandboxUnavailable` where no child can be locked down,
    `MissingExtra` where a format's library is not installed.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise DocumentError(f"it has {len(document)} bytes; at most {MAX_DOCUMENT_BYTES} are read")
    kind = kind_of(name, document, mime)
    answer = await read_in_child("llamakit.rag.readers.read:read", document, {"kind": kind}, limits=limits)
    match answer.value:
        case {"pages": list(pages), "title": str() | None as title}:
            return Parsed(kind, tuple(_page(page) for page in pages), title)
        case _:
            raise DocumentError("the reader's answer makes no sense")


def _page(found: object) -> Page:
    match found:
        case {"text": str(text), "number": int() | None as number}:
            return Page(text, number)
        case _:
            raise DocumentError("the reader's answer makes no sense")
