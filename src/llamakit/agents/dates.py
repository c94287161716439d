"""Days and times as people write them in English messages -> dates and times; what cannot be read is refused."""

from __future__ import annotations

import re
from datetime import date, time, timedelta

from llamakit.core.errors import ToolError

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_ISO = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")
_NUMBER = r"(\d{1,2})(?:st|nd|rd|th)?"
_DAY_MONTH = re.compile(rf"{_NUMBER}(?: of)? ([a-z]+)\.?(?:,? (\d{{4}}))?")
_MONTH_DAY = re.compile(rf"([a-z]+)\.? {_NUMBER}(?:,? (\d{{4}}))?")
_CLOCK = re.compile(r"(\d{1,2})(?:[:.](\d{2}))?\s*(am|pm|a\.m\.?|p\.m\.?)?(?: o'?clock)?")
_NEAR = {"today": 0, "tonight": 0, "this evening": 0, "tomorrow": 1, "the day after tomorrow": 2}


def read_day(text: str, today: date) -> date:
    """The next day that the words can mean, seen from `today`; raises `ToolError` in words for a model."""
    said = " ".join(text.lower().replace(",", ", ").split()).removeprefix("on ").removeprefix("this ").strip(" .,")
    if said in _NEAR:
        return today + timedelta(days=_NEAR[said])
    if said in ("weekend", "the weekend"):
        return today + timedelta(days=(5 - today.weekday()) % 7)
    monday = today + timedelta(days=7 - today.weekday())
    if said == "next week":
        return monday
    is_next = said.startswith("next ")
    name = said.removeprefix("next ")
    for number, day in enumerate(_DAYS):
        if name in (day, day[:3], day[:4]):
            return monday + timedelta(days=number) if is_next else today + timedelta(days=_until(today, number))
    found = _dated(said, today)
    if found is None:
        raise ToolError(
            f"{text[:80]!r} is no day that can be read; write a weekday, tomorrow, 12 May, or a date such as 2026-05-12"
        )
    return found


def read_time(text: str) -> time:
    """A time of day; raises `ToolError` in words for a model."""
    said = " ".join(text.lower().split()).removeprefix("at ").strip(" .")
    if said in ("noon", "midday"):
        return time(12)
    if said == "midnight":
        return time(0)
    found = _CLOCK.fullmatch(said)
    if found is not None:
        hour, minute, half = int(found[1]), int(found[2] or 0), (found[3] or "")[:1]
        if half and 1 <= hour <= 12:
            hour = hour % 12 + (12 if half == "p" else 0)
        elif half:
            hour = 24
        if hour < 24 and minute < 60:
            return time(hour, minute)
    raise ToolError(f"{text[:80]!r} is no time that can be read; write it as 3 pm, 15:30 or noon")


def _until(today: date, weekday: int) -> int:
    """Days until the next such weekday: one to seven, as today is called today."""
    return (weekday - today.weekday() - 1) % 7 + 1


def _dated(said: str, today: date) -> date | None:
    if found := _ISO.fullmatch(said):
        return _date(int(found[1]), int(found[2]), int(found[3]))
    # A weekday before the date, as in "Friday, 12 May", adds nothing.
    plain = re.sub(rf"^(?:{'|'.join(_DAYS)}),? ", "", said)
    if found := _DAY_MONTH.fullmatch(plain):
        number, name, year = found.groups()
    elif found := _MONTH_DAY.fullmatch(plain):
        name, number, year = found.groups()
    else:
        return None
    month = next((at for at, one in enumerate(_MONTHS, start=1) if name in (one, one[:3])), 0)
    made = _date(int(year or today.year), month, int(number))
    if made is not None and year is None and made < today:
        return _date(today.year + 1, month, int(number))
    return made


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
