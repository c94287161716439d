"""The calendar as a tool: days and times as people write them, and files that calendars open."""

import json
from datetime import UTC, date, datetime, time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.agents.calendar import SPEC, calendar
from llamakit.agents.dates import read_day, read_time
from llamakit.agents.icalendar import Event, render
from llamakit.agents.tools import ToolBox
from llamakit.core.errors import ToolError
from llamakit.core.messages import ToolCall

TODAY = date(2026, 11, 21)
"""A Saturday."""
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Friday", date(2026, 11, 27)),
        ("on friday", date(2026, 11, 27)),
        ("Saturday", date(2026, 11, 28)),
        ("next Monday", date(2026, 11, 23)),
        ("today", TODAY),
        ("tonight", TODAY),
        ("tomorrow", date(2026, 11, 22)),
        ("next week", date(2026, 11, 23)),
        ("this weekend", TODAY),
        ("12 May", date(2027, 5, 12)),
        ("May 12", date(2027, 5, 12)),
        ("December 1st, 2027", date(2027, 12, 1)),
        ("1st of December", date(2026, 12, 1)),
        ("Friday, 4 Dec", date(2026, 12, 4)),
        ("2026-12-24", date(2026, 12, 24)),
    ],
)
def test_days_are_read_as_people_mean_them(said, meant):
    assert read_day(said, TODAY) == meant


@pytest.mark.parametrize("said", ["", "soon", "31 February", "2026-13-01", "12 Mayonnaise", "the day"])
def test_what_is_no_day_is_refused_in_words(said):
    with pytest.raises(ToolError, match="weekday"):
        read_day(said, TODAY)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("3 pm", time(15)),
        ("12 am", time(0)),
        ("12pm", time(12)),
        ("7:45 p.m.", time(19, 45)),
        ("15:30", time(15, 30)),
        ("at 9", time(9)),
        ("noon", time(12)),
        ("midnight", time(0)),
    ],
)
def test_times_are_read_as_people_mean_them(said, meant):
    assert read_time(said) == meant


@pytest.mark.parametrize("said", ["13 pm", "25:00", "9:75", "late", "0 am"])
def test_what_is_no_time_is_refused_in_words(said):
    with pytest.raises(ToolError, match="no time"):
        read_time(said)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_no_words_break_the_readers(said):
    for read in (lambda: read_day(said, TODAY), lambda: read_time(said)):
        try:
            read()
        except ToolError:
            pass


def test_an_invitation_is_a_calendar_file():
    event = Event(
        title="Tea; cake, \\o/",
        day=date(2026, 11, 27),
        start=time(23, 30),
        place="Zo\u00eb's place " + "\u00e9" * 60,
        people=('Ana "the cook"', "Tom\nX"),
    )
    text = render(event, id="1@x", now=NOW).decode()
    lines = text.split("\r\n")
    assert lines[0] == "BEGIN:VCALENDAR" and lines[-2:] == ["END:VCALENDAR", ""]
    assert all(len(line.encode()) <= 75 for line in lines)
    whole = text.replace("\r\n ", "")
    assert "SUMMARY:Tea\\; cake\\, \\\\o/" in whole and "DTSTAMP:20261121T093000Z" in whole
    assert "DTSTART:20261127T233000" in whole and "DTEND:20261128T003000" in whole
    assert 'ATTENDEE;CN="Ana the cook";' in whole and 'CN="TomX"' in whole and "METHOD:REQUEST" in whole
    alone = render(Event(title="x", day=TODAY), id="2", now=NOW).decode()
    assert "DTSTART;VALUE=DATE:20261121" in alone and "METHOD:PUBLISH" in alone and "ORGANIZER" not in alone


async def test_the_tool_writes_a_file_or_says_what_is_wrong(tmp_path):
    box = ToolBox.of([calendar(tmp_path, today=lambda: TODAY)])

    async def use(**arguments):
        return await box.call(ToolCall(id="1", name=SPEC.name, arguments=json.dumps(arguments)))

    made = await use(title="Team meeting!", date="Friday", time="3 pm", attendees=["Maria", " "], location="hall")
    assert made.text == '{"status": "ok"}' and made.data["day"] == "2026-11-27" and made.data["people"] == ["Maria"]
    assert (tmp_path / "team-meeting.ics").read_bytes().startswith(b"BEGIN:VCALENDAR")
    again = await use(title="Team meeting!", date="Friday")
    assert again.data["path"].endswith("team-meeting-2.ics")
    assert (await use(title="../../etc/x", date="today")).data["path"] == str(tmp_path / "etc-x.ics")
    for arguments in ({"title": "x"}, {"title": " ", "date": "today"}, {"title": "x", "date": "soon"}):
        assert (await use(**arguments)).is_error
    assert (await use(title="x", date="today", attendees=["a"] * 101)).is_error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etc-x.ics", "team-meeting-2.ics", "team-meeting.ics"]
    gone = ToolBox.of([calendar(tmp_path / "absent")])
    outcome = await gone.call(ToolCall(id="1", name=SPEC.name, arguments='{"title": "x", "date": "today"}'))
    assert outcome.is_error and "could not be written" in outcome.text
