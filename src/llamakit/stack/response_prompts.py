"""A stored prompt with its variables filled in: text, and the images and files that some variables are."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llamakit.api.prompts import fill
from llamakit.api.wire import Wire


def filled_parts(template: str, names: Iterable[str], values: Mapping[str, str | Wire]) -> list[dict[str, Any]]:
    """The parts of the prompt's message; raises `InvalidRequest` for a variable without value, or unknown."""
    # What is no text is filled in as a mark that nobody can have written, and put in its place afterwards.
    marks: dict[str, dict[str, Any]] = {}
    texts: dict[str, str] = {}
    for name, value in values.items():
        body = {"type": "input_text", "text": value} if isinstance(value, str) else value.model_dump(exclude_none=True)
        if body["type"] == "input_text":
            texts[name] = body["text"]
        else:
            texts[name] = mark = secrets.token_hex(16)
            marks[mark] = body
    text = fill(template, names, texts)
    pieces = re.split(f"({'|'.join(marks)})", text) if marks else [text]
    return [marks.get(piece) or {"type": "input_text", "text": piece} for piece in pieces if piece]


def message_of(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The instruction that these parts are; images are shown by a user, since instructions are words."""
    role = "user" if any(part["type"] == "input_image" for part in parts) else "system"
    return {"type": "message", "role": role, "content": list(parts)}
