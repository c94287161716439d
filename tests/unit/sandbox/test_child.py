import asyncio
import os
import platform
import time
from pathlib import Path

import pytest

from llamakit.core.errors import DocumentError
from llamakit.sandbox.child import ChildLimits, read_in_child

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere a child has limits only")
READERS = "tests.unit.sandbox.readers"


@pytest.fixture(autouse=True)
def readers_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).resolve().parents[3])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))


async def read(name: str, document: bytes = b"", limits: ChildLimits | None = None, **options: object):
    return await read_in_child(f"{READERS}:{name}", document, options, limits=limits)


async def test_a_reader_answers_from_behind_its_walls(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
    answer = await read("echo", b"x" * 3_000_000, a=1)
    assert (answer.value["size"], answer.value["options"]) == (3_000_000, {"a": 1})
    assert "hunter2" not in str(answer.value)
    assert {"limits", "no new privileges", "system call filter"} <= set(answer.layers)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("refuse", "page 3 is damaged"),
        ("break_down", "KeyError"),
        ("swell", "memory|died"),
        ("spin", "died"),
        ("flood", "more than 1048576 bytes of text"),
        ("die", "died"),
        ("nest", "nested too deeply|died"),
        ("shout", "more than|died"),
        ("missing", "AttributeError"),
    ],
)
async def test_whatever_a_reader_does_is_told_as_the_documents_fault(name: str, said: str):
    limits = ChildLimits(cpu_s=1, wall_s=20, answer_bytes=1 << 20)
    with pytest.raises(DocumentError, match=said):
        await read(name, b"", limits)


async def test_a_reader_that_hangs_is_killed_in_time():
    started = time.monotonic()
    with pytest.raises(DocumentError, match=r"longer than 0.5 s"):
        await read("hang", b"", ChildLimits(wall_s=0.5))
    assert time.monotonic() - started < 2.5


async def test_a_cancelled_caller_leaves_no_child():
    others = set(_children())  # of tests that ran before
    task = asyncio.create_task(read("hang"))
    await asyncio.sleep(0.5)
    own = set(_children()) - others
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert own and not own & set(_children())


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in text.split()]


@pytest.mark.parametrize(
    "way",
    ["network", "socket", "unix socket", "process", "fork", "exec", "write", "remove", "read", "list", "kill", "limit",
     "trace", "memory", "environment", "raise limits"],
)  # fmt: skip
async def test_there_is_no_way_out(way: str, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    document = str(port).encode() if way == "network" else str(secret).encode()
    answer = await read("escape", document, way=way)
    if way in ("read", "list") and "landlock" not in answer.layers:
        pytest.skip("this kernel has no Landlock to bound what may be read")
    assert answer.value.startswith("refused")
    assert secret.read_text() == "hunter2"
    listener.close()
