"""The prefix that classic Llama Stack put before OpenAI's paths: `/v1/openai/v1/...`.

The same operations once more, so that nothing that is said of one can differ at the other; only the shape of
errors and the end of streams follow the path (`server/dialects.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from llamakit.server.dialects import CLASSIC_OPENAI
from llamakit.server.routing import Operation

_OWN = "/v1/"
_GROUPS = (
    "batches",
    "chat",
    "completions",
    "conversations",
    "embeddings",
    "files",
    "models",
    "moderations",
    "prompts",
    "responses",
    "uploads",
    "vector_stores",
)
"""What stands behind `/v1/` in the paths of OpenAI's API."""


def classic_paths(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Every operation of OpenAI's API at its classic path."""
    for operation in operations:
        rest = operation.path.removeprefix(_OWN)
        is_openai = operation.path.startswith(_OWN) and rest.partition("/")[0] in _GROUPS
        if is_openai and not operation.tag.startswith("llama stack"):
            yield dataclasses.replace(
                operation, name=f"{operation.name}Classic", path=CLASSIC_OPENAI + rest, alias_of=operation.path
            )
