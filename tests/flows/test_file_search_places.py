"""Where an answer's citations stand: file, page and characters, through OpenAI's client, whichever the kind of file."""

from __future__ import annotations

import time

import pytest
from tests.scripted import Scripted, stack_with_tools
from tests.serving import served
from tests.unit.rag import documents

from llamakit.rag.parse import parse

openai = pytest.importorskip("openai")

PAGES = ("Llamas live in the Andes.", "They eat grass and hay.", "Their wool is soft.")


@pytest.mark.parametrize(
    ("name", "data", "asked", "page"),
    [
        ("food.pdf", documents.pdf(*PAGES), "grass and hay", 2),
        ("slides.pptx", documents.pptx(), "Second", 2),
        ("food.md", "\n\n".join(PAGES).encode(), "grass and hay", None),
    ],
)
async def test_citations_have_file_page_and_span(name, data, asked, page):
    if name.endswith(".pdf"):
        pytest.importorskip("pypdf")
    pages = (await parse(name, data)).pages
    model = Scripted([("knowledge_search", {"query": asked})], "So it says [1].")
    with served(stack_with_tools(model)) as server, openai.OpenAI(base_url=server.base_url, api_key="none") as client:
        file = client.files.create(file=(name, data), purpose="assistants")
        store = client.vector_stores.create(file_ids=[file.id])
        for _ in range(400):
            if client.vector_stores.retrieve(store.id).file_counts.completed:
                break
            time.sleep(0.05)
        tool = {"type": "file_search", "vector_store_ids": [store.id]}
        answer = client.responses.create(
            model="echo", input="Food?", tools=[tool], include=["file_search_call.results"]
        )
        searched = client.vector_stores.search(store.id, query=asked).data[0]
    call, message = answer.output
    (annotation,) = message.content[0].annotations
    assert (annotation.type, annotation.file_id, annotation.filename) == ("file_citation", file.id, name)
    place = annotation.model_extra
    assert place.get("page") == page and (searched.page, searched.span) == (page, place["span"])
    (stood,) = [one for one in pages if one.number == page]
    start, end = place["span"]
    assert stood.text[start:end] == call.results[0].text and asked in call.results[0].text
