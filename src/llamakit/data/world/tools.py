"""Tools of a phone, under many names, and requests whose words fill their arguments.

Names of functions and of their arguments vary from example to example, so that a model can only be
right by reading the specification it was given.
"""

from __future__ import annotations

# ruff: noqa: E501 - a phrase book reads best with one question a line, however long.
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llamakit.core.messages import ToolSpec
from llamakit.data.world import lexicon
from llamakit.data.world.draw import Draw, sentence
from llamakit.data.world.facts import Plan, clock, day
from llamakit.data.world.tool_kinds import HELD_KINDS, KINDS, Field, Kind, argument, same


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """A tool, a request for it, the right arguments, and what to say when the tool has answered."""

    spec: ToolSpec
    request: str
    arguments: dict[str, Any]
    result: str
    confirmation: str


_TITLE = Field(
    names=("title", "name", "subject", "event", "summary", "event_name", "event_title", "what"),
    description="Name of the event",
)
_DATE = Field(names=("date", "day", "on", "event_date", "when", "start_date"), description="Day of the event")
_TIME = Field(names=("time", "start_time", "start", "at", "begin", "hour"), description="Start time", required=False)
_PEOPLE = Field(
    names=("attendees", "participants", "guests", "invitees", "people", "with_people"),
    description="People to invite",
    kind="array",
    required=False,
)
_PLACE = Field(
    names=("location", "place", "where", "venue", "address"), description="Where it takes place", required=False
)

_CALENDAR = (
    "create_event", "create_calendar_event", "add_event", "schedule_event", "send_invitation", "send_calendar_invitation",
    "create_invite", "new_event", "add_calendar_entry", "calendar_create", "book_meeting", "schedule_meeting", "make_appointment",
    "send_invite", "calendar_add_event", "create_meeting",
)  # fmt: skip


def _spec(name: str, description: str, fields: list[tuple[str, Field]], *, items: bool = True) -> ToolSpec:
    properties: dict[str, Any] = {}
    for key, field in fields:
        schema: dict[str, Any] = {"type": field.kind, "description": field.description}
        if field.kind == "array" and items:
            schema["items"] = {"type": "string"}
        properties[key] = schema
    required = [key for key, field in fields if field.required]
    return ToolSpec(
        name=name,
        description=description,
        parameters={"type": "object", "properties": properties, "required": required},
    )


def _fields(draw: Draw, *fields: Field) -> list[tuple[str, Field]]:
    chosen: list[tuple[str, Field]] = []
    for field in fields:
        key = draw.pick(field.names)
        while any(key == other for other, _ in chosen):
            key = draw.pick(field.names)
        chosen.append((key, field))
    return chosen


def _result(draw: Draw, good: str) -> str:
    return draw.choose(
        ('{"status": "ok"}', '{"success": true}', "ok", good, '{"result": "done"}', "done", '{"status": "success"}')
    )


def people_list(names: tuple[str, ...]) -> str:
    """Names as an English list."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def calendar(draw: Draw, plan: Plan, request: str, *, demo: bool = False) -> Use:
    """A calendar tool and the call that enters `plan`; `demo` gives the plain names most people would choose."""
    optional = [field for field in (_TIME, _PEOPLE, _PLACE) if demo or draw.chance(0.8)]
    if not demo and draw.chance(0.3):
        optional = draw.sample(optional, len(optional))
    shown = (_TITLE, _DATE, *optional)
    pairs = [(field.names[0], field) for field in shown] if demo else _fields(draw, *shown)
    values: dict[str, Any] = {}
    for key, field in pairs:
        value: Any = {
            id(_TITLE): plan.title,
            id(_DATE): plan.day,
            id(_TIME): plan.time,
            id(_PEOPLE): list(plan.people),
            id(_PLACE): plan.place,
        }[id(field)]
        if value:
            values[key] = value
    name = "create_event" if demo else draw.pick(_CALENDAR)
    spec = _spec(
        name,
        draw.choose(
            (
                "Create a calendar event.",
                "Add an event to the calendar and invite people.",
                "Send a calendar invitation.",
                "Create an event in the calendar",
            )
        ),
        pairs,
        items=draw.chance(0.5),
    )
    used = {id(field) for key, field in pairs if key in values}
    told = f'Done. "{plan.title}" is in the calendar for {plan.day}'
    told += f" at {plan.time}" if plan.time and id(_TIME) in used else ""
    told += f", {plan.place}" if plan.place and id(_PLACE) in used else ""
    told += f". I invited {people_list(plan.people)}." if plan.people and id(_PEOPLE) in used else "."
    return Use(
        spec=spec,
        request=request,
        arguments=values,
        result=_result(draw, '{"event_id": ' + str(draw.number(100, 999)) + "}"),
        confirmation=told,
    )


_MEET = (
    "Schedule {event} {people} {on}{time}{place}.", "Create a calendar event: {event} {people} {on}{time}{place}.",
    "Put {event} {people} {on}{time}{place} in my calendar.", "Please add {event} {people} to my calendar {on}{time}{place}.",
    "Set up {event} {people} {on}{time}{place}.", "Book {event} {people} {on}{time}{place}", "I have {event} {people} {on}{time}{place}. Add it to the calendar.",
    "Can you schedule {event} {people} {on}{time}{place}?", "Send an invitation for {event} {people} {on}{time}{place}.",
    "New event: {event} {people} {on}{time}{place}", "Plan {event} {people} {on}{time}{place}.", "Make an appointment: {event} {people} {on}{time}{place}.",
    "{event} {people} {on}{time}{place}, put it in my calendar", "Add {event} {people} {on}{time}{place}.", "I need {event} {people} {on}{time}{place} in the calendar.",
    "Arrange {event} {people} {on}{time}{place} please.",
)  # fmt: skip


def meeting(draw: Draw) -> Use:
    """A calendar request in one sentence."""
    event = lexicon.event(draw)
    date, on = day(draw)
    time = clock(draw) if draw.chance(0.8) else ""
    place = lexicon.venue(draw) if draw.chance(0.4) else ""
    people = tuple(lexicon.people(draw, draw.weighted(((1.5, 0), (4, 1), (2, 2), (1, 3)))))
    article = draw.choose(("", "", "a ", "the "))
    text = draw.fill(
        draw.pick(_MEET), event=article + event, people=f"with {people_list(people)}" if people else "", on=on,
        time=f" at {time}" if time else "", place=f" at {place}" if place else "",
    )  # fmt: skip
    plan = Plan(title=sentence(event), day=date, time=time, place=place, people=people)
    return calendar(draw, plan, sentence(text), demo=draw.chance(0.15))


# Invented tools: a function nobody has seen, called by its own words. They teach to read the specification.
_VERBS = (
    "track", "rate", "rent", "open", "close", "measure", "count", "sell", "paint", "share", "archive", "rename",
    "scan", "mail", "store", "lock", "start", "stop", "publish", "import", "export", "assign", "approve", "report",
)  # fmt: skip
_NOUNS = (
    "box", "file", "ticket", "parcel", "bike", "room", "order", "photo", "report", "lamp", "camera", "chart",
    "recipe", "plant", "door", "album", "form", "locker", "ship", "robot", "card", "folder", "page", "badge",
)  # fmt: skip
_EXTRAS: tuple[tuple[tuple[str, ...], str, str, Callable[[Draw], tuple[Any, str]]], ...] = (
    (("person", "owner", "name", "user"), "string", "for", lambda draw: same(lexicon.person(draw))),
    (("city", "place", "location"), "string", "in", lambda draw: same(lexicon.city(draw))),
    (("day", "date"), "string", "on", lambda draw: same(draw.choose(lexicon.WEEKDAYS))),
    (("time", "at"), "string", "at", lambda draw: same(clock(draw))),
    (("color", "colour"), "string", "in", lambda draw: same(draw.choose(("red", "blue", "green", "yellow", "black", "white", "orange", "pink")))),
    (("number", "id", "code"), "integer", "number", lambda draw: (n := draw.number(1, 999), str(n))),
    (("company", "shop"), "string", "with", lambda draw: same(draw.pick(lexicon.COMPANIES))),
)  # fmt: skip


def invented(draw: Draw) -> Use:
    """A made-up function with one to three arguments."""
    verb, noun = draw.pick(_VERBS), draw.pick(_NOUNS)
    extras = draw.sample(_EXTRAS, draw.number(1, 3))
    words: list[str] = []
    pairs: list[tuple[str, Field]] = []
    values: dict[str, Any] = {}
    for names, kind, preposition, value in extras:
        key = draw.choose(names)
        while key in values:
            key = draw.choose(names) + "_2"
        values[key], said = value(draw)
        words.append(f"{preposition} {said}")
        pairs.append((key, argument(key, about=f"The {key}", kind=kind)))
    order = draw.sample(words, len(words))
    name = draw.choose((f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}_the_{noun}"))
    text = draw.choose(
        (
            "{v} the {n} {e}.",
            "Please {v} the {n} {e}.",
            "Can you {v} the {n} {e}?",
            "{v} a {n} {e}",
            "I want to {v} a {n} {e}.",
        )
    )
    return Use(
        spec=_spec(name, f"{sentence(verb)} a {noun}.", pairs),
        request=sentence(text.format(v=verb, n=noun, e=" ".join(order))),
        arguments=values,
        result=_result(draw, "finished"),
        confirmation=f"Done. I used {name}.",
    )


_SKY = ("sunny", "cloudy", "rainy", "windy", "snowy", "clear", "foggy", "stormy")


def use(draw: Draw, kind: Kind) -> Use:
    """One request for a tool of this kind."""
    pairs = _fields(draw, *kind.fields)
    slots = kind.slots(draw)
    said = [text for _, text in slots]
    values = {key: value for (key, _), (value, _) in zip(pairs, slots, strict=True) if value != ""}
    name = draw.pick(kind.names)
    request = sentence(draw.fill(draw.pick(kind.phrases).replace("{", "{s[").replace("}", "]}"), s=said))
    result, confirmation = (
        _result(draw, "success"),
        draw.fill(kind.confirm.replace("{", "{s[").replace("}", "]}"), s=said),
    )
    if not kind.confirm:
        degrees, sky = draw.number(-5, 38), draw.choose(_SKY)
        result = draw.choose(
            (
                f'{{"temperature": {degrees}, "sky": "{sky}"}}',
                f"{degrees} C, {sky}",
                f'{{"temp_c": {degrees}, "condition": "{sky}"}}',
            )
        )
        confirmation = draw.fill(f"In {{c}} it is {{d}} {degrees} degrees and {sky}.", c=said[0], d=said[1])
    return Use(
        spec=_spec(name, draw.choose(kind.descriptions), pairs),
        request=request,
        arguments=values,
        result=result,
        confirmation=sentence(confirmation),
    )


def any_use(draw: Draw) -> Use:
    """A request for some tool of the phone; unseen kinds in the held split."""
    if draw.split == "held" and draw.chance(0.3):
        return use(draw, draw.choose(HELD_KINDS))
    which = draw.number(0, 9)
    if which < 3:
        return meeting(draw)
    if which < 5:
        return invented(draw)
    return use(draw, draw.weighted([(3.0 if at < 2 else 1.0, kind) for at, kind in enumerate(KINDS)]))
