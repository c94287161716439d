"""Items of tools that this server does not run: kept as they came, and read as calls and what those gave."""

from __future__ import annotations

import pytest
from tests.serving import echo_app, in_process

from llamakit.api.openai_conversations import WireConversationItemsRequest
from llamakit.api.openai_response_history import history_of
from llamakit.api.openai_response_items import to_stored
from llamakit.api.wire import read

SHELL = {"type": "shell_call", "call_id": "c1", "action": {"commands": ["ls"]}}
PRINTED = {
    "type": "shell_call_output",
    "call_id": "c1",
    "output": [{"outcome": {"type": "exit", "exit_code": 0}, "stdout": "notes.txt", "stderr": ""}],
}
PATCH = {
    "type": "apply_patch_call",
    "call_id": "c2",
    "operation": {"type": "delete_file", "path": "notes.txt"},
    "status": "completed",
}
PATCHED = {"type": "apply_patch_call_output", "call_id": "c2", "status": "completed"}
SCREEN = {
    "type": "computer_call",
    "call_id": "c3",
    "action": {"type": "click", "button": "left", "x": 1, "y": 2},
    "pending_safety_checks": [],
    "status": "completed",
}
SHOT = {"type": "computer_call_output", "call_id": "c3", "output": {"type": "computer_screenshot", "file_id": "f"}}
PROGRAM = {"type": "program", "call_id": "c4", "code": "1 + 1", "fingerprint": "x"}
RESULT = {"type": "program_output", "call_id": "c4", "result": "2", "status": "completed"}
IMAGE = {"type": "image_generation_call", "status": "completed", "result": "aGk=", "revised_prompt": "a llama"}
ALL = [SHELL, PRINTED, PATCH, PATCHED, SCREEN, SHOT, PROGRAM, RESULT, IMAGE]


def test_a_model_reads_them_as_calls_and_results():
    wire, unknown = read(WireConversationItemsRequest, {"items": ALL})
    stored = [to_stored(item) for item in wire.items]
    assert not unknown and len({item["id"] for item in stored}) == len(ALL)
    messages = history_of((body, {}) for body in stored).messages
    calls = [(call.name, call.arguments) for message in messages for call in message.tool_calls]
    assert [name for name, _ in calls] == ["shell", "apply_patch", "computer", "program", "image_generation"]
    assert calls[0][1] == '{"commands": ["ls"]}' and "notes.txt" in calls[1][1] and "a llama" in calls[4][1]
    results = [message.text for message in messages if message.role == "tool"]
    assert "notes.txt" in results[0] and results[1] == "completed" and results[3] == "2"
    assert "not shown" in results[2] and "not shown" in results[4]


@pytest.mark.parametrize("item", ALL, ids=[item["type"] for item in ALL])
async def test_each_is_kept_as_it_came(item):
    async with in_process(echo_app()) as client:
        made = (await client.post("/v1/conversations", json={"items": [item]})).json()
        (kept,) = (await client.get(f"/v1/conversations/{made['id']}/items")).json()["data"]
        assert kept.pop("id") and kept == item


async def test_a_result_without_its_call_is_refused():
    async with in_process(echo_app()) as client:
        answer = await client.post("/v1/responses", json={"model": "echo", "input": [PRINTED]})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "input[0].call_id"
