"""Tries every wall of the sandbox from inside and prints a JSON object of wall -> whether it stands.

Runs as untrusted code does, so it imports nothing but the standard library.
"""

import ctypes
import json
import os
import resource
import socket
import sys


def fails(attempt) -> bool:
    """Whether the kernel refuses."""
    try:
        attempt()
    except (OSError, RuntimeError):
        return True
    return False


def status() -> dict:
    """The kernel's view of this process."""
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def reach(address: tuple) -> None:
    """Open a connection."""
    with socket.socket() as connection:
        connection.settimeout(1)
        connection.connect(address)


def fork() -> None:
    """Make a process, and end it."""
    if os.fork() == 0:
        os._exit(0)


def new_namespace() -> None:
    """Ask for a user namespace."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")


facts = status()
with open("/proc/net/dev") as file:
    interfaces = {line.split(":")[0].strip() for line in file if ":" in line}
walls = {
    "an ordinary user": os.getuid() != 0 and os.geteuid() != 0 and set(facts["Uid"].split()) == {str(os.getuid())},
    "no capabilities": int(facts["CapEff"], 16) == 0 and int(facts["CapPrm"], 16) == 0,
    "no new privileges": facts["NoNewPrivs"] == "1",
    "a system call filter": facts["Seccomp"] == "2",
    "a network namespace": interfaces <= {"lo"},
    "no sockets": fails(socket.socket) and fails(lambda: reach(("127.0.0.1", 9))),
    "no new processes": fails(fork),
    "no new namespaces": fails(new_namespace),
    "a process namespace": os.getpid() < 10,
    "a read-only root": all(
        os.statvfs(place).f_flag & os.ST_RDONLY
        and fails(lambda place=place: os.open(place + "/x", os.O_CREAT | os.O_WRONLY))
        for place in ("/", "/usr", "/dev", sys.base_prefix)
    ),
    "no files of the machine": not any(map(os.path.exists, ("/etc/passwd", "/home", "/var", "/run", "/sys", "/tmp"))),
    "an empty environment": not {"USER", "LOGNAME", "OPENAI_API_KEY", "HF_TOKEN"} & set(os.environ),
    "a memory limit": resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY,
    "a processor limit": resource.getrlimit(resource.RLIMIT_CPU)[1] != resource.RLIM_INFINITY,
    "a thread limit": resource.getrlimit(resource.RLIMIT_NPROC)[1] != resource.RLIM_INFINITY,
    "no core dumps": resource.getrlimit(resource.RLIMIT_CORE) == (0, 0),
    "a disk limit": os.statvfs("/work").f_blocks * os.statvfs("/work").f_frsize < 1 << 40,
}
print(json.dumps(walls))
