"""Tries grammars in a child process, so that a crash, a stall or a memory bomb is an answer and not an outage.

Grammar compilers recurse as deep as the source says and compare everything with everything; no check of
the source foresees that. A child that overflows its stack dies alone, one that takes too long is killed.
The child is kept between checks; it holds no secrets and gets no environment.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamakit.core.errors import EngineStopped

LIMITS: dict[str, Any] = {"initial_lexer_fuel": 250_000, "max_lexer_states": 25_000}
"""Of the compiler, here and in the child: a lexer's size (a mask takes at most about 0.3 s) and states (2 KiB each)."""

_PROGRAM = Path(__file__).with_name("grammar_child.py")
_START_S = 30.0


class GrammarChecker:
    """One child process, started when first needed; checks are done one after another, from any thread."""

    def __init__(self, special: Sequence[str]) -> None:
        self._special = list(special)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize | None = None

    def check(self, grammar: str, deadline_s: float) -> str | None:
        """What is wrong with `grammar`, or None; takes at most `deadline_s` once it is this check's turn."""
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._start()
            alive, fault = self._ask(grammar, deadline_s)
            if not alive:
                self._stop()
            return fault

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", str(_PROGRAM), json.dumps(LIMITS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=kept,
            )
        except OSError as error:
            raise EngineStopped(f"constraints cannot be checked, {sys.executable} does not start: {error}") from error
        self._end = weakref.finalize(self, _kill, self._child)
        alive, fault = self._ask(self._special, _START_S)
        if not alive or fault is not None:
            self._stop()
            raise EngineStopped(f"constraints cannot be checked, the child process failed: {fault}")

    def _ask(self, line: object, deadline_s: float) -> tuple[bool, str | None]:
        """Whether the child lives on, and the fault it found."""
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None
        ends = time.monotonic() + deadline_s
        try:
            child.stdin.write(json.dumps(line).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            return False, "it is nested too deeply or needs too much memory"
        readable, _, _ = select.select([child.stdout], [], [], max(ends - time.monotonic(), 0))
        if not readable:
            return False, f"it takes longer than {deadline_s:g} s to compile"
        answer = child.stdout.readline()
        if not answer.endswith(b"\n"):
            return False, "it is nested too deeply or needs too much memory"
        return True, json.loads(answer)

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._child = self._end = None


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # Unsent bytes of a killed child.
