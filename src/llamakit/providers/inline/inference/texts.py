"""Prompters of models that are not in memory: nobody waits for weights to have tokens counted.

Remembers a few for as long as the files stay as they are.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from llamakit.hub.locate import Located, resolve_model
from llamakit.runtime.opening import LoadOptions, open_text
from llamakit.runtime.prompting import Prompter

MAX_REMEMBERED = 4


class TextBook:
    """Prompters by name; safe to ask from several threads."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._known: OrderedDict[str, tuple[Located, int, Prompter]] = OrderedDict()
        self._lock = threading.Lock()

    def look_up(self, name: str, *, paths: bool, shown: str | None = None) -> Prompter:
        """The prompter of the model that `name` says; raises what locating and opening it raise."""
        located = resolve_model(name, paths=paths)
        changed = located.path.stat().st_mtime_ns
        with self._lock:
            found = self._known.get(name)
            if found is None or found[:2] != (located, changed):
                found = located, changed, open_text(located, self._options, shown=shown)
            self._known[name] = found
            self._known.move_to_end(name)
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return found[2]
