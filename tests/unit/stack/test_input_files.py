"""Files inside messages: what a model is shown of them, what is kept, and what is refused."""

from __future__ import annotations

import base64

import pytest
from tests.kept import kept_stack

from llamakit.api.openai_responses import ResponseRequest
from llamakit.api.wire import read
from llamakit.core.errors import InvalidRequest

HTML = b"<html><body><h1>Llamas</h1><p>Their wool is soft.</p></body></html>"
ENCODED = base64.b64encode(HTML).decode()


@pytest.fixture
async def stack(request):
    async with kept_stack("sqlite", request) as stack:
        yield stack


def asking(*parts, **fields):
    content = [*parts, {"type": "input_text", "text": "What is soft?"}]
    body = {"model": "echo", "input": [{"role": "user", "content": content}], **fields}
    return read(ResponseRequest, body)[0]


async def shown(stack, *parts, owner="ann", **fields) -> str:
    plan = await stack.responses.prepare(owner, asking(*parts, **fields), "")
    return "|".join(message.text for message in plan.messages)


async def test_a_kept_file_is_read_to_text(stack):
    file = await stack.files.create("ann", "wool.html", "user_data", HTML)
    text = await shown(stack, {"type": "input_file", "file_id": file["id"]})
    assert "[File: wool.html]\n\n# Llamas\n\nTheir wool is soft." in text and "What is soft?" in text


@pytest.mark.parametrize(
    "part",
    [
        {"file_data": f"data:text/html;base64,{ENCODED}", "filename": "wool"},
        {"file_data": ENCODED, "filename": "wool.html"},
        {"file_data": f"data:text/html;base64,{ENCODED}"},
    ],
)
async def test_a_file_as_it_comes(stack, part):
    assert "Their wool is soft." in await shown(stack, {"type": "input_file", **part})


async def test_what_was_read_stays_with_the_history_and_is_not_shown_to_clients(stack):
    file = await stack.files.create("ann", "wool.html", "user_data", HTML)
    wire = asking({"type": "input_file", "file_id": file["id"]}, background=True)
    plan = await stack.responses.prepare("ann", wire, "")
    made = await stack.responses.background.enqueue("ann", plan)
    events = [event async for event in stack.responses.background.tail("ann", made["id"], -1)]
    assert events[-1]["response"]["status"] == "completed"
    await stack.files.delete("ann", file["id"])
    follow = read(ResponseRequest, {"model": "echo", "input": "and?", "previous_response_id": made["id"]})[0]
    plan = await stack.responses.prepare("ann", follow, "")
    assert "Their wool is soft." in "|".join(message.text for message in plan.messages)
    assert all("wool is soft" not in str(item.body) for item in plan.inputs)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"file_id": "file-" + "0" * 48}, "input[0].content[0].file_id"),
        ({"file_id": "x"}, "input[0].content[0].file_id"),
        ({"file_data": "data:text/html,plain"}, "input[0].content[0].file_data"),
        ({"file_data": "not base64!", "filename": "x.txt"}, "input[0].content[0].file_data"),
        ({"file_data": "AAEC", "filename": "x.bin"}, "input[0].content[0]"),
        ({"file_url": "http://localhost/x.pdf"}, "input[0].content[0].file_url"),
        ({}, "input[0].content[0]"),
    ],
)
async def test_files_that_are_refused(stack, part, param):
    with pytest.raises(InvalidRequest) as refused:
        await shown(stack, {"type": "input_file", **part})
    assert refused.value.param == param


async def test_a_foreign_file_is_as_good_as_none(stack):
    file = await stack.files.create("ann", "wool.html", "user_data", HTML)
    with pytest.raises(InvalidRequest, match="no file"):
        await shown(stack, {"type": "input_file", "file_id": file["id"]}, owner="bob")
