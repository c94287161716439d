"""The code interpreter as a tool: Python behind kernel limits, in containers that keep files between calls.

Where a wall of the sandbox is missing the server does not start with this tool, and says which one.
"""

from __future__ import annotations

import asyncio
import base64
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamakit.agents.tools import check_arguments
from llamakit.api.containers import Containers, ContainerShelf, KeptFile
from llamakit.api.hosted_tools import FileReader, HostedKind, HostedResult, ServerParts
from llamakit.core.errors import ConfigError, InvalidRequest, LlamakitError, ToolError
from llamakit.core.messages import ToolSpec
from llamakit.providers.inline.tools.container_api import ContainerApi
from llamakit.providers.inline.tools.containers import IDLE_S, ContainerPool, Place
from llamakit.providers.inline.tools.shell import ContainerShell
from llamakit.providers.shared.tool_settings import argument, check_config, check_settings, config_number, texts
from llamakit.sandbox.interpreter import Sandbox, SandboxLimits, SandboxResult

MAX_CODE_CHARS = 1 << 20
MAX_OUTPUT_CHARS = 20_000
"""That a run shows the model; what is beyond is cut out of the middle, and said to be."""
MAX_IMAGES, MAX_IMAGE_BYTES = 4, 1 << 20
MAX_FILES = 20
"""Files of the server that one container may begin with."""
_MIB = 1 << 20
_MEMORY = {"1g": 1024 * _MIB, "4g": 4096 * _MIB, "16g": 16384 * _MIB, "64g": 65536 * _MIB}
_IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"}
_CONFIG = ("memory_mb", "max_memory_mb", "wall_s", "cpu_s", "disk_mb", "packages", "parallel", "idle_s")
_FENCE = re.compile(r"\s*```(?:python|py)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._ +@=-]+", re.ASCII)
SPEC = ToolSpec(
    name="code_interpreter",
    description=(
        "Run Python 3 code and see what it prints. Files in the working folder are kept between calls, variables are "
        "not. There is no network."
    ),
    parameters={
        "type": "object",
        "properties": {
            "code": {"type": "string", "minLength": 1, "description": "A whole program; print what you want to see"}
        },
        "required": ["code"],
    },
)


def build(config: Mapping[str, Any], needs: Mapping[Any, Any]) -> CodeInterpreter:
    """The provider; raises `ConfigError` for an unknown setting. Nothing is tried yet."""
    check_config("inline::code-interpreter", config, _CONFIG)
    memory = int(config_number(config, "memory_mb", 1024, 1 << 20)) * _MIB
    limits = SandboxLimits(
        wall_s=config_number(config, "wall_s", 30.0, 3600.0),
        cpu_s=int(config_number(config, "cpu_s", 20, 3600)),
        memory_bytes=memory,
        disk_bytes=int(config_number(config, "disk_mb", 64, 1 << 14)) * _MIB,
    )
    packages = config.get("packages")
    if packages is not None and not Path(str(packages)).is_dir():
        raise ConfigError(f"packages must be a folder of Python packages, got {packages!r}")
    return CodeInterpreter(
        limits,
        most_memory=max(memory, int(config_number(config, "max_memory_mb", 1024, 1 << 20)) * _MIB),
        packages=None if packages is None else Path(str(packages)).resolve(),
        parallel=int(config_number(config, "parallel", 4, 256)),
        idle_s=config_number(config, "idle_s", IDLE_S, 86_400.0),
    )


class CodeInterpreter:
    """The provider."""

    kind: HostedKind = "code_interpreter"
    group = "builtin::code_interpreter"

    def __init__(
        self,
        limits: SandboxLimits | None = None,
        *,
        most_memory: int = 1024 * _MIB,
        packages: Path | None = None,
        parallel: int = 4,
        idle_s: float = IDLE_S,
    ) -> None:
        self._limits = limits or SandboxLimits()
        self._most_memory = most_memory
        self._packages = packages
        self._parallel = parallel
        self._idle_s = idle_s
        self._files: FileReader | None = None
        self._shelf: ContainerShelf | None = None
        self._lock = asyncio.Lock()
        self._opened: ContainerPool | None = None

    def bind(self, parts: ServerParts) -> None:
        """Take the files of the server, and where its containers lie."""
        self._files, self._shelf = parts.files, parts.containers

    async def start(self) -> None:
        """Try the walls from inside; raises `SandboxUnavailable` naming the one that is missing."""
        await self.pool()

    def kept(self) -> Containers:
        """The containers, as the API shows them."""
        return ContainerApi(self.pool, self._read, self._memory, _check_network)

    async def pool(self) -> ContainerPool:
        """The containers, once the walls were tried."""
        async with self._lock:
            if self._opened is None:
                sandbox = await Sandbox.open(self._limits, packages=self._packages, parallel=self._parallel)
                if self._shelf is None:
                    raise ConfigError("the code interpreter was given no place for its containers; bind it to a server")
                self._opened = ContainerPool(sandbox, self._shelf, idle_s=self._idle_s)
            return self._opened

    async def open(self, owner: str, settings: Mapping[str, Any]) -> _Interpreter:
        """The interpreter as a request wants it: in a container of its own, or in one that it names."""
        check_settings(SPEC.name, settings, ("type", "container"))
        return _Interpreter(await self.place(owner, settings.get("container")))

    def shell(self) -> ContainerShell:
        """Commands of a shell in the same containers."""
        return ContainerShell(self.place)

    async def place(self, owner: str, wanted: Any) -> Place:
        """A container that a request names by its id, or describes."""
        pool = await self.pool()
        if isinstance(wanted, str):
            container = await pool.shelf.get(owner, wanted)
            if container.is_expired:
                raise InvalidRequest(
                    f"interpreter container {wanted} was unused for too long and has expired; make another",
                    param="tools.container",
                )
            return Place(pool, owner, container.id)
        wanted = {"type": "auto"} if wanted is None else wanted
        if not isinstance(wanted, Mapping) or wanted.get("type") != "auto":
            raise InvalidRequest(
                'container is the id of one, or {"type": "auto"} for a new one', param="tools.container"
            )
        check_settings("container", wanted, ("type", "file_ids", "memory_limit", "network_policy"))
        _check_network(wanted.get("network_policy"))
        files = await self._read(owner, texts(wanted.get("file_ids"), "container.file_ids", most=MAX_FILES))
        return Place(pool, owner, None, memory_bytes=self._memory(wanted.get("memory_limit")), files=files)

    async def aclose(self) -> None:
        """Let go of the sandbox; a run that goes on is held by its own limits, and containers stay."""
        self._opened = None

    def _memory(self, limit: Any) -> int:
        if limit is None:
            return self._limits.memory_bytes
        bytes = _MEMORY.get(limit) if isinstance(limit, str) else None
        if bytes is None or bytes > self._most_memory:
            allowed = [name for name, size in _MEMORY.items() if size <= self._most_memory]
            raise InvalidRequest(
                f"container.memory_limit must be one of: {', '.join(allowed) or 'none; leave it out'}",
                param="tools.container",
            )
        return bytes

    async def _read(self, owner: str, ids: Sequence[str]) -> dict[str, bytes]:
        """The files by names that the sandbox takes; raises `NotFound` for one that is not the owner's."""
        if ids and self._files is None:
            raise InvalidRequest("container.file_ids: this server keeps no files", param="tools.container")
        found: dict[str, bytes] = {}
        for id in dict.fromkeys(ids):
            assert self._files is not None, "checked above"
            facts = await self._files.get(owner, id)
            if int(facts["bytes"]) > self._limits.disk_bytes // 2:
                raise InvalidRequest(f"container.file_ids: {id} is too large for a container", param="tools.container")
            found[_fresh(str(facts["filename"]), found)] = await self._files.read(owner, id)
        return found


class _Interpreter:
    """The tool of one request."""

    specs = (SPEC,)

    def __init__(self, place: Place) -> None:
        self._place = place

    def needs_approval(self, name: str) -> bool:
        """Never: it reaches nothing but its own folder."""
        return False

    async def call(self, name: str, arguments: str) -> HostedResult:
        """Run code once."""
        code = argument(check_arguments(SPEC, arguments), SPEC, "code", most=MAX_CODE_CHARS)
        fenced = _FENCE.fullmatch(code)
        try:
            run = await self._place.run(code if fenced is None else fenced[1])
        except LlamakitError as fault:
            raise ToolError(f"the code could not be run: {fault}") from fault
        return _result(await self._place.id(), run.result, run.kept)


def _result(container: str, result: SandboxResult, kept: Mapping[str, KeptFile]) -> HostedResult:
    printed = _cut(_shown(result.stdout))
    failed = _cut(_shown(result.stderr))
    notes = []
    if result.status != "ok":
        notes.append(f"The program ended with: {result.status}" + _code(result.exit_code))
    if result.files:
        notes.append(f"Files written: {', '.join(result.files)}")
    if result.left_out:
        notes.append(f"Files too many or too large to keep: {', '.join(result.left_out[:20])}")
    logs = "\n".join(part for part in (printed.rstrip("\n"), failed.rstrip("\n")) if part)
    outputs: list[dict[str, Any]] = [{"type": "logs", "logs": logs}] if logs else []
    outputs += [{"type": "image", "url": url} for url in _images(result.files)]
    return HostedResult(
        output="\n".join([logs, *notes]).strip("\n") or "The program printed nothing.",
        fields={"container_id": container, "outputs": outputs},
        citations={name: _citation(container, file) for name, file in kept.items() if _is_citable(name)},
    )


def _citation(container: str, file: KeptFile) -> dict[str, Any]:
    return {
        "type": "container_file_citation",
        "container_id": container,
        "file_id": file.id,
        "filename": file.name,
    }


def _is_citable(name: str) -> bool:
    """Whether an answer that holds the name means the file; a name such as `a` may be any word."""
    return len(name) > 3 and "." in name


def _check_network(policy: Any) -> None:
    """Refuse a network: there is none."""
    if policy is not None and (not isinstance(policy, Mapping) or policy.get("type") != "disabled"):
        raise InvalidRequest("network_policy can only be disabled: code has no network here", param="network_policy")


def _code(exit_code: int | None) -> str:
    return "" if exit_code is None else f" (exit code {exit_code})"


def _shown(text: str) -> str:
    """Without control characters, which may steer a terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs"))


def _cut(text: str) -> str:
    if len(text) <= MAX_OUTPUT_CHARS:
        return text
    half = MAX_OUTPUT_CHARS // 2
    return f"{text[:half]}\n[cut: {len(text) - 2 * half} more characters]\n{text[-half:]}"


def _images(files: Mapping[str, bytes]) -> list[str]:
    """Pictures that the run drew, as `data:` URLs."""
    made = []
    for name, data in files.items():
        kind = _IMAGES.get(Path(name).suffix.lower())
        if kind is not None and len(data) <= MAX_IMAGE_BYTES and len(made) < MAX_IMAGES:
            made.append(f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}")
    return made


def _fresh(name: str, taken: Mapping[str, bytes]) -> str:
    """A name that the sandbox takes and that no other file has."""
    name = _NOT_IN_NAMES.sub("_", name).lstrip(".")[-100:] or "file"
    if name == "main.py":
        name = "_main.py"
    stem, dot, ending = name.rpartition(".")
    first, last = (stem, dot + ending) if stem else (name, "")
    count = 1
    while name in taken:
        count += 1
        name = f"{first}-{count}{last}"
    return name
