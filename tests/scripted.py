"""A model whose turns are written down, and a server's stack around it with the tools of a distribution."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.core.messages import Done, Finish, TextDelta, ToolCallDelta, Usage
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.providers.specs import Api
from llamakit.stack.build import Stack
from llamakit.stack.distribution import Distribution, ProviderEntry, ToolGroupEntry
from llamakit.stack.providers import build_providers
from llamakit.stack.tool_providers import with_default_tools

Turn = str | Sequence[tuple[str, Mapping[str, Any]]]
"""What is said, or the calls that are made: names and arguments."""


class Scripted(EchoInference):
    """Gives its turns one after the other, whatever it is asked; `asked` has the requests."""

    def __init__(self, *turns: Turn) -> None:
        super().__init__(EchoConfig())
        self.turns = list(turns)
        self.asked: list[Any] = []

    async def chat(self, request):
        """The next turn."""
        turn = self.turns[len(self.asked)]
        self.asked.append(request)
        if isinstance(turn, str):
            yield TextDelta(text=turn)
        else:
            for index, (name, arguments) in enumerate(turn):
                yield ToolCallDelta(index=index, id=f"theirs{index}", name=name)
                yield ToolCallDelta(index=index, arguments=json.dumps(arguments))
        yield Finish(reason="stop")
        yield Done(usage=Usage(prompt_tokens=1, completion_tokens=2))


def stack_with_tools(
    inference: EchoInference,
    tools: Mapping[str, Mapping[str, Any]] | None = None,
    groups: Sequence[ToolGroupEntry] = (),
) -> Stack:
    """A stack of `inference` and of tools: types of providers with their settings; None for the default ones."""
    rows = {} if tools is None else {Api.tools: tuple(_entry(kind, config) for kind, config in tools.items())}
    distribution = with_default_tools(Distribution(providers=rows, tool_groups=tuple(groups)))
    providers, _ = build_providers(distribution, {})
    return Stack(inference=inference, default_models=("echo",), distribution=distribution, providers=providers)


def _entry(kind: str, config: Mapping[str, Any]) -> ProviderEntry:
    return ProviderEntry(provider_id=kind.rpartition("::")[2], provider_type=kind, config=config)
