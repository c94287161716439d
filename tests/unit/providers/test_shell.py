"""The shell as a tool: commands in a container, told one by one, within the limits that the model set."""

from __future__ import annotations

import base64
import io
import json
import shutil
import zipfile

import pytest

from llamakit.api.hosted_tools import ServerParts
from llamakit.core.errors import InvalidRequest, NotFound, SandboxUnavailable, ToolError
from llamakit.providers.inline.tools.code_interpreter import CodeInterpreter
from llamakit.stack.container_rows import ContainerRows, create_containers
from llamakit.stack.storage import TEMPORARY, Storage

AUTO = {"type": "shell", "environment": {"type": "container_auto"}}


@pytest.fixture
async def interpreter():
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    storage = Storage(TEMPORARY, (create_containers,))
    made = CodeInterpreter()
    made.bind(ServerParts(containers=ContainerRows(storage)))
    try:
        await made.start()
    except SandboxUnavailable as fault:
        pytest.skip(f"no namespaces here: {fault}")
    yield made
    await made.aclose()
    await storage.aclose()


async def run(tool, *commands, **more):
    result = await tool.call("shell", json.dumps({"commands": list(commands), **more}))
    return [(one["stdout"], one["stderr"], one["outcome"].get("exit_code")) for one in result.fields["output"]], result


async def test_each_command_tells_what_it_printed_and_how_it_ended(interpreter):
    tool = await interpreter.shell().open("me", AUTO)
    told, result = await run(
        tool, "echo one > a.txt; ls", "cat a.txt | tr a-z A-Z", "echo no >&2; exit 3", "kill -9 $$"
    )
    assert told == [("a.txt\n", "", 0), ("ONE\n", "", 0), ("", "no\n", 3), ("", "", 137)]
    assert result.output.splitlines() == ["a.txt", "[exit code 0]", "ONE", "[exit code 0]", "no", "[exit code 3]",
                                          "[exit code 137]"]  # fmt: skip


async def test_a_container_is_shared_with_the_interpreter_and_named(interpreter):
    _, first = await run(await interpreter.shell().open("me", AUTO), "echo 42 > n.txt")
    place = first.fields["container_id"]
    python = await interpreter.open("me", {"type": "code_interpreter", "container": place})
    assert (await python.call("code_interpreter", '{"code": "print(open(\'n.txt\').read())"}')).output == "42"
    named = {"type": "shell", "environment": {"type": "container_reference", "container_id": place}}
    assert (await run(await interpreter.shell().open("me", named), "cat n.txt"))[0] == [("42\n", "", 0)]
    with pytest.raises(NotFound):
        await interpreter.shell().open("you", named)


async def test_time_and_output_are_the_models_to_limit(interpreter):
    tool = await interpreter.shell().open("me", AUTO)
    _, late = await run(tool, "echo early; sleep 9", "echo never", timeout_ms=400)
    (one,) = late.fields["output"]
    assert one["outcome"] == {"type": "timeout"} and one["stdout"] == "early\n" and "[timed out]" in late.output
    told, _ = await run(tool, "seq 1 9999", max_output_length=10)
    assert told[0][0].startswith("1\n2\n3\n4\n5\n\n[cut: ")


async def test_skills_are_unpacked_where_the_model_is_told(interpreter):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("SKILL.md", "Say moo.")
    source = {"type": "base64", "media_type": "application/zip", "data": base64.b64encode(archive.getvalue()).decode()}
    skill = {"type": "inline", "name": "cow", "description": "Talks like a cow", "source": source}
    asked = {"type": "shell", "environment": {"type": "container_auto", "skills": [skill]}}
    tool = await interpreter.shell().open("me", asked)
    assert "Skill cow (in skills/cow): Talks like a cow" in tool.specs[0].description
    assert (await run(tool, "cat skills/cow/SKILL.md"))[0] == [("Say moo.", "", 0)]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"type": "container_auto", "skills": [{"type": "skill_reference", "skill_id": "s"}]}, "no skills are kept"),
        ({"type": "container_auto", "network_policy": {"type": "allowlist", "allowed_domains": ["a.b"]}}, "no network"),
        ({"type": "container_auto", "memory_limit": "64g"}, "memory_limit"),
    ],
)
async def test_what_cannot_be_given_is_refused(interpreter, environment, words):
    with pytest.raises(InvalidRequest, match=words):
        await interpreter.shell().open("me", {"type": "shell", "environment": environment})


async def test_arguments_that_make_no_sense_are_told_to_the_model(interpreter):
    tool = await interpreter.shell().open("me", AUTO)
    for arguments in ("{}", '{"commands": "ls"}', json.dumps({"commands": ["true"] * 33})):
        with pytest.raises(ToolError):
            await tool.call("shell", arguments)
