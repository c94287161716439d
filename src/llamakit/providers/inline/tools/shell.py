"""Commands of a shell as a tool: in the containers of the code interpreter, behind the same walls.

Each command is a shell of its own in the container's folder; what it leaves there is kept, what it exports is not.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llamakit.agents.tools import check_arguments
from llamakit.api.hosted_tools import HostedResult
from llamakit.api.openai_machine_calls import SHELL_SCHEMA, shell_text
from llamakit.core.errors import InvalidRequest, LlamakitError, ToolError
from llamakit.core.messages import ToolSpec
from llamakit.providers.inline.tools.containers import Place, Run
from llamakit.providers.shared.tool_settings import check_settings
from llamakit.sandbox.bubblewrap import ENVIRONMENT

MAX_COMMANDS = 32
MAX_COMMAND_CHARS = 64_000
MAX_OUTPUT_CHARS = 20_000
"""Of all commands of a call together, unless the model asks for less."""
MAX_SKILL_BYTES = 8 << 20
_SKILL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DRIVER = Path(__file__).with_name("shell_driver.py").read_text(encoding="utf-8")
_ABOUT = (
    "Run shell commands in a container and see what they print. The working folder is kept between calls; there is no "
    "network."
)


class ContainerShell:
    """The provider: it shares the places of an interpreter."""

    def __init__(self, place: Callable[[str, Any], Awaitable[Place]]) -> None:
        self._place = place

    async def open(self, owner: str, settings: Mapping[str, Any]) -> _Shell:
        """A shell in the container that a request names or describes."""
        check_settings("shell", settings, ("type", "environment"))
        environment: dict[str, Any] = dict(settings.get("environment") or {"type": "container_auto"})
        if environment.pop("type") == "container_reference":
            return _Shell(await self._place(owner, environment["container_id"]), ())
        skills = environment.pop("skills", ())
        place = await self._place(owner, {"type": "auto", **environment})
        place.add(dict(_archive(skill) for skill in skills))
        return _Shell(place, [(skill["name"], skill["description"]) for skill in skills])


class _Shell:
    """The tool of one request."""

    def __init__(self, place: Place, skills: Sequence[tuple[str, str]]) -> None:
        self._place = place
        known = "".join(f"\nSkill {name} (in skills/{name}): {about}" for name, about in skills)
        self.specs = (ToolSpec(name="shell", description=_ABOUT + known, parameters=SHELL_SCHEMA, strict=True),)

    def needs_approval(self, name: str) -> bool:
        """Never: it reaches nothing but its own folder."""
        return False

    async def call(self, name: str, arguments: str) -> HostedResult:
        """Run commands one after the other; `fields` has what each printed and how it ended."""
        asked = check_arguments(self.specs[0], arguments)
        commands: list[str] = asked["commands"]
        if len(commands) > MAX_COMMANDS or any(len(one) > MAX_COMMAND_CHARS for one in commands):
            raise ToolError(f"at most {MAX_COMMANDS} commands of {MAX_COMMAND_CHARS} characters are run at once")
        most = min(asked.get("max_output_length") or MAX_OUTPUT_CHARS, MAX_OUTPUT_CHARS)
        timeout_ms = asked.get("timeout_ms")
        order = {
            "commands": commands,
            "path": ENVIRONMENT["PATH"],
            "seconds": 3600.0 if timeout_ms is None else timeout_ms / 1000,
            "most_bytes": 4 * most,
        }
        try:
            run = await self._place.run(_program(order), forks=True)
            container = await self._place.id()
        except LlamakitError as fault:
            raise ToolError(f"the commands could not be run: {fault}") from fault
        output = _cut(_outputs(run, len(commands)), most)
        notes = f"\nFiles too many or too large to keep: {', '.join(run.result.left_out[:20])}"
        return HostedResult(
            output=shell_text(output) + (notes if run.result.left_out else ""),
            fields={"output": output, "container_id": container},
        )


def _program(order: Mapping[str, Any]) -> str:
    """The driver with its order."""
    return _DRIVER.replace("ORDER: dict = {}", f"ORDER = json.loads({json.dumps(json.dumps(order))})", 1)


def _outputs(run: Run, count: int) -> list[dict[str, Any]]:
    """What the driver told of each command; untrusted, so only what has its form counts."""
    made: list[dict[str, Any]] = []
    for line in run.result.stdout.splitlines()[:count]:
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            break
        match told:
            case {"stdout": str(stdout), "stderr": str(stderr), "exit": int(code)}:
                made.append(_one(stdout, stderr, {"type": "exit", "exit_code": code}))
            case {"stdout": str(stdout), "stderr": str(stderr), "exit": None}:
                made.append(_one(stdout, stderr, {"type": "timeout"}))
            case _:
                break
    if len(made) < count and not (made and made[-1]["outcome"]["type"] == "timeout"):
        outcome: dict[str, Any] = {"type": "exit", "exit_code": 1 if run.result.exit_code is None else 137}
        if run.result.status == "timeout":
            outcome = {"type": "timeout"}
        made.append(_one("", f"the commands ended with: {run.result.status}\n{run.result.stderr[-500:]}", outcome))
    return made


def _one(stdout: str, stderr: str, outcome: dict[str, Any]) -> dict[str, Any]:
    return {"stdout": stdout, "stderr": stderr, "outcome": outcome}


def _cut(output: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The output with at most so many characters, and told where it was cut."""
    left = most
    for one in output:
        for name in ("stdout", "stderr"):
            text = one[name]
            if len(text) > left:
                one[name] = f"{text[:left]}\n[cut: {len(text) - left} more characters]"
            left -= min(len(text), left)
    return output


def _archive(skill: Mapping[str, Any]) -> tuple[str, bytes]:
    """File of a skill that comes with the request, and its bytes; they are looked at in the container only."""
    param = "tools.environment.skills"
    if skill["type"] != "inline":
        raise InvalidRequest(f"{param}: no skills are kept here; send it inline", param=param)
    if _SKILL_NAME.fullmatch(skill["name"]) is None:
        raise InvalidRequest(f"{param}: a name is letters, digits and ._-, got {skill['name'][:80]!r}", param=param)
    try:
        data = base64.b64decode(skill["source"]["data"], validate=True)
    except (ValueError, binascii.Error):
        raise InvalidRequest(f"{param}: {skill['name']} is not base64", param=param) from None
    if len(data) > MAX_SKILL_BYTES:
        raise InvalidRequest(f"{param}: {skill['name']} has more than {MAX_SKILL_BYTES} bytes", param=param)
    return f"skills/{skill['name']}.zip", data
