"""The code interpreter as a tool: containers keep files and no variables, for their owner and for a while."""

import json
import shutil

import pytest
from tests.tiny import FakeClock

from llamakit.api.hosted_tools import ServerParts
from llamakit.core.errors import ConfigError, InvalidRequest, NotFound, SandboxUnavailable, ToolError
from llamakit.providers.inline.tools.code_interpreter import CodeInterpreter, build
from llamakit.providers.inline.tools.containers import ContainerPool
from llamakit.sandbox.interpreter import Sandbox
from llamakit.stack.container_rows import ContainerRows, create_containers
from llamakit.stack.storage import TEMPORARY, Storage

PIXEL = "89504e470d0a1a0a0000000d49484452"


class Files:
    """Two files of one owner."""

    async def get(self, owner, id):
        if owner != "me" or id not in ("file-1", "file-2"):
            raise NotFound("no file")
        return {"filename": "a b\u00e9.csv", "bytes": 3}

    async def read(self, owner, id):
        return id[-1].encode() * 3


@pytest.fixture
async def interpreter(storage):
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    made = CodeInterpreter()
    made.bind(ServerParts(files=Files(), containers=ContainerRows(storage)))
    try:
        await made.start()
    except SandboxUnavailable as fault:
        pytest.skip(f"no namespaces here: {fault}")
    yield made
    await made.aclose()


@pytest.fixture
async def storage():
    made = Storage(TEMPORARY, (create_containers,))
    yield made
    await made.aclose()


async def run(tool, code):
    return await tool.call("code_interpreter", json.dumps({"code": code}))


async def test_files_are_kept_between_calls_and_variables_are_not(interpreter):
    tool = await interpreter.open("me", {"type": "code_interpreter", "container": {"type": "auto"}})
    first = await run(tool, "x = 6 * 7\nopen('a.txt', 'w').write(str(x))\nprint('wrote')")
    assert first.output == "wrote\nFiles written: a.txt" and not first.is_failed
    assert first.fields["outputs"] == [{"type": "logs", "logs": "wrote"}]
    container = first.fields["container_id"]
    again = await interpreter.open("me", {"container": container})
    second = await run(again, "```python\nprint(open('a.txt').read())\nprint(x)\n```")
    assert second.output.startswith("42\n") and "NameError" in second.output and "exit code 1" in second.output
    assert second.fields["container_id"] == container
    await run(tool, "import os; os.remove('a.txt'); open('main.py', 'w').write('print(0)')")
    assert (await run(again, "import os; print(os.listdir())")).output == "['main.py']"
    with pytest.raises(NotFound):
        await interpreter.open("you", {"container": container})


async def test_a_container_begins_with_files_of_its_owner(interpreter):
    settings = {"container": {"type": "auto", "file_ids": ["file-1", "file-2"], "memory_limit": "1g"}}
    tool = await interpreter.open("me", settings)
    listed = await run(tool, "import os\nfor n in sorted(os.listdir()): print(n, open(n).read())")
    assert "a b_-2.csv 222\na b_.csv 111" in listed.output
    with pytest.raises(NotFound):
        await interpreter.open("you", settings)


async def test_pictures_are_shown_and_output_is_bounded(interpreter):
    tool = await interpreter.open("me", {})
    drawn = await run(tool, f"open('p.png', 'wb').write(bytes.fromhex('{PIXEL}'))\nprint('\\x1b[31m' + 'y' * 50000)")
    logs, image = drawn.fields["outputs"]
    assert image["type"] == "image" and image["url"].startswith("data:image/png;base64,iVBOR")
    assert "\x1b" not in logs["logs"] and "[cut: 30" in logs["logs"] and len(drawn.output) < 21_000
    quiet = await run(tool, "pass")
    assert quiet.output == "The program printed nothing." and quiet.fields["outputs"] == []
    for arguments in ("{}", '{"code": ""}', "[]"):
        with pytest.raises(ToolError):
            await tool.call("code_interpreter", arguments)


@pytest.mark.parametrize(
    "container",
    [
        {"type": "manual"},
        {"type": "auto", "memory_limit": "64g"},
        {"type": "auto", "network_policy": {"type": "allowlist", "allowed_domains": ["x.org"]}},
        {"type": "auto", "gpu": True},
        {"type": "auto", "file_ids": "file-1"},
        7,
    ],
)
async def test_what_cannot_be_honoured_is_refused(interpreter, container):
    with pytest.raises(InvalidRequest):
        await interpreter.open("me", {"container": container})


async def test_containers_go_when_unused_and_hold_their_bounds(interpreter, storage):
    clock = FakeClock()
    rows = ContainerRows(storage, clock=clock)
    kept = ContainerPool(await Sandbox.open(), rows, idle_s=10.0)
    one = await kept.create("me", {"a": b"1"}, memory_bytes=1 << 29)
    clock.advance(9)
    assert (await rows.get("me", one.id)).id == one.id
    await kept.run("me", one.id, "pass")
    clock.advance(9)
    assert not (await rows.get("me", one.id)).is_expired
    clock.advance(2)
    assert (await rows.get("me", one.id)).is_expired
    with pytest.raises(NotFound, match="expired; make another"):
        await kept.run("me", one.id, "pass")
    for name, data in (("/etc/x", b""), ("main.py", b""), ("big", bytes(40 << 20))):
        with pytest.raises(InvalidRequest):
            await kept.create("me", {name: data}, memory_bytes=1 << 29)


async def test_what_finds_no_room_is_named(storage, interpreter):
    kept = ContainerPool(await Sandbox.open(), ContainerRows(storage))
    one = await kept.create("me", {"first": bytes(30 << 20)}, memory_bytes=1 << 29)
    run = await kept.run("me", one.id, "open('a', 'wb').write(bytes(900_000)); open('b', 'wb').write(bytes(900_000))")
    assert set(run.kept) == {"a"} and run.result.left_out == ("b",) and list(run.result.files) == ["a"]


async def test_it_does_not_start_where_a_layer_is_missing(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="bubblewrap"):
        await build({}, {}).start()


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="no setting 'memory'"):
        build({"memory": 1}, {})
    with pytest.raises(ConfigError, match="packages"):
        build({"packages": "/nowhere/at/all"}, {})
