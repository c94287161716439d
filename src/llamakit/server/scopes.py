"""Which scope each operation wants: one table by tag, and the few operations that their tag does not describe.

An operation that nothing here names wants `admin`, so that what was forgotten is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit.stack.access import Scope

if TYPE_CHECKING:
    from llamakit.server.routing import Operation

_OBJECTS = (Scope.objects_read, Scope.objects_write)
_ASKING = (Scope.inference, Scope.inference)
_MODELS = (Scope.models_read, Scope.models_manage)
_ADMIN = (Scope.models_read, Scope.admin)

BY_TAG: dict[str, tuple[Scope, Scope]] = {
    # tag: what reading (GET, HEAD) wants, what everything else wants
    "chat": _ASKING,
    "completions": _ASKING,
    "embeddings": _ASKING,
    "tokens": _ASKING,
    "moderations": _ASKING,
    "anthropic": _ASKING,
    "ollama": _ASKING,
    "models": _MODELS,
    "management": _MODELS,
    "responses": _OBJECTS,
    "conversations": _OBJECTS,
    "containers": _OBJECTS,
    "stored chat": _OBJECTS,
    "prompts": _OBJECTS,
    "batches": _OBJECTS,
    "files": _OBJECTS,
    "uploads": _OBJECTS,
    "vector stores": _OBJECTS,
    "shields": _OBJECTS,
    "llama stack inference": _ASKING,
    "llama stack inspect": _ADMIN,
    "llama stack tools": (Scope.models_read, Scope.tools),
    "llama stack vector io": _OBJECTS,
    "llama stack agents": _OBJECTS,
    "llama stack datasets": _OBJECTS,
    "llama stack scoring": _OBJECTS,
    "llama stack telemetry": _OBJECTS,
    "admin": (Scope.admin, Scope.admin),
    "health": (Scope.metrics, Scope.admin),
}
BY_NAME: dict[str, Scope] = {
    # What asks a model, whatever it keeps beside.
    "createResponse": Scope.inference,
    "compactResponse": Scope.inference,
    "countResponseInputTokens": Scope.inference,
    "createBatch": Scope.inference,
    "createAgentTurn": Scope.inference,
    "resumeAgentTurn": Scope.inference,
    "runShield": Scope.inference,
    "score": Scope.inference,
    "scoreBatch": Scope.inference,
    # What reads, though its question is a body.
    "searchVectorStore": Scope.objects_read,
    "queryChunks": Scope.objects_read,
    "queryDocuments": Scope.objects_read,
    "queryTraces": Scope.objects_read,
    "querySpans": Scope.objects_read,
    "getSpanTree": Scope.objects_read,
    # What tells of the server and not of its work.
    "landing": Scope.models_read,
    "openapi": Scope.models_read,
}


def scope_of(operation: Operation) -> Scope | None:
    """What a caller must hold; None where nobody is asked who he is."""
    if operation.is_public:
        return None
    if operation.changes_machine:
        return Scope.models_manage
    name = operation.alias_of or operation.name
    if name in BY_NAME:
        return BY_NAME[name]
    reading, writing = BY_TAG.get(operation.tag, (Scope.admin, Scope.admin))
    return reading if operation.method in ("GET", "HEAD") else writing
