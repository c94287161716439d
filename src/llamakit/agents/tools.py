"""Tools that run on the server: their arguments are checked, their time and their answers are bounded.

A tool is a spec and a coroutine function. Whatever goes wrong with a call becomes text the model can
act on; the turn goes on. Knows no transport: an MCP server's tools and our own look alike here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llamakit.agents.loop import LoopTool, ToolOutcome
from llamakit.agents.schema import problems
from llamakit.core.errors import InvalidRequest, LlamakitError, ToolError
from llamakit.core.messages import ToolCall, ToolSpec
from llamakit.core.tracing import tool_span

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:/-]{0,127}", re.ASCII)
MAX_ARGUMENT_CHARS = 1 << 20

ToolFunction = Callable[[Mapping[str, Any]], Awaitable["ToolOutcome | str"]]
"""Checked arguments to what the model is told. It may raise `ToolError` with words for the model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A tool and the bounds of one call."""

    spec: ToolSpec
    call: ToolFunction
    needs_approval: bool = False
    seconds: float = 60.0
    max_chars: int = 100_000
    """Of its answer; the rest is cut off and said to be."""
    group: str = ""
    """The tool group or MCP server it comes from."""
    is_read_only: bool = False
    """Whether its maker says that it changes nothing; a word to narrow a choice by, never to trust."""


@dataclass(slots=True)
class ToolBox:
    """The tools of one turn, by name."""

    _tools: dict[str, Tool] = field(default_factory=dict)
    _client: dict[str, ToolSpec] = field(default_factory=dict)

    @classmethod
    def of(cls, tools: Iterable[Tool], client_tools: Iterable[ToolSpec] = ()) -> ToolBox:
        """A box of server tools and of those the client runs; `InvalidRequest` for a bad or double name."""
        box = cls()
        for tool in tools:
            box.add(tool)
        for spec in client_tools:
            box._check_name(spec.name)
            box._client[spec.name] = spec
        return box

    def add(self, tool: Tool) -> None:
        """Put a tool in."""
        self._check_name(tool.spec.name)
        self._tools[tool.spec.name] = tool

    def for_loop(self) -> list[LoopTool]:
        """What the loop needs to know of them."""
        mine = [LoopTool(spec=tool.spec, needs_approval=tool.needs_approval) for tool in self._tools.values()]
        return mine + [LoopTool(spec=spec, runs="client") for spec in self._client.values()]

    def find(self, name: str) -> Tool:
        """A server tool, or `ToolError`."""
        tool = self._tools.get(name)
        if tool is None:
            raise ToolError(f"no tool {name!r}; the tools are: {', '.join(self._tools) or 'none'}")
        return tool

    async def call(self, call: ToolCall, seconds: float | None = None) -> ToolOutcome:
        """Carry a call out; every failure is an outcome with words for the model."""
        try:
            tool = self.find(call.name)
            arguments = check_arguments(tool.spec, call.arguments)
        except ToolError as error:
            return ToolOutcome(str(error), is_error=True)
        limit = tool.seconds if seconds is None else min(tool.seconds, seconds)
        deadline = asyncio.timeout(limit)
        try:
            with tool_span(call.name):
                async with deadline:
                    outcome = await tool.call(arguments)
        except TimeoutError:
            if deadline.expired():
                return ToolOutcome(f"the tool {call.name!r} did not answer within {limit:g} s", is_error=True)
            return ToolOutcome(f"the tool {call.name!r} waited too long for something", is_error=True)
        except LlamakitError as error:
            return ToolOutcome(f"the tool {call.name!r} failed: {error}", is_error=True)
        except Exception as error:
            log.error("tool %s broke", call.name, exc_info=error)
            return ToolOutcome(f"the tool {call.name!r} failed: {type(error).__name__}", is_error=True)
        return _bounded(outcome if isinstance(outcome, ToolOutcome) else ToolOutcome(outcome), tool.max_chars)

    def _check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"a tool's name is 1 to 128 letters, digits and _ . : / -, got {name[:80]!r}", param="tools"
            )
        if name in self._tools or name in self._client:
            raise InvalidRequest(f"two tools are named {name!r}; give each its own name", param="tools")


def check_arguments(spec: ToolSpec, text: str) -> dict[str, Any]:
    """The arguments of a call as an object that fits the tool's schema; `ToolError` says what does not."""
    if len(text) > MAX_ARGUMENT_CHARS:
        raise ToolError(f"the arguments have {len(text)} characters; at most {MAX_ARGUMENT_CHARS} are read")
    try:
        arguments = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the arguments of {spec.name!r} are not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ToolError(f"the arguments of {spec.name!r} must be a JSON object, got {type(arguments).__name__}")
    wrong = problems(arguments, spec.parameters)
    if wrong:
        raise ToolError(f"the arguments of {spec.name!r} do not fit: {'; '.join(wrong)}")
    return arguments


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _bounded(outcome: ToolOutcome, most: int) -> ToolOutcome:
    if len(outcome.text) <= most:
        return outcome
    text = f"{outcome.text[:most]}\n[cut: {len(outcome.text) - most} more characters]"
    return ToolOutcome(text, outcome.is_error, outcome.data)
