"""HTML to text: what a person would read, with its headings, lists and tables; scripts and styles left out."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from llamakit.rag.readers.plain import decoded, one_page

_SILENT = {"script", "style", "noscript", "template", "svg", "math", "iframe", "object", "select", "datalist"}
_BLOCKS = {"p", "div", "section", "article", "main", "header", "footer", "nav", "aside", "table", "tr", "ul", "ol",
           "dl", "dt", "dd", "li", "blockquote", "figure", "figcaption", "form", "fieldset", "address", "details",
           "summary", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "br", "pre", "body", "title"}  # fmt: skip
_PARAGRAPHS = _BLOCKS - {"li", "tr", "br", "dt", "dd"}
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


def read_html(document: bytes) -> dict[str, Any]:
    """A web page."""
    collector = _Collector()
    collector.feed(_text(document))
    collector.close()
    return one_page(collector.text(), collector.title)


def _text(document: bytes) -> str:
    declared = _CHARSET.search(document[:4096])
    if declared is not None and not document.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        try:
            return document.decode(declared.group(1).decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass  # the page is wrong about itself; the bytes decide
    return decoded(document)


class _Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: str | None = None
        self._parts: list[str] = []
        self._silent = 0
        self._verbatim = 0
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        if tag == "title":
            self._in_title = True
        if tag in _BLOCKS:
            self._break(2 if tag in _PARAGRAPHS else 1)
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self._parts.append("#" * int(tag[1]) + " ")
        elif tag == "li":
            self._parts.append("- ")
        elif tag in ("td", "th") and self._parts and not self._parts[-1].endswith("\n"):
            self._parts.append(" | ")
        elif tag == "pre":
            self._verbatim += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(self._silent - 1, 0)
        if tag == "title":
            self._in_title = False
        if tag == "pre":
            self._verbatim = max(self._verbatim - 1, 0)
        if tag in _PARAGRAPHS:
            self._break(2)

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title = ((self.title or "") + data).strip()[:500] or None
        elif self._silent:
            return
        elif self._verbatim:
            self._parts.append(data)
        else:
            data = re.sub(r"\s+", " ", data)
            at_line_start = not self._parts or self._parts[-1].endswith(("\n", "# ", "- "))
            self._parts.append(data.lstrip() if at_line_start else data)

    def text(self) -> str:
        """Everything said so far, its blank runs made small."""
        joined = re.sub(r"[ \t]+\n", "\n", "".join(self._parts))
        return re.sub(r"\n{3,}", "\n\n", joined).strip()

    def _break(self, lines: int) -> None:
        if self._parts:
            self._parts.append("\n" * lines)
