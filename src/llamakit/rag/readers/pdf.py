"""PDF through pypdf (extra `docs`), page by page."""

from __future__ import annotations

import io
import logging
from typing import Any

from llamakit.core.errors import DocumentError, MissingExtra

MAX_PAGES = 10_000


def read_pdf(document: bytes) -> dict[str, Any]:
    """The text layer of a PDF; a page that holds none stays empty."""
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise MissingExtra("reading PDF needs pypdf: pip install 'llamakit[docs]'") from error
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(io.BytesIO(document))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError("it is protected by a password")
        if len(reader.pages) > MAX_PAGES:
            raise DocumentError(f"it has {len(reader.pages)} pages; at most {MAX_PAGES} are read")
        pages = [{"number": n, "text": page.extract_text()} for n, page in enumerate(reader.pages, start=1)]
        title = reader.metadata.title if reader.metadata else None
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as error:
        raise DocumentError(f"its PDF structure is damaged: {type(error).__name__}: {error}") from error
    return {"title": title, "pages": pages}
