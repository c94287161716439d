"""What a server has, told without one: the operations of every API."""

from __future__ import annotations

from collections import Counter

from llamakit.server.apis import api_of
from llamakit.server.app import build_app, operations_of
from llamakit.stack.build import build_stack
from llamakit.stack.distribution import Distribution, StorageConfig
from llamakit.stack.run_config import ServeConfig
from llamakit.stack.storage import TEMPORARY


def served_apis() -> dict[str, int]:
    """Operations by the name that `apis` of a distribution has for their API."""
    stack = build_stack(Distribution(storage=StorageConfig(database=TEMPORARY)))
    return dict(Counter(api_of(operation) for operation in operations_of(build_app(stack, ServeConfig()))))
