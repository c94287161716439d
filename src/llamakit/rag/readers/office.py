"""DOCX, PPTX and XLSX: a zip of XML files, read with the standard library and with limits.

Sizes are checked before anything is inflated and again while it is; a document type declaration is
refused before its entities are read. Nothing is written to the disk and no link is followed.
"""

from __future__ import annotations

import datetime
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from llamakit.core.errors import DocumentError
from llamakit.rag.readers.plain import labelled

MAX_MEMBERS = 20_000
MAX_MEMBER_BYTES = 64 << 20
MAX_RATIO = 200
"""Inflated to packed size of one member; text in XML packs some ten times."""

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_S = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_DATE_FORMATS = {*range(14, 23), *range(45, 48)}
"""Built-in number formats that show a date or time (ECMA-376, 18.8.30)."""


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Office files have none; the only use of one is harm."""
        raise DocumentError("its XML declares a document type, which office files never do")


class _Package:
    """The members of an office file."""

    def __init__(self, document: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(document))
            members = self._zip.infolist()
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise DocumentError(f"it is not an office file: {error}") from error
        if len(members) > MAX_MEMBERS:
            raise DocumentError(f"it holds {len(members)} members; an office file has fewer than {MAX_MEMBERS}")
        self.names = {member.filename for member in members}

    def xml(self, name: str) -> ElementTree.Element:
        """One member, parsed."""
        parser = ElementTree.XMLParser(target=_Builder())
        try:
            parser.feed(self._inflated(name))
            root = parser.close()
        except ElementTree.ParseError as error:
            raise DocumentError(f"its part {name} is damaged: {error}") from error
        return root

    def _inflated(self, name: str) -> bytes:
        try:
            info = self._zip.getinfo(name)
        except KeyError as error:
            raise DocumentError(f"its part {name} is missing") from error
        if info.file_size > MAX_MEMBER_BYTES or info.file_size > MAX_RATIO * max(info.compress_size, 1024):
            raise DocumentError(
                f"its part {name} would grow from {info.compress_size} to {info.file_size} bytes; that is a bomb"
            )
        if info.flag_bits & 1:
            raise DocumentError("it is protected by a password")
        try:
            with self._zip.open(info) as member:
                data = member.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, RuntimeError) as error:
            raise DocumentError(f"its part {name} is damaged: {error}") from error
        if len(data) > info.file_size:
            raise DocumentError(f"its part {name} is larger than it says")
        return data

    def targets(self, part: str) -> dict[str, str]:
        """Relation ids of a part, such as `xl/workbook.xml`, to the members they name."""
        folder, _, file = part.rpartition("/")
        relations = f"{folder}/_rels/{file}.rels"
        if relations not in self.names:
            return {}
        found = {}
        for relation in self.xml(relations):
            target = relation.get("Target", "")
            path = target.lstrip("/") if target.startswith("/") else f"{folder}/{target}"
            found[relation.get("Id", "")] = path
        return found


def read_docx(document: bytes) -> dict[str, Any]:
    """A Word document; pages as Word last laid them out, if it said so."""
    body = _Package(document).xml("word/document.xml").find(f"{_W}body")
    if body is None:
        raise DocumentError("its text is missing")
    pages: list[list[str]] = [[]]
    for block in body:
        if block.tag == f"{_W}tbl":
            rows = [["".join(_runs(cell)) for cell in row.iter(f"{_W}tc")] for row in block.iter(f"{_W}tr")]
            pages[-1].append(labelled(rows))
        elif block.tag == f"{_W}p":
            if _breaks_page(block) and pages[-1]:
                pages.append([])
            text = "".join(_runs(block)).strip()
            if text:
                pages[-1].append(_prefix(block) + text)
    numbered = len(pages) > 1
    return {
        "title": None,
        "pages": [
            {"number": n if numbered else None, "text": "\n\n".join(blocks)} for n, blocks in enumerate(pages, start=1)
        ],
    }


def _runs(element: ElementTree.Element) -> Iterator[str]:
    for node in element.iter():
        if node.tag == f"{_W}t":
            yield node.text or ""
        elif node.tag == f"{_W}tab":
            yield "\t"
        elif node.tag == f"{_W}br":
            yield "\n"


def _breaks_page(paragraph: ElementTree.Element) -> bool:
    if paragraph.find(f".//{_W}lastRenderedPageBreak") is not None:
        return True
    return any(node.get(f"{_W}type") == "page" for node in paragraph.iter(f"{_W}br"))


def _prefix(paragraph: ElementTree.Element) -> str:
    style = paragraph.find(f"{_W}pPr/{_W}pStyle")
    name = "" if style is None else style.get(f"{_W}val", "")
    heading = re.fullmatch(r"(?i)heading ?([1-6])", name)
    if heading is not None:
        return "#" * int(heading.group(1)) + " "
    if name.lower() == "title":
        return "# "
    return "- " if paragraph.find(f"{_W}pPr/{_W}numPr") is not None else ""


def read_pptx(document: bytes) -> dict[str, Any]:
    """A presentation: each slide is a page, in the order it is shown."""
    package = _Package(document)
    main = "ppt/presentation.xml"
    targets = package.targets(main)
    slides = [
        targets[reference]
        for node in package.xml(main).iter("{http://schemas.openxmlformats.org/presentationml/2006/main}sldId")
        if (reference := node.get(f"{_R}id", "")) in targets
    ]
    pages = []
    for number, name in enumerate(slides, start=1):
        paragraphs = ("".join(run.text or "" for run in p.iter(f"{_A}t")) for p in package.xml(name).iter(f"{_A}p"))
        pages.append({"number": number, "text": "\n".join(text for text in paragraphs if text.strip())})
    return {"title": None, "pages": pages}


def read_xlsx(document: bytes) -> dict[str, Any]:
    """A workbook: each sheet is a page, each row a line."""
    package = _Package(document)
    main = "xl/workbook.xml"
    targets = package.targets(main)
    shared = _shared_strings(package)
    dates = _date_styles(package)
    pages = []
    for number, sheet in enumerate(package.xml(main).iter(f"{_S}sheet"), start=1):
        name = targets.get(sheet.get(f"{_R}id", ""))
        if name is None or not name.startswith("xl/worksheets/"):
            continue  # a chart or a macro sheet holds no cells
        rows = (_cells(row, shared, dates) for row in package.xml(name).iter(f"{_S}row"))
        pages.append({"number": number, "text": f"# {sheet.get('name', '')}\n\n{labelled(rows)}"})
    return {"title": None, "pages": pages}


def _shared_strings(package: _Package) -> list[str]:
    if "xl/sharedStrings.xml" not in package.names:
        return []
    items = package.xml("xl/sharedStrings.xml").iter(f"{_S}si")
    return ["".join(text.text or "" for text in item.iter(f"{_S}t")) for item in items]


def _date_styles(package: _Package) -> set[int]:
    """Indices of cell styles that show numbers as dates."""
    if "xl/styles.xml" not in package.names:
        return set()
    styles = package.xml("xl/styles.xml")
    formats = set(_DATE_FORMATS)
    for node in styles.iter(f"{_S}numFmt"):
        code = re.sub(r'"[^"]*"|\\.|\[[^\]]*\]', "", node.get("formatCode", ""))
        if re.search(r"[ymdhs]", code.lower()):
            formats.add(int(node.get("numFmtId", "0")))
    cells = styles.find(f"{_S}cellXfs")
    return set() if cells is None else {n for n, xf in enumerate(cells) if int(xf.get("numFmtId", "0")) in formats}


def _cells(row: ElementTree.Element, shared: list[str], dates: set[int]) -> list[str]:
    cells: list[str] = []
    for cell in row.iter(f"{_S}c"):
        at = _column(cell.get("r", ""), len(cells))
        cells += [""] * (at - len(cells))
        cells.append(_cell(cell, shared, dates))
    return cells


def _column(reference: str, following: int) -> int:
    """0 for `A7`, 27 for `AB7`; without a reference a cell follows the last. A table has at most 16384 columns."""
    letters = re.match(r"[A-Z]{1,3}(?=[0-9])", reference)
    if letters is None:
        return following
    number = 0
    for letter in letters.group():
        number = number * 26 + ord(letter) - 64
    return max(min(number, 16384) - 1, following)


def _cell(cell: ElementTree.Element, shared: list[str], dates: set[int]) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return "".join(text.text or "" for text in cell.iter(f"{_S}t"))
    value = cell.findtext(f"{_S}v", "")
    if kind == "s":
        return shared[int(value)] if value.isdecimal() and int(value) < len(shared) else ""
    if kind == "b":
        return "true" if value == "1" else "false"
    if kind == "n" and value and int(cell.get("s", "0")) in dates:
        return _date(value)
    return value


def _date(value: str) -> str:
    """Days since 1899-12-30, as Excel counts them, in ISO form."""
    try:
        moment = datetime.datetime(1899, 12, 30) + datetime.timedelta(days=float(value))
    except (ValueError, OverflowError):
        return value
    moment = (moment + datetime.timedelta(milliseconds=500)).replace(microsecond=0)
    return moment.date().isoformat() if moment.time() == datetime.time() else moment.isoformat(" ")
