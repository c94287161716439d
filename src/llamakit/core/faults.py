"""Named points at which a test may make production code fail, pause or die.

`fault("store.before_commit")` costs one test of an empty dictionary unless a test has put an action
there. Names read `room.moment`; `docs/reference` needs none of them, so they are free to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ACTIONS: dict[str, Callable[[], None]] = {}


def fault(name: str) -> None:
    """Run what a test has set at this point; whatever it raises is raised here."""
    if _ACTIONS and (action := _ACTIONS.get(name)) is not None:
        action()


@contextmanager
def injected(name: str, action: Callable[[], None]) -> Iterator[None]:
    """Within the block, `action` runs each time `fault(name)` is passed; for tests only."""
    if name in _ACTIONS:
        raise RuntimeError(f"fault point {name!r} has an action already; end the other block first")
    _ACTIONS[name] = action
    try:
        yield
    finally:
        del _ACTIONS[name]
