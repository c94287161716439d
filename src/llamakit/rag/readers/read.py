"""What the child process runs: the kind of a document to the reader that knows it, bytes to pages.

The answer is plain JSON: `{"title": ..., "pages": [{"number": ..., "text": ...}]}`. Text keeps its
structure as Markdown does: `#` before headings, `-` before list items, blank lines between blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamakit.core.errors import DocumentError
from llamakit.rag.readers import html, office, pdf, plain

READERS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "text": plain.read_text,
    "markdown": plain.read_text,
    "code": plain.read_text,
    "csv": plain.read_csv,
    "tsv": plain.read_tsv,
    "json": plain.read_json,
    "jsonl": plain.read_jsonl,
    "html": html.read_html,
    "docx": office.read_docx,
    "pptx": office.read_pptx,
    "xlsx": office.read_xlsx,
    "pdf": pdf.read_pdf,
}


def read(document: bytes, *, kind: str) -> dict[str, Any]:
    """The pages of a document; raises `DocumentError` for one that holds no text."""
    found = READERS[kind](document)
    if not any(page["text"].strip() for page in found["pages"]):
        raise DocumentError("it holds no text (a scan or an empty file); recognise its text first")
    return found
