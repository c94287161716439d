"""What items of many kinds have: how far they are, the call they belong to, and who made it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llamakit.api.wire import Wire

CallId = Annotated[str, Field(min_length=1, max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]


class Caller(Wire):
    """Who made a call: the model itself, or a program of the model's."""

    type: Literal["direct", "program"]
    caller_id: str | None = None
    """Id of the program."""
