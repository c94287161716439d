"""Text, tables and JSON with the standard library."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from llamakit.core.errors import DocumentError

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
          (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))  # fmt: skip


def decoded(document: bytes) -> str:
    """Text by its byte order mark, else UTF-8, else Windows-1252; line ends become `\\n`."""
    encoding = next((name for mark, name in _MARKS if document.startswith(mark)), "utf-8")
    try:
        text = document.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise DocumentError(f"it says {encoding} and is not: {error.reason} at byte {error.start}") from error
        if b"\0" in document[:65536]:
            raise DocumentError("it is not a text file: it holds binary zeros") from error
        text = document.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def one_page(text: str, title: str | None = None) -> dict[str, Any]:
    """A document without pages."""
    return {"title": title, "pages": [{"number": None, "text": text}]}


def read_text(document: bytes) -> dict[str, Any]:
    """Plain text, Markdown or source code, as it stands."""
    return one_page(decoded(document))


def read_csv(document: bytes) -> dict[str, Any]:
    """A table, one line a row, each value beside its column's name."""
    text = decoded(document)
    try:
        dialect = csv.Sniffer().sniff(text[:8192], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    return _table(text, dialect)


def read_tsv(document: bytes) -> dict[str, Any]:
    """The same with tabs between the values."""
    return _table(decoded(document), csv.excel_tab)


def _table(text: str, dialect: type[csv.Dialect] | csv.Dialect) -> dict[str, Any]:
    csv.field_size_limit(16 << 20)
    try:
        return one_page(labelled(csv.reader(io.StringIO(text), dialect)))
    except csv.Error as error:
        raise DocumentError(f"its table is damaged: {error}") from error


def labelled(rows: Iterable[Sequence[str]]) -> str:
    """Rows as text lines; where the first row names the columns, each value carries its name."""
    lines: list[str] = []
    names: list[str] | None = None
    for row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        if not any(cells):
            continue
        if names is None:
            names = cells if _are_names(cells) else []
            lines.append(" | ".join(cells))
        elif names:
            pairs = zip([*names, *[""] * len(cells)], cells, strict=False)
            lines.append("; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell))
        else:
            lines.append(" | ".join(cells))
    return "\n".join(lines)


def _are_names(cells: Sequence[str]) -> bool:
    """Whether a row reads like column names: all filled, all different, none a number."""
    return len(set(cells)) == len(cells) and all(cells) and not any(_is_number(cell) for cell in cells)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def read_json(document: bytes) -> dict[str, Any]:
    """JSON, indented, so that its structure can be cut at lines."""
    try:
        value = json.loads(decoded(document))
    except ValueError as error:
        raise DocumentError(f"it is not JSON: {error}") from error
    return one_page(json.dumps(value, ensure_ascii=False, indent=1))


def read_jsonl(document: bytes) -> dict[str, Any]:
    """One JSON value a line; each line becomes a block of its own."""
    lines = [line for line in decoded(document).split("\n") if line.strip()]
    try:
        values = [json.loads(line) for line in lines]
    except ValueError as error:
        raise DocumentError(f"a line of it is not JSON: {error}") from error
    return one_page("\n\n".join(json.dumps(value, ensure_ascii=False) for value in values))
