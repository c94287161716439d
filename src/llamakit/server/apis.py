"""Which operations a distribution serves: all of them, or those of the APIs it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError
from llamakit.providers.specs import Api
from llamakit.server.routing import Operation

ALWAYS = "health"
"""Whether a server is there is always told."""
_MEANS = {
    Api.inference: ("chat", "completions", "embeddings", "models", "tokens"),
    Api.safety: ("moderations", "shields"),
    Api.tools: ("llama_stack_tools", "containers"),
}
"""What the name of a provider's API stands for, where its operations have names of their own."""


def api_of(operation: Operation) -> str:
    """The API an operation belongs to, as `apis` of a distribution names it."""
    return operation.tag.replace(" ", "_")


def served(operations: Sequence[Operation], apis: Iterable[str]) -> list[Operation]:
    """The operations of `apis`, or all where none is named; raises `ConfigError` for a name nobody has."""
    wanted: set[str] = {ALWAYS}
    known = {api_of(operation) for operation in operations} | {str(api) for api in Api}
    for api in apis:
        if api not in known:
            raise ConfigError(f"apis: no API {api!r}{nearest(api, known)}. There are: {', '.join(sorted(known))}")
        wanted |= {api, *_MEANS.get(Api(api), ())} if api in list(Api) else {api}
    if wanted == {ALWAYS}:
        return list(operations)
    return [operation for operation in operations if api_of(operation) in wanted]
