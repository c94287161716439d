"""A calendar as a tool: an invitation becomes a file in a folder, which any calendar program opens.

Nothing is sent: the person who runs the tool decides what becomes of the file.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from llamakit.agents.dates import read_day, read_time
from llamakit.agents.icalendar import Event, render
from llamakit.agents.loop import ToolOutcome
from llamakit.agents.tools import Tool
from llamakit.core.errors import ToolError
from llamakit.core.messages import ToolSpec

MAX_TEXT_CHARS = 500
MAX_PEOPLE = 100
MAX_NAMES_TRIED = 1000
SPEC = ToolSpec(
    name="create_event",
    description="Send a calendar invitation.",
    parameters={
        "type": "object",
        "properties": {
            "title": {"type": "string", "description": "Name of the event"},
            "date": {"type": "string", "description": "Day of the event"},
            "time": {"type": "string", "description": "Start time"},
            "attendees": {"type": "array", "description": "People to invite", "items": {"type": "string"}},
            "location": {"type": "string", "description": "Where it takes place"},
        },
        "required": ["title", "date"],
    },
)


def calendar(folder: Path, *, today: Callable[[], date] = date.today) -> Tool:
    """The tool that writes invitations into `folder`; days such as Friday are counted from `today`."""

    async def call(arguments: Mapping[str, Any]) -> ToolOutcome:
        event = read_event(arguments, today())
        path = write_event(folder, event)
        facts = {
            "path": str(path),
            "title": event.title,
            "day": event.day.isoformat(),
            "start": event.start.isoformat("minutes") if event.start else None,
            "place": event.place,
            "people": list(event.people),
        }
        return ToolOutcome('{"status": "ok"}', data=facts)

    return Tool(spec=SPEC, call=call, group="calendar")


def read_event(arguments: Mapping[str, Any], today: date) -> Event:
    """The event that a model means; raises `ToolError` in words for it."""
    title = _text(arguments, "title")
    if not title:
        raise ToolError("title is empty; give the event a name")
    people = arguments.get("attendees") or []
    if len(people) > MAX_PEOPLE:
        raise ToolError(f"{len(people)} people are too many; at most {MAX_PEOPLE}")
    said = _text(arguments, "time")
    return Event(
        title=title,
        day=read_day(_text(arguments, "date"), today),
        start=read_time(said) if said else None,
        place=_text(arguments, "location"),
        people=tuple(name for one in people if (name := " ".join(str(one).split())[:MAX_TEXT_CHARS])),
    )


def write_event(folder: Path, event: Event) -> Path:
    """Write the invitation under a name that no file has yet."""
    data = render(event, id=f"{secrets.token_hex(16)}@llamakit", now=datetime.now(UTC))
    stem = re.sub(r"[^a-z0-9]+", "-", event.title.lower()).strip("-")[:60] or "event"
    for count in range(1, MAX_NAMES_TRIED):
        path = folder / f"{stem}{'' if count == 1 else f'-{count}'}.ics"
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            continue
        except OSError as fault:
            raise ToolError(f"the invitation could not be written to {folder}: {fault.strerror or fault}") from fault
        return path
    raise ToolError(f"{folder} holds {MAX_NAMES_TRIED} invitations of this name; clear some away")


def _text(arguments: Mapping[str, Any], name: str) -> str:
    return " ".join(str(arguments.get(name) or "").split())[:MAX_TEXT_CHARS]
