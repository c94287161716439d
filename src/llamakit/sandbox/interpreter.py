"""The code interpreter: untrusted Python behind kernel limits, from text and files to text and files.

`Sandbox.open` first runs a probe that tries every wall from inside, and refuses to exist where one
is missing; there is no weaker mode. Each run is a fresh interpreter with nothing left of the last.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from llamakit.core.errors import ConfigError, InvalidRequest, SandboxUnavailable
from llamakit.sandbox.bubblewrap import Walls
from llamakit.sandbox.seccomp import interpreter_filter, shell_filter
from llamakit.sandbox.watch import Left, held, watch

Status = Literal["ok", "error", "timeout", "output limit", "killed"]

_NAME = re.compile(r"(?!/)(?:(?!\.\.?(?:/|$))[A-Za-z0-9._ +@=-]{1,100}(?:/|$)){1,8}(?<!/)", re.ASCII)
_GUEST = Path(__file__).with_name("guest.py").read_text(encoding="utf-8")
_PROBE = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
MAX_GONE = 1024
_NO_PROCESSES = "no new processes"
"""The wall of the probe that a sandbox for shells does not have."""
_USERS = (1 << 30, 1 << 24)
"""First and number of user ids a root-run sandbox picks from; far above what systems give to people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxLimits:
    """What one run may use."""

    wall_s: float = 30.0
    cpu_s: int = 20
    memory_bytes: int = 512 << 20
    """Address space of the process."""
    disk_bytes: int = 64 << 20
    """Of its working folder, which lies in memory."""
    output_bytes: int = 1 << 20
    """Standard output and error together."""
    open_files: int = 128
    threads: int = 32
    files: int = 64
    """Files that may come back."""
    files_bytes: int = 32 << 20

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 < getattr(self, name) < 1 << 40:
                raise ConfigError(f"sandbox limit {name} must be positive, got {getattr(self, name)!r}")

    def resources(self) -> dict[str, int]:
        """The kernel's limits by their names in `resource`."""
        return {
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_CPU": self.cpu_s,
            "RLIMIT_FSIZE": self.disk_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_NPROC": self.threads,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
        }


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What a run left. All of it comes from untrusted code."""

    status: Status
    exit_code: int | None
    """Of the code; None when it was killed."""
    stdout: str
    stderr: str
    files: Mapping[str, bytes]
    """New and changed files by relative path."""
    gone: tuple[str, ...]
    """Files that were given and are there no more."""
    left_out: tuple[str, ...]
    """Files that were too many or too large to come back."""
    wall_s: float


class Sandbox:
    """Runs code; make it with `open`."""

    def __init__(self, walls: Walls, limits: SandboxLimits, places: asyncio.Semaphore, *, forks: bool = False) -> None:
        self.limits = limits
        self._walls = walls
        self._forks = forks
        self._filter = shell_filter() if forks else interpreter_filter()
        self._places = places

    @classmethod
    async def open(
        cls, limits: SandboxLimits | None = None, *, packages: Path | None = None, parallel: int = 4
    ) -> Self:
        """A sandbox whose walls were tried from inside; `SandboxUnavailable` names the one that is missing."""
        sandbox = cls(Walls.find(packages), limits or SandboxLimits(), asyncio.Semaphore(parallel))
        await sandbox._try_walls()
        return sandbox

    async def with_processes(self) -> Self:
        """The same, in the same places, where code may make processes: their memory counts together.

        Its walls, all but the one against processes, are tried, too.
        """
        sandbox = type(self)(self._walls, self.limits, self._places, forks=True)
        await sandbox._try_walls()
        return sandbox

    async def run(
        self,
        code: str,
        *,
        files: Mapping[str, bytes] | None = None,
        stdin: bytes = b"",
        limits: SandboxLimits | None = None,
    ) -> SandboxResult:
        """Run `code` as a program in a fresh folder that holds `files`.

        Raises `InvalidRequest` for a file name or size that cannot be, `SandboxUnavailable` where the
        walls cannot be built; whatever the code does is a result.
        """
        limits = limits or self.limits
        sent = {"main.py": code.encode("utf-8", "replace"), **(files or {})}
        for name in sent:
            if not is_file_name(name):
                raise InvalidRequest(f"a sandbox file name is a plain relative path, got {name[:80]!r}", param="files")
        if sum(map(len, sent.values())) > limits.disk_bytes // 2:
            raise InvalidRequest(f"the files exceed half of the sandbox's {limits.disk_bytes} bytes", param="files")
        async with self._places:
            return await self._run(sent, stdin, limits)

    async def _run(self, files: Mapping[str, bytes], stdin: bytes, limits: SandboxLimits) -> SandboxResult:
        with held(self._filter) as filter_fd, held(self._order(files, limits)) as order_fd:

            def command(back_fd: int) -> list[str]:
                # -S: nothing of the machine's packages is seen, and start-up is several times faster.
                python = [str(self._walls.python), "-I", "-S", "-B", "-X", "utf8", "-c", _GUEST]
                inner = [*python, str(order_fd), str(back_fd)]
                return self._walls.command(filter_fd=filter_fd, disk_bytes=limits.disk_bytes, inner=inner)

            left = await watch(
                command,
                (filter_fd, order_fd),
                stdin,
                wall_s=limits.wall_s,
                output_bytes=limits.output_bytes,
                back_bytes=limits.files_bytes + (limits.files + 2) * 1024,
                tree_bytes=limits.memory_bytes if self._forks else None,
            )
        return _result(left, limits)

    def _order(self, files: Mapping[str, bytes], limits: SandboxLimits) -> bytes:
        first, count = _USERS
        order = {
            "user": first + secrets.randbelow(count) if self._walls.needs_user else None,
            "limits": limits.resources(),
            "path": ["/packages"] if self._walls.packages else [],
            "main": "main.py",
            "files": [[name, len(data)] for name, data in files.items()],
            "most_files": limits.files,
            "most_bytes": limits.files_bytes,
        }
        head = json.dumps(order).encode()
        return b"%012d" % len(head) + head + b"".join(files.values())

    async def _try_walls(self) -> None:
        result = await self.run(_PROBE)
        if result.status != "ok":
            raise SandboxUnavailable(
                f"the sandbox does not start here ({result.status}): {result.stderr.strip()[-300:] or 'no message'}"
            )
        try:
            walls = json.loads(result.stdout).items()
            missing = [str(wall) for wall, stands in walls if stands is not (not self._forks or wall != _NO_PROCESSES)]
        except ValueError as error:
            raise SandboxUnavailable(f"the sandbox's probe said {result.stdout[:200]!r}") from error
        if missing:
            raise SandboxUnavailable(f"the sandbox lacks: {', '.join(missing)}; it is not used without")


def is_file_name(name: str) -> bool:
    """Whether `name` is a plain relative path that stays inside its folder."""
    return len(name) <= 255 and _NAME.fullmatch(name) is not None


def _result(left: Left, limits: SandboxLimits) -> SandboxResult:
    report = _unpack(left.back, limits)
    stderr = left.stderr.decode("utf-8", "replace")
    if not report.started and left.cut is None:
        raise SandboxUnavailable(f"the sandbox could not be built: {stderr.strip()[-300:] or 'no message'}")
    exit_code = left.exit_code if report.exit_code is None else report.exit_code
    status: Status
    if left.cut is not None:
        status, exit_code = ("killed" if left.cut == "memory limit" else left.cut), None
    elif report.exit_code is None and exit_code >= 128:
        status, exit_code = "killed", None  # by a limit of the kernel, or by itself
    else:
        status = "error" if exit_code else "ok"
    return SandboxResult(
        status=status,
        exit_code=exit_code,
        stdout=left.stdout.decode("utf-8", "replace"),
        stderr=stderr,
        files=report.files,
        gone=tuple(report.gone),
        left_out=tuple(report.left_out),
        wall_s=left.wall_s,
    )


@dataclass(slots=True)
class _Report:
    """What the guest sent back; the untrusted code may have written any of it."""

    started: bool
    exit_code: int | None
    files: dict[str, bytes]
    left_out: list[str]
    gone: list[str]


def _unpack(back: bytes, limits: SandboxLimits) -> _Report:
    """Read lines of JSON, each perhaps followed by bytes, up to the first thing that makes no sense."""
    report = _Report(False, None, {}, [], [])
    while back:
        line, _, back = back.partition(b"\n")
        try:
            told = json.loads(line[:1024])
        except (ValueError, RecursionError):
            return report
        match told:
            case {"started": True}:
                report.started = True
            case {"exit": int(code)}:
                report.exit_code = code & 0xFF
            case {"left_out": str(path)} if len(report.left_out) < limits.files:
                report.left_out.append(path)
            case {"gone": str(path)} if is_file_name(path) and len(report.gone) < MAX_GONE:
                report.gone.append(path)
            case {"path": str(path), "size": int(size)} if (
                is_file_name(path) and 0 <= size <= len(back) and len(report.files) < limits.files
            ):
                report.files[path] = back[:size]
                back = back[size:]
            case _:
                return report
    return report
