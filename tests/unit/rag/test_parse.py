import importlib.util
import json
import zipfile
from io import BytesIO

import pytest
from tests.unit.rag.documents import A, docx, paragraph, pdf, pptx, relations, xlsx, zipped

from llamakit.core.errors import DocumentError
from llamakit.rag.parse import kind_of, parse
from llamakit.rag.readers.read import READERS, read
from llamakit.sandbox.child import ChildLimits

needs_pypdf = pytest.mark.skipif(importlib.util.find_spec("pypdf") is None, reason="pypdf is not installed")


def text_of(document: bytes, kind: str) -> str:
    pages = read(document, kind=kind)["pages"]
    return "\n--\n".join(page["text"] for page in pages)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("héllo\r\nthere\r".encode(), "héllo\nthere\n"),
        ("\ufeffhéllo".encode(), "héllo"),
        ("héllo".encode("utf-16"), "héllo"),
        ("héllo \u2019".encode("cp1252"), "héllo \u2019"),
        (b"a\0b", "a\ufffdb"),
    ],
)
def test_text_in_its_encodings(document: bytes, expected: str):
    assert text_of(document, "text") == expected


def test_tables_carry_their_column_names():
    assert (
        text_of(b'name,age,note\nann,41,\nbob,7,"a, b"\n\n', "csv")
        == "name | age | note\nname: ann; age: 41\nname: bob; age: 7; note: a, b"
    )
    assert text_of(b"1;2\n3;4\n", "csv") == "1 | 2\n3 | 4"
    assert text_of(b"a\tb\nx\ty\tz\n", "tsv") == "a | b\na: x; b: y; z"


def test_json_is_laid_out_in_lines():
    assert json.loads(text_of('{"k": ["ü", 1]}'.encode(), "json")) == {"k": ["ü", 1]}
    assert "ü" in text_of(b'{"k": "\\u00fc"}', "json")
    assert text_of(b'{"a": 1}\n\n{"b": 2}\n', "jsonl") == '{"a": 1}\n\n{"b": 2}'


def test_html_reads_as_a_person_reads():
    page = b"""<!doctype html><html><head><title> The &amp; Title </title><style>p {}</style></head><body>
<script>alert(1)</script><h1>Top</h1><p>One   <b>bold</b>
line.</p><ul><li>first</li><li>second</li></ul><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>
<pre>  keep
    this</pre><!-- hidden --><noscript>no</noscript>&lt;tag&gt;</body></html>"""
    found = read(page, kind="html")
    assert found["title"] == "The & Title"
    text = found["pages"][0]["text"]
    assert text.startswith("# Top\n\nOne bold line.")
    assert "- first\n- second" in text and "a | b\n1 | 2" in text.replace("\n\n", "\n") and "<tag>" in text
    assert "alert" not in text and "hidden" not in text and "no\n" not in text
    assert text_of('<meta charset="iso-8859-15"><p>5 €</p>'.encode("iso-8859-15"), "html") == "5 €"
    assert text_of(b'<meta charset="no-such"><p>\xc3\xbc</p>', "html") == "ü"


def test_word_keeps_headings_tables_and_pages():
    table = "<w:tbl><w:tr><w:tc>%s</w:tc><w:tc>%s</w:tc></w:tr><w:tr><w:tc>%s</w:tc><w:tc>%s</w:tc></w:tr></w:tbl>"
    cells = tuple(paragraph(cell) for cell in ("item", "cost", "pen", "3"))
    body = paragraph("Title here", "Title") + paragraph("Part", "Heading2") + paragraph("Words.") + table % cells
    found = read(docx(body), kind="docx")
    assert found["pages"] == [
        {"number": None, "text": "# Title here\n\n## Part\n\nWords.\n\nitem | cost\nitem: pen; cost: 3"}
    ]
    body = paragraph("one") + paragraph("two", before="<w:lastRenderedPageBreak/>") + paragraph("also two")
    assert [page["number"] for page in read(docx(body), kind="docx")["pages"]] == [1, 2]


def test_slides_come_in_the_order_they_are_shown():
    assert read(pptx(), kind="pptx")["pages"] == [
        {"number": 1, "text": "First\nwith two lines"},
        {"number": 2, "text": "Second"},
    ]


def test_sheets_are_pages_of_rows():
    pages = read(xlsx(), kind="xlsx")["pages"]
    assert [page["number"] for page in pages] == [1, 2]
    lines = pages[0]["text"].split("\n")
    assert lines == [
        "# Tasks",
        "",
        "task | due |  | hours",
        "write | 2023-03-15 |  | 12.5",
        "true | 2023-03-15 12:00:00",
    ]
    assert pages[1]["text"] == "# Rest\n\nalone"


@needs_pypdf
async def test_pdf_pages_keep_their_numbers():
    parsed = await parse("paper.pdf", pdf("Hello page one", "And page two"))
    assert parsed.kind == "pdf"
    assert [(page.number, page.text.strip()) for page in parsed.pages] == [(1, "Hello page one"), (2, "And page two")]


@pytest.mark.parametrize(
    ("name", "head", "mime", "kind"),
    [
        ("a.TXT", b"x", None, "text"),
        ("notes.md", b"x", None, "markdown"),
        ("main.py", b"x", None, "code"),
        ("Makefile", b"x", None, "code"),
        ("data", b"x", "text/csv; charset=utf-8", "csv"),
        ("data", b"x", "text/x-unknown", "text"),
        ("renamed.txt", b"%PDF-1.7", None, "pdf"),
        ("a.docx", b"PK\x03\x04", None, "docx"),
    ],
)
def test_kinds(name: str, head: bytes, mime: str | None, kind: str):
    assert kind_of(name, head, mime) == kind
    assert kind in READERS


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.exe", b"MZ"),
        ("noname", b"x"),
        ("a.pdf", b"hello"),
        ("a.docx", b"hello"),
        ("a.txt", b"PK\x03\x04"),
        ("a.png", b"\x89PNG"),
    ],
)
def test_unknown_kinds_say_which_are_known(name: str, head: bytes):
    with pytest.raises(DocumentError, match="known are text"):
        kind_of(name, head)


def bomb(kilobytes: int) -> bytes:
    """An office file whose text would grow a thousandfold."""
    return zipped(word__document_dot_xml=b"<a>" + b" " * (kilobytes << 10) + b"</a>")


def lying_zip() -> bytes:
    """A member that says it is small and is not."""
    data = bytearray(zipped(word__document_dot_xml=b"<a>" + bytes(range(65, 91)) * 400 + b"</a>"))
    with zipfile.ZipFile(BytesIO(data)) as archive:
        size = archive.infolist()[0].file_size
    for at in range(len(data) - 4):
        if data[at : at + 4] == size.to_bytes(4, "little"):
            data[at : at + 4] = (100).to_bytes(4, "little")
    return bytes(data)


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "haha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]><l>&d;</l>'
)
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]><l>&x;</l>'
DEEP = "<a>" * 50_000 + "</a>" * 50_000

HOSTILE = {
    "empty.txt": b"",
    "blank.txt": b" \n\t\n ",
    "binary.txt": bytes(range(256)) * 10,
    "half.txt": "héllo".encode("utf-16")[:-1],
    "broken.json": b'{"a": ',
    "deep.json": b"[" * 100_000,
    "broken.jsonl": b'{"a": 1}\n{"b"\n',
    "only-script.html": b"<script>x</script>",
    "not-a-zip.docx": b"PK\x03\x04 and nothing",
    "no-document.docx": zipped(other="x"),
    "bomb.docx": bomb(60_000),
    "big-bomb.docx": bomb(100_000),
    "lying.docx": lying_zip(),
    "laughs.docx": zipped(word__document_dot_xml=LAUGHS),
    "outside.docx": zipped(word__document_dot_xml=OUTSIDE),
    "laughs-utf16.docx": zipped(word__document_dot_xml=LAUGHS.encode("utf-16")),
    "deep.docx": zipped(word__document_dot_xml=DEEP),
    "bad-xml.docx": zipped(word__document_dot_xml="<a><b></a>"),
    "no-body.docx": zipped(word__document_dot_xml="<a/>"),
    "many.docx": zipped(**{f"m{n}": "" for n in range(20_001)}),
    "no-slides.pptx": zipped(ppt__presentation_dot_xml="<a/>"),
    "lost-slide.pptx": zipped(
        ppt__presentation_dot_xml=f'<p:a xmlns:p="{A.replace("drawing", "presentation")}"/>',
        ppt___rels__presentation_dot_xml_dot_rels=relations(a="../../../etc/passwd"),
    ),
    "laughs.xlsx": zipped(xl__workbook_dot_xml=LAUGHS),
    "truncated.xlsx": xlsx()[:-100],
    "empty.pdf": b"%PDF-1.4\n",
    "noise.pdf": b"%PDF-1.4\n" + bytes(range(256)) * 100,
    "truncated.pdf": pdf("Hello")[:300],
    "no-text.pdf": pdf(""),
    "loop.pdf": b"%PDF-1.4\nxref\n0 1\n0000000000 65535 f \ntrailer\n<< /Size 1 /Root 1 0 R /Prev 9 >>\n"
    b"startxref\n9\n%%EOF",
    "cycle.pdf": pdf("a").replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_document_fails_with_a_reason(name: str):
    if name.endswith(".pdf") and importlib.util.find_spec("pypdf") is None:
        pytest.skip("pypdf is not installed")
    with pytest.raises(DocumentError) as error:
        await parse(name, HOSTILE[name], limits=ChildLimits(cpu_s=10, wall_s=30))
    assert len(str(error.value)) > 10


async def test_damage_anywhere_is_told_and_never_hangs():
    whole = {"a.docx": docx(paragraph("Hello there")), "a.xlsx": xlsx(), "a.pptx": pptx()}
    for name, document in whole.items():
        for at in range(30, len(document), max(len(document) // 12, 1)):
            damaged = document[:at] + bytes([document[at] ^ 0xFF]) + document[at + 1 :]
            try:
                read(damaged, kind=name.partition(".")[2])
            except DocumentError:
                continue
