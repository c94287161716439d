"""Small documents of every kind, made here byte by byte."""

import io
import zipfile

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
S = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
A = "http://schemas.openxmlformats.org/drawingml/2006/main"
P = "http://schemas.openxmlformats.org/presentationml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"


def zipped(**members: str | bytes) -> bytes:
    """A zip; `__` in a name is a slash, `_dot_` a point."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return out.getvalue()


def docx(body: str) -> bytes:
    """A Word document with this body."""
    return zipped(word__document_dot_xml=f'<w:document xmlns:w="{W}"><w:body>{body}</w:body></w:document>')


def paragraph(text: str, style: str = "", before: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r>{before}<w:t>{text}</w:t></w:r></w:p>"


def relations(**targets: str) -> str:
    rows = "".join(f'<Relationship Id="{id}" Target="{target}"/>' for id, target in targets.items())
    return f'<Relationships xmlns="{RELATIONS}">{rows}</Relationships>'


def xlsx() -> bytes:
    """Two sheets: names, numbers, a date, a shared string, a gap."""
    sheet = (
        f'<worksheet xmlns="{S}"><sheetData>'
        '<row><c r="A1" t="s"><v>0</v></c><c r="B1" t="inlineStr"><is><t>due</t></is></c>'
        '<c r="D1" t="s"><v>1</v></c></row>'
        '<row><c r="A2" t="s"><v>2</v></c><c r="B2" s="1"><v>45000</v></c><c r="D2"><v>12.5</v></c></row>'
        '<row><c r="A3" t="b"><v>1</v></c><c r="B3" s="1"><v>45000.5</v></c></row>'
        "</sheetData></worksheet>"
    )
    other = f'<worksheet xmlns="{S}"><sheetData><row><c t="str"><v>alone</v></c></row></sheetData></worksheet>'
    return zipped(
        xl__workbook_dot_xml=f'<workbook xmlns="{S}" xmlns:r="{R}"><sheets><sheet name="Tasks" r:id="r1"/>'
        '<sheet name="Rest" r:id="r2"/></sheets></workbook>',
        xl___rels__workbook_dot_xml_dot_rels=relations(r1="worksheets/sheet1.xml", r2="/xl/worksheets/sheet2.xml"),
        xl__worksheets__sheet1_dot_xml=sheet,
        xl__worksheets__sheet2_dot_xml=other,
        xl__sharedStrings_dot_xml=f'<sst xmlns="{S}"><si><t>task</t></si><si><r><t>ho</t></r><r><t>urs</t></r></si>'
        "<si><t>write</t></si></sst>",
        xl__styles_dot_xml=f'<styleSheet xmlns="{S}"><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs>'
        "</styleSheet>",
    )


def pptx() -> bytes:
    """Two slides whose files are numbered the other way round."""

    def slide(*texts: str) -> str:
        body = "".join(f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>" for text in texts)
        return f'<p:sld xmlns:p="{P}" xmlns:a="{A}">{body}</p:sld>'

    return zipped(
        ppt__presentation_dot_xml=f'<p:presentation xmlns:p="{P}" xmlns:r="{R}"><p:sldIdLst>'
        '<p:sldId id="256" r:id="b"/><p:sldId id="257" r:id="a"/></p:sldIdLst></p:presentation>',
        ppt___rels__presentation_dot_xml_dot_rels=relations(a="slides/slide1.xml", b="slides/slide2.xml"),
        ppt__slides__slide1_dot_xml=slide("Second"),
        ppt__slides__slide2_dot_xml=slide("First", "with two lines"),
    )


def pdf(*pages: str) -> bytes:
    """A PDF with one line of text a page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects += [f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    objects += ["<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    for n, text in enumerate(pages):
        resources = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 612 792]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {resources} /Contents {5 + 2 * n} 0 R >>")
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\n"
    )
    return out + f"{end}startxref\n{len(out)}\n%%EOF\n".encode()
