"""The search for tools whose loading is deferred: the words of a query against names and descriptions.

A model sees what there is to be found, by groups; what a search finds it may call from then on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llamakit.agents.tools import check_arguments
from llamakit.api.hosted_tools import HostedResult
from llamakit.api.openai_response_history import found_text
from llamakit.core.errors import ToolError
from llamakit.core.messages import ToolSpec

MAX_FOUND = 8
"""Tools of one search; a group that is named by its own name is found whole."""
MAX_SHOWN_CHARS = 8_000
"""Of the list that the model sees before it searches."""
NAME = "tool_search"
_WORD = re.compile(r"[^\W_]+")
_IN_NAME, _IN_TEXT = 3, 1
"""What a word of the query counts for where it stands."""
_NEAR = 2
"""A tool that fits so many times worse than the best one is left out."""
_SCHEMA = {
    "type": "object",
    "properties": {"query": {"type": "string", "minLength": 1, "description": "What the tool is for, or its name"}},
    "required": ["query"],
    "additionalProperties": False,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Deferred:
    """A tool that is to be found."""

    spec: ToolSpec
    body: dict[str, Any]
    """As the wire shows it by itself."""
    group: str = ""
    """Its namespace, or the label of its MCP server."""
    group_kind: Literal["", "namespace", "mcp"] = ""
    group_about: str = ""


@dataclass(frozen=True, slots=True)
class ToolCatalog:
    """Fulfils `HostedTool`."""

    tools: Sequence[Deferred]
    specs: tuple[ToolSpec, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "specs", (_spec(self.tools),))

    def needs_approval(self, name: str) -> bool:
        """Never: it only looks."""
        return False

    async def call(self, name: str, arguments: str) -> HostedResult:
        """Find tools; `fields` has them as the wire shows them, and the names that a model may call from now on."""
        query = check_arguments(self.specs[0], arguments)["query"]
        found = self.find(query)
        shown = shown_tools(found)
        if not found:
            raise ToolError(f"no tool fits {query[:200]!r}; try other words")
        return HostedResult(
            output=found_text(shown), fields={"tools": shown, "names": [one.spec.name for one in found]}
        )

    def find(self, query: str) -> list[Deferred]:
        """The tools that fit best, in their own order."""
        wanted = set(_words(query))
        whole = [one for one in self.tools if one.group and one.group.lower() in query.lower()]
        scored = [(score, one) for one in self.tools if (score := _score(wanted, one)) > 0]
        best = sorted(scored, key=lambda pair: -pair[0])[:MAX_FOUND]
        best = [(score, one) for score, one in best if _NEAR * score >= best[0][0]]
        names = {one.spec.name for one in whole} | {one.spec.name for _, one in best}
        return [one for one in self.tools if one.spec.name in names]


def shown_tools(found: Iterable[Deferred]) -> list[dict[str, Any]]:
    """The tools as the wire shows them: those of a group together."""
    made: list[dict[str, Any]] = []
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for one in found:
        key = (one.group_kind, one.group)
        match one.group_kind:
            case "":
                made.append(one.body)
                continue
            case "namespace":
                empty = {"type": "namespace", "name": one.group, "description": one.group_about, "tools": []}
                member: Any = one.body
                place = "tools"
            case "mcp":
                empty = {"type": "mcp", "server_label": one.group, "allowed_tools": []}
                member, place = one.spec.name, "allowed_tools"
        if key not in groups:
            groups[key] = empty
            made.append(empty)
        groups[key][place].append(member)
    return made


def _spec(tools: Sequence[Deferred]) -> ToolSpec:
    about = ["Load tools before you call them. These can be found:"]
    groups: dict[str, list[Deferred]] = {}
    for one in tools:
        groups.setdefault(one.group, []).append(one)
    for group, members in groups.items():
        if group:
            about.append(f"- {group} ({len(members)} tools): {members[0].group_about}")
        else:
            about += [f"- {one.spec.name}: {one.spec.description}" for one in members]
    text = "\n".join(about)
    if len(text) > MAX_SHOWN_CHARS:
        text = f"{text[:MAX_SHOWN_CHARS]}\n[and more]"
    return ToolSpec(name=NAME, description=text, parameters=_SCHEMA, strict=True)


def _score(wanted: set[str], tool: Deferred) -> int:
    names = set(_words(f"{tool.spec.name} {tool.group}"))
    texts = set(_words(f"{tool.spec.description} {tool.group_about}"))
    return sum(_IN_NAME * (word in names) + _IN_TEXT * (word in texts) for word in wanted)


def _words(text: str) -> list[str]:
    """Words without case; those of two letters tell nothing, and a plural is its singular."""
    words = (word.lower() for word in _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)))
    return [word.removesuffix("s") if len(word) > 3 else word for word in words if len(word) > 2]
