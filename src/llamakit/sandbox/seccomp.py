"""Filters of system calls, as the bytes the kernel takes: what is not named is refused.

Three filters: one for untrusted Python in the sandbox, one for a shell there, which may make processes, and one for
a document reader, which may not even open a file for writing. All refuse sockets, namespaces, tracing, mounts, keys
and everything newer than this list. A refused call returns an error, so that a program can go on.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from llamakit.core.errors import SandboxUnavailable
from llamakit.sandbox.syscalls import ARCHITECTURES, NUMBERS

# Classic BPF as in linux/filter.h: opcodes, and offsets into struct seccomp_data.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_X32_BIT = 0x40000000

_CLONE_THREAD = 0x00010000
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME} and CLONE_{PTRACE,UNTRACED}, CLONE_INTO_CGROUP is clone3 only.
_CLONE_FORBIDDEN = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x80
_WRITING = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND and O_TMPFILE's own bit; the same on both architectures."""
_AF_UNIX = 1
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Never TIOCSTI: it types into terminals."""
_PRCTLS = (3, 15, 16, 21, 23, 39, 0x53564D41)
"""Reading dumpable, seccomp, capability bounds, no_new_privs; naming threads and memory."""


_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1031, 1032)
"""Duplicates, flags, locks, pipe sizes. Never F_SETOWN: it sends signals to others."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A call that is allowed only with certain arguments; only their low 32 bits matter for these."""

    name: str
    argument: int
    kind: Literal["one of", "has and has not", "has not"]
    values: tuple[int, ...]


_READING = """
read close fstat stat lstat newfstatat statx lseek mmap mprotect munmap mremap madvise brk rt_sigaction rt_sigprocmask
rt_sigreturn rt_sigpending rt_sigtimedwait sigaltstack pread64 readv preadv access faccessat faccessat2 pipe pipe2
select pselect6 poll ppoll sched_yield sched_getaffinity mincore dup dup2 dup3 pause nanosleep clock_nanosleep
getitimer setitimer alarm getpid getppid gettid exit exit_group write writev uname getdents64 getcwd readlink
readlinkat gettimeofday getrlimit getrusage sysinfo times getuid getgid geteuid getegid getgroups getresuid getresgid
getpgid getpgrp getsid statfs fstatfs arch_prctl time futex futex_waitv set_tid_address set_robust_list
get_robust_list rseq clock_gettime clock_getres epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
epoll_pwait2 eventfd eventfd2 getrandom fadvise64 membarrier getcpu close_range restart_syscall
"""

# In the sandbox every file and process is its own. setres* are for dropping root before the code starts.
_WORKING = """
msync wait4 waitid kill tgkill prlimit64 flock fsync fdatasync pwrite64 pwritev truncate ftruncate chdir fchdir rename
renameat renameat2 mkdir mkdirat rmdir creat open openat link linkat unlink unlinkat symlink symlinkat chmod fchmod
fchmodat umask setresuid setresgid setgroups utimensat utimes copy_file_range sendfile fallocate execve sendmsg
recvmsg sendto recvfrom shutdown getsockopt setsockopt getsockname getpeername
"""

_PROCESSES = "fork vfork rt_sigsuspend setpgid setsid"
"""What a shell needs to make processes and wait for them, beside a `clone` that makes more than threads."""

_THREADS_ONLY = Rule("clone", 0, "has and has not", (_CLONE_THREAD, _CLONE_FORBIDDEN))
_NO_NAMESPACES = Rule("clone", 0, "has not", (_CLONE_FORBIDDEN,))
_COMMON_RULES = (
    Rule("socketpair", 0, "one of", (_AF_UNIX,)),
    Rule("ioctl", 1, "one of", _IOCTLS),
    Rule("fcntl", 1, "one of", _FCNTLS),
    Rule("prctl", 0, "one of", _PRCTLS),
)
_READ_ONLY_RULES = (Rule("open", 1, "has not", (_WRITING,)), Rule("openat", 2, "has not", (_WRITING,)))

# The C library asks for clone3 and openat2 first and falls back where they do not exist; their arguments lie in
# memory, where no filter can look.
_ABSENT = ("clone3", "openat2")
_UNSUPPORTED = ("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr")
"""What programs such as `ls` ask for and do without where a file system has none."""


def interpreter_filter() -> bytes:
    """The filter of the sandbox: Python with files and threads, without processes and sockets."""
    return _assemble(f"{_READING} {_WORKING}".split(), (_THREADS_ONLY, *_COMMON_RULES))


def shell_filter() -> bytes:
    """The same with processes, still without namespaces and sockets."""
    return _assemble(f"{_READING} {_WORKING} {_PROCESSES}".split(), (_NO_NAMESPACES, *_COMMON_RULES))


def reader_filter() -> bytes:
    """The filter of this process as a document reader: memory, clocks, threads, files opened for reading."""
    # Signals and limits of other processes are out of reach: the reader has no process namespace of its own.
    own = (Rule("tgkill", 0, "one of", (os.getpid(),)), Rule("prlimit64", 0, "one of", (0, os.getpid())))
    return _assemble(_READING.split(), (_THREADS_ONLY, *_COMMON_RULES, *_READ_ONLY_RULES, *own))


def _instruction(code: int, operand: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, when_true, when_false, operand)


def _refuse(code: int) -> bytes:
    return _instruction(_RETURN, _ERROR | code)


def _assemble(allowed: Iterable[str], rules: Sequence[Rule]) -> bytes:
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in ARCHITECTURES:
        raise SandboxUnavailable(
            f"system calls cannot be filtered on {platform.system()} {machine}; needed is Linux on "
            f"{' or '.join(ARCHITECTURES)}"
        )
    column, constant = ARCHITECTURES[machine]
    program = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_EQUAL, constant, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        # The x32 calling convention reaches the same calls under other numbers.
        program += [_instruction(_AT_LEAST, _X32_BIT, 0, 1), _instruction(_RETURN, _KILL)]
    for name in allowed:
        program += _for_call(NUMBERS[name][column], [_instruction(_RETURN, _ALLOW)])
    for rule in rules:
        program += _for_call(NUMBERS[rule.name][column], _conditional(rule))
    for name in _ABSENT:
        program += _for_call(NUMBERS[name][column], [_refuse(errno.ENOSYS)])
    for name in _UNSUPPORTED:
        program += _for_call(NUMBERS[name][column], [_refuse(errno.EOPNOTSUPP)])
    program.append(_refuse(errno.EPERM))
    return b"".join(program)


def _for_call(number: int | None, body: list[bytes]) -> list[bytes]:
    """`body`, reached only by that call; it ends in a return, so the number stays loaded for the next."""
    return [] if number is None else [_instruction(_EQUAL, number, 0, len(body)), *body]


def _conditional(rule: Rule) -> list[bytes]:
    allow, refuse = _instruction(_RETURN, _ALLOW), _refuse(errno.EPERM)
    load = _instruction(_LOAD, _ARGUMENTS_AT + 8 * rule.argument)
    match rule.kind:
        case "one of":
            tests = [
                _instruction(_EQUAL, value, len(rule.values) - n, 0) for n, value in enumerate(rule.values)
            ]  # a match jumps over the remaining tests and the refusal
            return [load, *tests, refuse, allow]
        case "has and has not":
            wanted, forbidden = rule.values
            return [
                load,
                _instruction(_ANY_BIT, forbidden, 1, 0),
                _instruction(_ANY_BIT, wanted, 1, 0),
                refuse,
                allow,
            ]
        case "has not":
            return [load, _instruction(_ANY_BIT, rule.values[0], 0, 1), refuse, allow]
