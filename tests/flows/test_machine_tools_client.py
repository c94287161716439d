"""Shells, patches and screens in Responses, through the official OpenAI client: run here, or by the client itself."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator

import openai
import pytest
from tests.scripted import Scripted, stack_with_tools
from tests.serving import served

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
PREVIEW = {"type": "computer_use_preview", "display_width": 800, "display_height": 600, "environment": "browser"}


@contextlib.contextmanager
def client_of(stack) -> Iterator[openai.OpenAI]:
    with served(stack) as server, openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_shell_runs_in_a_container_of_the_server():
    model = Scripted(
        [("shell", {"commands": ["echo moo > cow.txt", "cat cow.txt; echo bad >&2; exit 2"]})],
        "It says moo.",
        [("shell", {"commands": ["cat cow.txt"], "max_output_length": 100})],
        "Still moo.",
    )
    with client_of(stack_with_tools(model, {"inline::code-interpreter": {}})) as client:
        tool = {"type": "shell", "environment": {"type": "container_auto"}}
        events = list(client.responses.create(model="echo", input="Cow?", tools=[tool], stream=True))
        first = events[-1].response
        call, output, message = first.output
        tool = {"type": "shell", "environment": {"type": "container_reference", "container_id": _container(call)}}
        second = client.responses.create(model="echo", input="Sure?", tools=[tool], previous_response_id=first.id)
        kept = client.responses.retrieve(first.id)
    assert (call.type, call.status, call.action.commands[0]) == ("shell_call", "completed", "echo moo > cow.txt")
    assert (output.type, output.call_id, output.status) == ("shell_call_output", call.call_id, "completed")
    assert [(one.stdout, one.stderr, one.outcome.exit_code) for one in output.output] == [
        ("", "", 0),
        ("moo\n", "bad\n", 2),
    ]
    assert message.content[0].text == "It says moo." and kept.output[1].output[1].stdout == "moo\n"
    kinds = [event.type for event in events if "shell_call" in event.type]
    command = [f"response.shell_call_command.{step}" for step in ("added", "delta", "done")]
    content = "response.shell_call_output_content."
    assert kinds == [*command, *command, f"{content}done", f"{content}delta", f"{content}done"]
    delta = next(event for event in events if event.type == f"{content}delta")
    assert (delta.delta.stdout, delta.delta.stderr, delta.command_index) == ("moo\n", "bad\n", 1)
    assert model.asked[1].messages[-1].text == "[exit code 0]\nmoo\nbad\n[exit code 2]"
    # What the model read then it reads again when the conversation goes on.
    assert [message.text for message in model.asked[2].messages[:3]] == [
        message.text for message in model.asked[1].messages
    ]
    assert second.output[1].output[0].stdout == "moo\n" and second.output[1].max_output_length == 100


def _container(call) -> str:
    assert call.environment.type == "container_reference"
    return call.environment.container_id


def test_a_shell_without_a_sandbox_is_refused_with_what_would_help():
    with client_of(stack_with_tools(Scripted())) as client:
        tool = {"type": "shell", "environment": {"type": "container_auto"}}
        with pytest.raises(openai.BadRequestError, match="--tool code-interpreter") as refused:
            client.responses.create(model="echo", input="ls", tools=[tool])
    assert refused.value.code == "unsupported_tool" and refused.value.param == "tools[0].type"


LOCAL = [
    (
        {"type": "shell", "environment": {"type": "local", "skills": []}},
        ("shell", {"commands": ["ls"], "timeout_ms": 500}),
        {"type": "shell_call", "action": {"commands": ["ls"], "timeout_ms": 500}, "environment": {"type": "local"}},
        {"type": "shell_call_output", "output": [
            {"stdout": "a.txt\n", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]},
        "a.txt\n[exit code 0]",
    ),
    (
        {"type": "local_shell"},
        ("local_shell", {"command": ["ls", "-a"], "working_directory": "/tmp"}),
        {"type": "local_shell_call", "action": {
            "type": "exec", "command": ["ls", "-a"], "env": {}, "working_directory": "/tmp"}},
        {"type": "local_shell_call_output", "output": "a.txt"},
        "a.txt",
    ),
    (
        {"type": "apply_patch"},
        ("apply_patch", {"type": "update_file", "path": "a.txt", "diff": "-a\n+b"}),
        {"type": "apply_patch_call", "operation": {"type": "update_file", "path": "a.txt", "diff": "-a\n+b"}},
        {"type": "apply_patch_call_output", "status": "failed", "output": "no such file"},
        "no such file",
    ),
    (
        {"type": "computer"},
        ("computer", {"actions": [{"type": "click", "button": "left", "x": 1, "y": 2}, {"type": "screenshot"}]}),
        {"type": "computer_call", "pending_safety_checks": [], "actions": [
            {"type": "click", "button": "left", "x": 1, "y": 2}, {"type": "screenshot"}]},
        {"type": "computer_call_output", "output": {
            "type": "computer_screenshot", "image_url": f"data:image/png;base64,{PIXEL}"}},
        "This is the screen now.",
    ),
    (
        PREVIEW,
        ("computer", {"action": {"type": "type", "text": "hi"}}),
        {"type": "computer_call", "pending_safety_checks": [], "action": {"type": "type", "text": "hi"}},
        {"type": "computer_call_output", "output": {
            "type": "computer_screenshot", "image_url": f"data:image/png;base64,{PIXEL}"}},
        "This is the screen now.",
    ),
]  # fmt: skip


@pytest.mark.parametrize("way", ["previous", "conversation", "stateless"])
@pytest.mark.parametrize(("tool", "call", "item", "output", "read"), LOCAL, ids=lambda value: str(value)[:30])
def test_a_call_leaves_as_an_item_and_the_clients_output_comes_back(tool, call, item, output, read, way):
    model = Scripted([call], "Done.")
    with client_of(stack_with_tools(model)) as client:
        asked = {"model": "echo", "tools": [tool], "store": way != "stateless"}
        place = {"conversation": client.conversations.create().id} if way == "conversation" else {}
        events = list(client.responses.create(**asked, **place, input="Do it.", stream=True))
        (made,) = events[-1].response.output
        shown = made.model_dump(exclude_none=True, mode="json")
        back = [{**output, "id" if tool["type"] == "local_shell" else "call_id": made.call_id}]
        if way == "previous":
            place = {"previous_response_id": events[-1].response.id}
        if way == "stateless":
            back = [{"role": "user", "content": "Do it."}, shown, *back]
        final = client.responses.create(**asked, **place, input=back)
        if way == "conversation":
            kinds = [one.type for one in client.conversations.items.list(place["conversation"], order="asc")]
            assert kinds == ["message", item["type"], output["type"], "message"]
    assert item.items() <= shown.items() and shown["status"] == "completed"
    added, done = [event for event in events if event.type.startswith("response.output_item")]
    assert added.item.status == "in_progress" and done.item == made
    assert final.output_text == "Done."
    asked_model = model.asked[1].messages
    assert [one.name for one in asked_model[1].tool_calls] == [call[0]]
    assert json.loads(asked_model[1].tool_calls[0].arguments) == call[1]
    told = next(message for message in asked_model if message.role == "tool")
    assert told.text == read and told.name == call[0]
    if tool["type"].startswith("computer"):
        assert asked_model[-1].role == "user" and asked_model[-1].content[0].mime == "image/png"


@pytest.mark.parametrize("way", ["previous", "stateless"])
def test_a_local_shells_output_may_name_the_item_of_its_call(way):
    model = Scripted([("local_shell", {"command": ["ls"]})], "Done.")
    with client_of(stack_with_tools(model)) as client:
        asked = {"model": "echo", "tools": [{"type": "local_shell"}]}
        first = client.responses.create(**asked, input="Do it.")
        back = [{"type": "local_shell_call_output", "id": first.output[0].id, "output": "a.txt"}]
        if way == "previous":
            final = client.responses.create(**asked, input=back, previous_response_id=first.id)
        else:
            said = [{"role": "user", "content": "Do it."}, first.output[0].model_dump(exclude_none=True)]
            final = client.responses.create(**asked, input=[*said, *back])
    assert final.output_text == "Done." and model.asked[1].messages[-1].text == "a.txt"


def test_the_model_is_told_what_each_tool_takes():
    model = Scripted("ok")
    tools = [{"type": "local_shell"}, {"type": "apply_patch"}, PREVIEW, {"type": "shell"}]
    with client_of(stack_with_tools(model)) as client:
        answer = client.responses.create(model="echo", input="hi", tools=tools)
    specs = {spec.name: spec for spec in model.asked[0].tools}
    assert [*specs] == ["local_shell", "apply_patch", "computer", "shell"]
    assert all(spec.strict for spec in specs.values()) and "800 x 600" in specs["computer"].description
    assert [tool.type for tool in answer.tools] == ["local_shell", "apply_patch", "computer_use_preview", "shell"]


def test_a_call_that_makes_no_sense_is_shown_as_the_model_wrote_it():
    model = Scripted([("apply_patch", {"path": 3})], "Sorry.")
    with client_of(stack_with_tools(model)) as client:
        asked = {"model": "echo", "tools": [{"type": "apply_patch"}]}
        first = client.responses.create(**asked, input="Patch.")
        (call,) = first.output
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "what?"}
        final = client.responses.create(**asked, input=[output], previous_response_id=first.id)
    assert (call.type, call.name, call.arguments) == ("function_call", "apply_patch", '{"path": 3}')
    assert final.output_text == "Sorry."


@pytest.mark.parametrize(
    ("tool", "choice", "name"),
    [
        ({"type": "apply_patch"}, {"type": "apply_patch"}, "apply_patch"),
        ({"type": "shell"}, {"type": "shell"}, "shell"),
        (PREVIEW, {"type": "computer_use"}, "computer"),
    ],
)
def test_a_tool_can_be_demanded(tool, choice, name):
    model = Scripted("ok")
    with client_of(stack_with_tools(model)) as client:
        other = {"type": "function", "name": "other", "parameters": {}}
        client.responses.create(model="echo", input="hi", tools=[tool, other], tool_choice=choice)
        with pytest.raises(openai.BadRequestError):
            client.responses.create(model="echo", input="hi", tools=[other], tool_choice=choice)
    assert [spec.name for spec in model.asked[0].tools] == [name] and model.asked[0].tool_choice.mode == "required"


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "programmatic_tool_calling"}, "tools[0].type"),
        ({"type": "image_generation"}, "tools[0].type"),
        ({"type": "apply_patch", "allowed_callers": ["programmatic"]}, "tools[0].allowed_callers"),
        ({"type": "function", "name": "f", "allowed_callers": ["programmatic"]}, "tools[0].allowed_callers"),
    ],
)
def test_what_nothing_here_can_do_is_refused(tool, param):
    with client_of(stack_with_tools(Scripted())) as client, pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="echo", input="hi", tools=[tool])
    assert refused.value.code == "unsupported_tool" and refused.value.param == param
