"""Second paths of operations: where Llama Stack has had them in one generation or another.

Classic Llama Stack put `/v1/openai/v1/` before OpenAI's paths, and the newer one moved some of its own. It is the
same operation each time, so that nothing that is said of one can differ at the other; only the shape of errors
and the end of streams follow the path (`server/dialects.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from llamakit.server.dialects import CLASSIC_OPENAI
from llamakit.server.routing import Operation

_OWN = "/v1/"
_OPENAI = (
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
_MOVED = (
    ("/v1/agents", "/v1alpha/agents"),
    ("/v1/datasetio", "/v1beta/datasetio"),
    ("/v1/datasets", "/v1beta/datasets"),
    ("/v1/health", "/v1alpha/admin/health"),
    ("/v1/inference/rerank", "/v1alpha/inference/rerank"),
    ("/v1/inspect/routes", "/v1alpha/admin/inspect/routes"),
    ("/v1/providers", "/v1alpha/admin/providers"),
    ("/v1/tools", "/v1/admin/tools"),
    ("/v1/version", "/v1alpha/admin/version"),
)
"""Where operations are found besides: what a path begins with, and what it does there."""


def aliases(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Every operation at its second paths."""
    for operation in operations:
        for path in _paths(operation):
            words = path.removeprefix("/").replace("/", " ").split("{")[0].split()
            where = "".join(word.title() for word in words[:2] if word != "v1")
            yield dataclasses.replace(operation, name=operation.name + where, path=path, alias_of=operation.name)


def _paths(operation: Operation) -> Iterator[str]:
    rest = operation.path.removeprefix(_OWN)
    if operation.path.startswith(_OWN) and rest.partition("/")[0] in _OPENAI:
        yield CLASSIC_OPENAI + rest
    for begin, other in _MOVED:
        if operation.path == begin or operation.path.startswith(f"{begin}/"):
            yield other + operation.path.removeprefix(begin)
