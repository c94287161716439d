"""Events as iCalendar files, which every calendar opens. Source: RFC 5545, and RFC 5546 for invitations.

Times are those of the clock on the wall where the file is opened, as people mean them in messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

_PRODUCT = "-//llamakit//calendar//EN"
_LINE_BYTES = 75
_NOBODY = "invalid:nomail"
"""Stands where an address belongs of a person of whom only the name is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something for the calendar."""

    title: str
    day: date
    start: time | None = None
    """None for the whole day."""
    minutes: int = 60
    place: str = ""
    people: tuple[str, ...] = ()
    """Names of those who are invited."""


def render(event: Event, *, id: str, now: datetime) -> bytes:
    """The file of an invitation; `id` names the event for good, `now` has a time zone."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:{_PRODUCT}", "CALSCALE:GREGORIAN"]
    lines += [f"METHOD:{'REQUEST' if event.people else 'PUBLISH'}", "BEGIN:VEVENT", f"UID:{_text(id)}"]
    lines += [f"DTSTAMP:{now.astimezone(UTC):%Y%m%dT%H%M%SZ}", *_when(event), f"SUMMARY:{_text(event.title)}"]
    if event.place:
        lines.append(f"LOCATION:{_text(event.place)}")
    if event.people:
        lines.append(f"ORGANIZER;CN=Me:{_NOBODY}")
        lines += [f'ATTENDEE;CN="{_name(name)}";ROLE=REQ-PARTICIPANT;RSVP=TRUE:{_NOBODY}' for name in event.people]
    lines += ["END:VEVENT", "END:VCALENDAR"]
    return "".join(f"{folded}\r\n" for line in lines for folded in _folded(line)).encode()


def _when(event: Event) -> Sequence[str]:
    if event.start is None:
        return (f"DTSTART;VALUE=DATE:{event.day:%Y%m%d}", f"DTEND;VALUE=DATE:{event.day + timedelta(days=1):%Y%m%d}")
    start = datetime.combine(event.day, event.start)
    return (f"DTSTART:{start:%Y%m%dT%H%M%S}", f"DTEND:{start + timedelta(minutes=event.minutes):%Y%m%dT%H%M%S}")


def _text(text: str) -> str:
    """A value with what has a meaning escaped, and without control characters."""
    line = "".join(char for char in text if char.isprintable() or char == "\n")
    return line.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")


def _name(name: str) -> str:
    """A parameter's value, which cannot hold quotes at all."""
    return "".join(char for char in name if char.isprintable() and char != '"')


def _folded(line: str) -> list[str]:
    """The line in pieces of at most 75 bytes, each but the first after a space, and no character split."""
    made, piece, room = [], "", _LINE_BYTES
    for char in line:
        size = len(char.encode())
        if size > room:
            made.append(piece)
            piece, room = " ", _LINE_BYTES - 1
        piece += char
        room -= size
    return [*made, piece]
