"""What a child process does to itself before it reads a foreign document: it gives up almost everything.

Limits of memory and time, no new privileges, no network of its own where the kernel lets it have a
namespace, no files but Python's where Landlock is there, and a filter of system calls. On Linux the
limits, the privileges and the filter must all take hold; elsewhere only the limits exist.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Iterable

from llamakit.core.errors import SandboxUnavailable
from llamakit.sandbox.seccomp import reader_filter

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 38, 22, 1, 4
_SECCOMP_MODE_FILTER = 2
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SIGKILL = 9

# Landlock (linux/landlock.h): the numbers are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_EVERY_RIGHT_OF_ABI_1 = (1 << 13) - 1
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_VERSION_FLAG = 1


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def limit(*, memory_bytes: int, cpu_s: int, open_files: int = 64) -> None:
    """Set the kernel's limits for good; the address space counts what is mapped already."""
    for name, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(name, (value, value))
        except (ValueError, OSError) as error:
            if sys.platform == "linux":
                raise SandboxUnavailable(f"the limit {name} could not be set: {error}") from error


def lock(readable: Iterable[str]) -> list[str]:
    """Give up the rest; the names of the layers that hold. `readable` are the folders files may be read from.

    Raises `SandboxUnavailable` where Linux refuses a layer that must hold.
    """
    if sys.platform != "linux":
        return ["limits"]
    library = ctypes.CDLL(None, use_errno=True)
    layers = ["limits"]
    _must(library.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "death with its parent")
    _must(library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _must(library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "no core dumps")
    layers.append("no new privileges")
    if library.unshare(_NEW_USER | _NEW_NET) == 0:
        layers.append("network namespace")
    if _landlock(library, readable):
        layers.append("landlock")
    code = reader_filter()
    program = _Program(len(code) // 8, code)
    _must(library.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "a filter of system calls")
    layers.append("system call filter")
    return layers


def _must(result: int, layer: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise SandboxUnavailable(f"a reader's process lacks {layer}: {os.strerror(code)}; documents are not read here")


def _landlock(library: ctypes.CDLL, readable: Iterable[str]) -> bool:
    """Deny every file but what lies under `readable`; False where the kernel has no Landlock."""
    if library.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG) < 1:
        return False
    handled = struct.pack("<Q", _EVERY_RIGHT_OF_ABI_1)
    ruleset = library.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return False
    try:
        for folder in readable:
            if not os.path.isdir(folder):
                continue
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = struct.pack("<Qi", _READ_FILE | _READ_FOLDER, descriptor)
                _must(library.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0), f"a view of {folder}")
            finally:
                os.close(descriptor)
        _must(library.syscall(_RESTRICT_SELF, ruleset, 0), "a bounded view of files")
    finally:
        os.close(ruleset)
    return True
