"""The interpreter's walls, tried from inside; skipped where bubblewrap is not installed."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamakit.core.errors import ConfigError, InvalidRequest, SandboxUnavailable
from llamakit.sandbox import interpreter
from llamakit.sandbox.bubblewrap import Walls
from llamakit.sandbox.interpreter import Sandbox, SandboxLimits, is_file_name

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture
async def sandbox() -> Sandbox:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    try:
        return await Sandbox.open(SandboxLimits(wall_s=20.0))
    except SandboxUnavailable as error:
        pytest.skip(f"no namespaces here: {error}")


async def test_text_and_files_go_in_and_come_out(sandbox: Sandbox):
    code = """
import json, sys, pathlib
rows = pathlib.Path("in/data.csv").read_text().split()
pathlib.Path("out").mkdir()
pathlib.Path("out/sum.json").write_text(json.dumps(sum(map(int, rows))))
print("read", len(rows), "ü", sys.stdin.read())
print("aside", file=sys.stderr)
"""
    result = await sandbox.run(code, files={"in/data.csv": b"1\n2\n39\n"}, stdin=b"and input")
    assert (result.status, result.exit_code) == ("ok", 0)
    assert result.stdout == "read 3 ü and input\n" and result.stderr == "aside\n"
    assert result.files == {"out/sum.json": b"42"}


async def test_an_error_shows_the_codes_own_lines_only(sandbox: Sandbox):
    result = await sandbox.run("def f():\n    return 1 / 0\nf()\n")
    assert result.status == "error" and result.exit_code == 1
    assert "line 2, in f" in result.stderr and "ZeroDivisionError" in result.stderr
    assert "<string>" not in result.stderr
    assert "SyntaxError" in (await sandbox.run("def f(:")).stderr


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("raise SystemExit", "ok", 0),
        ("exit(3)", "error", 3),
        ("import sys; sys.exit('words')", "error", 1),
        ("import os; os._exit(7)", "error", 7),
        ("import os; os.kill(os.getpid(), 9)", "killed", None),
        ("import ctypes; ctypes.string_at(0)", "killed", None),
        ("import os; os.close(1); os.close(2); print('x')", "ok", 0),
        ("raise KeyboardInterrupt", "error", 1),
        ("", "ok", 0),
    ],
)
async def test_every_end_has_a_name(sandbox: Sandbox, code: str, status: str, exit_code: int | None):
    result = await sandbox.run(code)
    assert (result.status, result.exit_code) == (status, exit_code)


async def test_ordinary_programs_work(sandbox: Sandbox):
    result = await sandbox.run(
        "import asyncio, collections, csv, datetime, decimal, hashlib, json, math, random, re, sqlite3, statistics\n"
        "import tempfile, threading, concurrent.futures, zipfile, shutil, os, uuid, zoneinfo\n"
        "async def main():\n"
        "    await asyncio.sleep(0.01)\n"
        "    return await asyncio.to_thread(sum, range(10))\n"
        "assert asyncio.run(main()) == 45\n"
        "with concurrent.futures.ThreadPoolExecutor(4) as pool:\n"
        "    assert list(pool.map(math.sqrt, [4, 9])) == [2, 3]\n"
        "db = sqlite3.connect('x.db'); db.execute('create table t (a)'); db.commit()\n"
        "with tempfile.NamedTemporaryFile() as file: file.write(b'x')\n"
        "shutil.copy('x.db', 'y.db'); os.rename('y.db', 'z.db')\n"
        "with zipfile.ZipFile('a.zip', 'w') as z: z.write('z.db')\n"
        "print(uuid.uuid4().version, os.getcwd())\n"
    )
    assert result.stdout == "4 /work\n", result.stderr
    assert set(result.files) == {"x.db", "z.db", "a.zip"}


# Each prints OUT if it gets anywhere.
ESCAPES = {
    "password file": "open('/etc/passwd').read(); print('OUT')",
    "shadow file": "open('/etc/shadow').read(); print('OUT')",
    "home": "import os; os.listdir('/home'); print('OUT')",
    "other processes": "import os; print('OUT' if len([p for p in os.listdir('/proc') if p.isdigit()]) > 3 else '')",
    "environment of the first": "e = open('/proc/1/environ').read(); print('OUT' if 'KEY' in e or 'PATH' in e else '')",
    "memory of the first": "open('/proc/1/mem', 'rb').read(1); print('OUT')",
    "root of the first": "import os; os.listdir('/proc/1/root/home'); print('OUT')",
    "descriptors of the first": "import os; os.listdir('/proc/1/fd'); print('OUT')",
    "write to root": "open('/x', 'w'); print('OUT')",
    "write to usr": "open('/usr/x', 'w'); print('OUT')",
    "write to dev": "open('/dev/shm/x', 'w'); print('OUT')",
    "write to python": "import json; open(json.__file__, 'a'); print('OUT')",
    "write to proc": "open('/proc/sys/kernel/hostname', 'w').write('x'); print('OUT')",
    "sysrq": "open('/proc/sysrq-trigger', 'w').write('b'); print('OUT')",
    "cgroups": "import os; os.listdir('/sys/fs/cgroup'); print('OUT')",
    "disks": "import os; os.mknod('disk', 0o60666, os.makedev(8, 0)); open('disk', 'rb').read(1); print('OUT')",
    "kernel memory": "open('/dev/mem', 'rb'); print('OUT')",
    "kernel log": "open('/dev/kmsg'); print('OUT')",
    "tcp": "import socket; socket.create_connection(('1.1.1.1', 80), 1); print('OUT')",
    "tcp to the host": "import socket; socket.create_connection(('127.0.0.1', PORT), 1); print('OUT')",
    "udp": "import socket; socket.socket(2, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53)); print('OUT')",
    "dns": "import socket; socket.getaddrinfo('example.com', 80); print('OUT')",
    "raw socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print('OUT')",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); print('OUT')",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX).connect('/run/x'); print('OUT')",
    "abstract socket": "import socket; socket.socket(socket.AF_UNIX).bind('\\0x'); print('OUT')",
    "vsock": "import socket; socket.socket(40, 1); print('OUT')",
    "fork": "import os; os.fork(); print('OUT')",
    "subprocess": "import subprocess; subprocess.run(['ls']); print('OUT')",
    "multiprocessing": "import multiprocessing as m; p = m.Process(target=print); p.start(); p.join(); print('OUT')",
    "system": "import os; print('OUT' if os.system('true') == 0 else '')",
    "root": "import os; os.setuid(0); print('OUT')",
    "root group": "import os; os.setgid(0); print('OUT')",
    "root by setresuid": "import os; os.setresuid(0, 0, 0); print('OUT')",
    "set-uid program": "import os; os.execv('/usr/bin/su', ['su', '-c', 'echo OUT'])",
    "chroot": "import os; os.chroot('/work'); print('OUT')",
    "nice": "import os; os.nice(-5); print('OUT')",
    "raise limits": "import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40)); print('OUT')",
    "raise file limit": "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (1 << 16, 1 << 16)); print('OUT')",
    "symlink": "import os; os.symlink('/etc/shadow', 'a'); open('a').read(); print('OUT')",
    "hard link": "import os; os.link('/usr/bin/env', 'a'); print('OUT')",
    "memory file": "import os; os.memfd_create('x'); print('OUT')",
    "kill everybody": "import os; os.kill(-1, 0); print('OUT' if len(os.listdir('/proc')) > 200 else '')",
    "terminal": "open('/dev/tty', 'w').write('x'); print('OUT')",
    "clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0); print('OUT')",
    "host name": "import socket; socket.sethostname('x'); print('OUT')",
}

# System calls by number on x86-64, with arguments that would work if they were allowed.
CALLS = {
    "ptrace": (101, 0, 0, 0, 0), "mount": (165, 0, b"/work", b"tmpfs", 0, 0), "umount": (166, b"/proc", 2),
    "pivot_root": (155, b"/work", b"/work"), "unshare user": (272, 0x10000000), "unshare mount": (272, 0x20000),
    "setns": (308, 3, 0), "bpf": (321, 0, 0, 0), "perf_event_open": (298, 0, 0, -1, -1, 0), "userfaultfd": (323, 0),
    "io_uring_setup": (425, 8, 0), "keyctl": (250, 0, -3, 0), "add_key": (248, b"user", b"k", b"v", 1, -2),
    "request_key": (249, b"user", b"k", 0, 0), "init_module": (175, 0, 0, b""), "finit_module": (313, 0, b"", 0),
    "kexec_load": (246, 0, 0, 0, 0), "reboot": (169, 0xFEE1DEAD, 672274793, 0), "swapon": (167, b"/work/x", 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0), "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "open_by_handle_at": (304, 0, 0, 0), "name_to_handle_at": (303, -100, b"/", 0, 0, 0), "clone3": (435, 0, 0),
    "fsopen": (430, b"tmpfs", 0), "move_mount": (429, 0, b"", 0, b"", 0), "open_tree": (428, -100, b"/", 0),
    "quotactl": (179, 0, 0, 0, 0), "personality": (135, 0x0040000), "iopl": (172, 3), "ioperm": (173, 0, 1, 1),
    "syslog": (103, 3, 0, 0), "acct": (163, 0), "sethostname": (170, b"x", 1), "settimeofday": (164, 0, 0),
    "adjtimex": (159, 0), "fanotify_init": (300, 0, 0), "pidfd_open": (434, 1, 0), "pidfd_getfd": (438, 3, 0, 0),
    "memfd_secret": (447, 0), "vmsplice": (278, 0, 0, 0, 0), "mknodat": (259, -100, b"/work/n", 0o20666, 259),
    "fork": (57,), "vfork": (58,), "socket": (41, 2, 1, 0), "shmget": (29, 0, 4096, 0o1600),
    "msgget": (68, 0, 0o1600), "semget": (64, 0, 1, 0o1600), "mq_open": (240, b"q", 0o100, 0, 0),
    "migrate_pages": (256, 1, 0, 0, 0), "mbind": (237, 0, 0, 0, 0, 0, 0), "seccomp": (317, 0, 0, 0),
    "tiocsti": (16, 0, 0x5412, b"x"), "openat2": (437, -100, b"/work", 0, 24), "f_setown": (72, 0, 8, 1),
    "clone a user namespace": (56, 0x10010000, 0, 0, 0, 0), "become dumpable": (157, 4, 1, 0, 0, 0),
}  # fmt: skip


async def test_there_is_no_way_out(sandbox: Sandbox):
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    names = list(ESCAPES)
    codes = [ESCAPES[name].replace("PORT", str(port)) for name in names]
    results = await asyncio.gather(*(sandbox.run(code) for code in codes))
    listener.close()
    out = [name for name, result in zip(names, results, strict=True) if "OUT" in result.stdout]
    assert out == []


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
async def test_no_dangerous_system_call_is_let_through(sandbox: Sandbox):
    code = (
        "import ctypes, json\n"
        "lib = ctypes.CDLL(None, use_errno=True)\n"
        "lib.syscall.restype = ctypes.c_long\n"
        f"calls = {CALLS!r}\n"
        "found = {}\n"
        "for name, (number, *arguments) in calls.items():\n"
        "    ctypes.set_errno(0)\n"
        "    given = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]\n"
        "    got = lib.syscall(number, *given)\n"
        "    found[name] = [got, ctypes.get_errno()]\n"
        "print(json.dumps(found))\n"
    )
    result = await sandbox.run(code)
    found = json.loads(result.stdout)
    assert len(found) == len(CALLS) >= 50
    passed = {name: ended for name, ended in found.items() if ended not in ([-1, 1], [-1, 38])}  # EPERM, ENOSYS
    assert passed == {}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = b'x' * (1 << 30)", {"error"}),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", {"error", "killed"}),
        ("open('a', 'wb').write(b'x' * (200 << 20))", {"error"}),
        ("for n in range(100): open(str(n), 'wb').write(b'x' * (4 << 20))", {"error"}),
        ("x = [open('a', 'w') for _ in range(1000)]", {"error"}),
        ("import threading as t, time\nfor _ in range(500): t.Thread(target=time.sleep, args=(9,)).start()",
         {"error", "timeout"}),
        ("import os\nx = [os.pipe() for _ in range(1000)]", {"error"}),
        ("def f(): f()\nf()", {"error"}),
        ("import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()", {"error", "killed", "timeout"}),
    ],
)  # fmt: skip
async def test_hunger_ends_at_its_limit(sandbox: Sandbox, code: str, expected: set[str]):
    result = await sandbox.run(code, limits=SandboxLimits(wall_s=5.0))
    assert result.status in expected, result


async def test_time_and_output_end_it(sandbox: Sandbox):
    started = time.monotonic()
    result = await sandbox.run("import time; time.sleep(60)", limits=SandboxLimits(wall_s=0.5))
    assert result.status == "timeout" and time.monotonic() - started < 1.5
    result = await sandbox.run("while True: pass", limits=SandboxLimits(cpu_s=1, wall_s=20))
    assert result.status == "killed"
    stubborn = (
        "import signal, time\nfor s in range(1, 32):\n  try: signal.signal(s, lambda *a: 0)\n  except OSError: pass\n"
    )
    result = await sandbox.run(stubborn + "while True: time.sleep(1)", limits=SandboxLimits(wall_s=0.5))
    assert result.status == "timeout"
    started = time.monotonic()
    result = await sandbox.run("while True: print('x' * 1000)", limits=SandboxLimits(output_bytes=10_000))
    assert result.status == "output limit" and len(result.stdout) + len(result.stderr) == 10_000
    assert time.monotonic() - started < 5


async def test_what_comes_back_is_bounded_and_named_plainly(sandbox: Sandbox):
    code = """
import os, json
os.symlink("/etc/passwd", "link")
for n in range(20): open(f"f{n}", "w").write("x")
os.mkdir("d"); open("d/inner", "w").write("y")
"""
    result = await sandbox.run(code, limits=SandboxLimits(files=5))
    assert len(result.files) == 5 and len(result.left_out) == 5
    assert "link" not in result.files
    forged = r"""
import os
for fd in range(3, 1024):
    try:
        os.write(fd, b'{"path": "../../etc/evil", "size": 1}\nx')
        os.write(fd, b'{"path": "/etc/evil", "size": 1}\nx{"path": "a", "size": 99999999}\n')
    except OSError: pass
"""
    result = await sandbox.run(forged)
    assert not any("evil" in path for path in result.files)
    flood = (
        "import os\n"
        "for fd in range(3, 1024):\n  try:\n    while True: os.write(fd, b'x' * 65536)\n  except OSError: pass\n"
    )
    result = await sandbox.run(flood, limits=SandboxLimits(files_bytes=1 << 20))
    assert result.status == "output limit"


async def test_runs_share_nothing_and_leave_nothing(sandbox: Sandbox):
    before = {pid for pid in os.listdir("/proc") if pid.isdigit()}
    results = await asyncio.gather(
        *(sandbox.run(f"import os; print(os.listdir('.')); open('mine{n}', 'w').write('x')") for n in range(20))
    )
    assert {result.stdout for result in results} == {"['main.py']\n"}
    await asyncio.sleep(0.2)
    after = {pid for pid in os.listdir("/proc") if pid.isdigit()} - before
    names = [_command(pid) for pid in after]
    assert not [name for name in names if "bwrap" in name or "/work/main.py" in name]


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def test_a_cancelled_run_is_killed(sandbox: Sandbox):
    task = asyncio.create_task(sandbox.run("import time; time.sleep(60)"))
    await asyncio.sleep(0.4)
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a/../b", "a//b", "a/", ".", "..", "", "a\0b", "a\nb", "a\\b", "x" * 300]
)
def test_odd_file_names_are_refused(name: str):
    assert not is_file_name(name)


async def test_odd_files_are_refused_before_anything_runs(sandbox: Sandbox):
    with pytest.raises(InvalidRequest, match="relative path"):
        await sandbox.run("pass", files={"../x": b""})
    with pytest.raises(InvalidRequest, match="exceed"):
        await sandbox.run("pass", files={"x": bytes(40 << 20)})
    assert is_file_name("a/b c.txt") and is_file_name(".hidden") and is_file_name("a..b")


async def test_without_bubblewrap_there_is_no_sandbox(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="bubblewrap"):
        await Sandbox.open()


@needs_bubblewrap
@pytest.mark.parametrize("wall", ["--unshare-net", "--unshare-pid", "--seccomp", "--remount-ro"])
async def test_a_missing_wall_is_noticed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, wall: str):
    """Red-green: take one wall away and the probe must refuse."""
    build = Walls.command

    def weakened(self: Walls, **options: object) -> list[str]:
        arguments = build(self, **options)
        while wall in arguments:
            at = arguments.index(wall)
            del arguments[at : at + (1 if wall.startswith("--unshare") else 2)]
        return arguments

    monkeypatch.setattr(Walls, "command", weakened)
    with pytest.raises(SandboxUnavailable, match="lacks"):
        await Sandbox.open()


@needs_bubblewrap
async def test_a_missing_limit_is_noticed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interpreter.SandboxLimits, "resources", lambda self: {})
    with pytest.raises(SandboxUnavailable, match="memory limit"):
        await Sandbox.open()


def test_limits_are_positive():
    with pytest.raises(ConfigError, match="wall_s"):
        SandboxLimits(wall_s=0)


_AS_NOBODY = """
import asyncio
from llamakit.sandbox.interpreter import Sandbox
async def main():
    sandbox = await Sandbox.open()
    result = await sandbox.run("import os; print(os.getuid()); open('o', 'w').write('x')")
    print(result.status, result.stdout.strip(), dict(result.files))
asyncio.run(main())
"""


@needs_bubblewrap
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run unprivileged already")
def test_it_stands_without_root_too():
    python = Path("/usr/bin/python3")
    source = Path(interpreter.__file__).resolve().parents[2]
    if not python.exists() or sys.version_info[:2] != (3, 11):
        pytest.skip("needs a second Python outside root's home")
    done = subprocess.run(
        [python, "-B", "-c", _AS_NOBODY],
        env={"PYTHONPATH": str(source), "PATH": os.environ["PATH"]},
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "SandboxUnavailable" in done.stderr and "built" in done.stderr:
        pytest.skip("user namespaces are closed to unprivileged users here")
    assert done.stdout.split()[0] == "ok" and done.stdout.split()[1] != "0", done.stderr
