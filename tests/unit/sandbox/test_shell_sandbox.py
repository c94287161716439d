"""The walls of the sandbox for shells: those of the interpreter, but for processes, which are counted together."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time

import pytest
from tests.unit.sandbox.test_interpreter import CALLS, ESCAPES

from llamakit.core.errors import SandboxUnavailable
from llamakit.sandbox import interpreter
from llamakit.sandbox.interpreter import Sandbox, SandboxLimits

PROCESSES = ("fork", "vfork", "subprocess", "multiprocessing", "system")
SHELL = "import subprocess, sys; sys.exit(subprocess.run(['/bin/sh', '-c', {!r}]).returncode)"


@pytest.fixture
async def sandbox() -> Sandbox:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    try:
        return await (await Sandbox.open(SandboxLimits(wall_s=20.0, memory_bytes=256 << 20))).with_processes()
    except SandboxUnavailable as error:
        pytest.skip(f"no namespaces here: {error}")


async def test_commands_run_and_leave_files(sandbox: Sandbox):
    code = SHELL.format("for n in 1 2 3; do echo $n; done | tac > out.txt; cat out.txt; ls -l out.txt; exit 4")
    result = await sandbox.run(code)
    assert (result.exit_code, result.stdout[:6], result.stderr) == (4, "3\n2\n1\n", "")
    assert result.files == {"out.txt": b"3\n2\n1\n"}


async def test_there_is_no_way_out(sandbox: Sandbox):
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    tried = {name: code.replace("PORT", str(port)) for name, code in ESCAPES.items() if name not in PROCESSES}
    tried |= {
        "set-uid program of a shell": SHELL.format("su -c 'echo OUT'"),
        "mount of a shell": SHELL.format("mount -t tmpfs none /work && echo OUT"),
        "unshare of a shell": SHELL.format("unshare -r true && echo OUT"),
        "ping of a shell": SHELL.format(f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo OUT"),
    }
    results = await asyncio.gather(*(sandbox.run(code) for code in tried.values()))
    listener.close()
    out = [name for name, result in zip(tried, results, strict=True) if "OUT" in result.stdout]
    assert out == []


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
async def test_no_dangerous_system_call_is_let_through(sandbox: Sandbox):
    calls = {name: call for name, call in CALLS.items() if name not in PROCESSES}
    calls["clone into a user namespace"] = (56, 0x10000000 | 17, 0, 0, 0, 0)
    code = (
        "import ctypes, json\n"
        "lib = ctypes.CDLL(None, use_errno=True)\n"
        "lib.syscall.restype = ctypes.c_long\n"
        "found = {}\n"
        f"for name, (number, *arguments) in {calls!r}.items():\n"
        "    ctypes.set_errno(0)\n"
        "    given = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]\n"
        "    found[name] = [lib.syscall(number, *given), ctypes.get_errno()]\n"
        "print(json.dumps(found))\n"
    )
    found = json.loads((await sandbox.run(code)).stdout)
    passed = {name: ended for name, ended in found.items() if ended not in ([-1, 1], [-1, 38])}  # EPERM, ENOSYS
    assert len(found) == len(calls) and passed == {}


async def test_processes_have_their_memory_together(sandbox: Sandbox):
    hungry = 'python3 -c "x = bytearray(100 << 20); import time; time.sleep(10)" &'
    result = await sandbox.run(SHELL.format(f"{hungry * 4} wait"))
    assert result.status == "killed" and result.wall_s < 8


async def test_processes_are_few_and_end_with_the_run(sandbox: Sandbox):
    bomb = await sandbox.run(SHELL.format("b() { b | b & }; b; sleep 1; ls /proc | grep -c '^[0-9]'"))
    assert bomb.status in ("ok", "error", "killed")
    started = time.monotonic()
    left = await sandbox.run(SHELL.format("(sleep 30; echo late) & echo now"))
    assert left.stdout == "now\n" and time.monotonic() - started < 10


async def test_a_missing_wall_is_named(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    everything = b"\x06\x00\x00\x00\x00\x00\xff\x7f"  # one instruction: allow
    monkeypatch.setattr(interpreter, "shell_filter", lambda: everything)
    with pytest.raises(SandboxUnavailable, match="no sockets"):
        await sandbox.with_processes()
