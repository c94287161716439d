"""A killable child process for reading foreign documents: bytes in, JSON out, and no way to anything else.

A reader is a plain function `f(document: bytes, **options) -> JSON` named as `module:function` by our
own code. Whatever it does to itself, the parent waits for a bounded time and reads a bounded answer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamakit.core import errors
from llamakit.core.errors import DocumentError, LlamakitError, SandboxUnavailable
from llamakit.sandbox.watch import watch


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildLimits:
    """What reading one document may use."""

    memory_bytes: int = 512 << 20
    cpu_s: int = 30
    wall_s: float = 60.0
    answer_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class ChildAnswer:
    """What a reader found, and what it was held by."""

    value: Any
    layers: tuple[str, ...]


async def read_in_child(
    target: str, document: bytes, options: Mapping[str, Any] | None = None, *, limits: ChildLimits | None = None
) -> ChildAnswer:
    """Run `target` over `document` in a child of its own.

    Raises `DocumentError` when the reader refuses, breaks, or takes more than its limits;
    `SandboxUnavailable` where the child cannot be locked down.
    """
    limits = limits or ChildLimits()
    order = {"options": dict(options or {}), "memory_bytes": limits.memory_bytes, "cpu_s": limits.cpu_s}
    left = await watch(
        lambda descriptor: [sys.executable, "-s", "-P", "-m", f"{__package__}.child_main", target, str(descriptor)],
        (),
        json.dumps(order).encode() + b"\n" + document,
        wall_s=limits.wall_s,
        output_bytes=1 << 20,
        back_bytes=limits.answer_bytes,
        environment=_environment(),
    )
    if left.cut == "timeout":
        raise DocumentError(f"reading it took longer than {limits.wall_s} s, so it was stopped")
    if left.cut == "output limit":
        raise DocumentError(f"it holds more than {limits.answer_bytes} bytes of text")
    if left.exit_code != 0 or not left.back:
        last = left.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][-200:]
        raise DocumentError(
            f"the reader died (status {left.exit_code}) within {limits.memory_bytes >> 20} MiB and "
            f"{limits.cpu_s} s of CPU{': ' + last if last else ''}"
        )
    return _answer(left.back)


def _answer(back: bytes) -> ChildAnswer:
    try:
        reply = json.loads(back)
    except ValueError as error:
        raise DocumentError("the reader's answer makes no sense") from error
    match reply:
        case {"result": {"layers": list(layers), "value": value}}:
            return ChildAnswer(value, tuple(str(layer) for layer in layers))
        case {"error": str(message), "kind": str(kind)}:
            raise _raised(kind, message)
        case _:
            raise DocumentError("the reader's answer makes no sense")


def _raised(kind: str, message: str) -> LlamakitError:
    """One of the errors a reader may raise; any other name counts as the document's fault."""
    if kind in ("SandboxUnavailable", "MissingExtra"):
        return {"SandboxUnavailable": SandboxUnavailable, "MissingExtra": errors.MissingExtra}[kind](message)
    return DocumentError(message)


def _environment() -> dict[str, str]:
    """Where this package lies, and nothing of the server's own environment."""
    root = str(Path(__file__).resolve().parents[2])
    found = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([root, *found])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "LANG": "C.UTF-8",
    }
