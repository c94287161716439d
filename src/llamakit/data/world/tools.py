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


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """A tool, a request for it, the right arguments, and what to say when the tool has answered."""

    spec: ToolSpec
    request: str
    arguments: dict[str, Any]
    result: str
    confirmation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    names: tuple[str, ...]
    description: str
    kind: str = "string"
    required: bool = True


_TITLE = _Field(
    names=("title", "name", "subject", "event", "summary", "event_name", "event_title", "what"),
    description="Name of the event",
)
_DATE = _Field(names=("date", "day", "on", "event_date", "when", "start_date"), description="Day of the event")
_TIME = _Field(names=("time", "start_time", "start", "at", "begin", "hour"), description="Start time", required=False)
_PEOPLE = _Field(
    names=("attendees", "participants", "guests", "invitees", "people", "with_people"),
    description="People to invite",
    kind="array",
    required=False,
)
_PLACE = _Field(
    names=("location", "place", "where", "venue", "address"), description="Where it takes place", required=False
)

_CALENDAR = (
    "create_event", "create_calendar_event", "add_event", "schedule_event", "send_invitation", "send_calendar_invitation",
    "create_invite", "new_event", "add_calendar_entry", "calendar_create", "book_meeting", "schedule_meeting", "make_appointment",
    "send_invite", "calendar_add_event", "create_meeting",
)  # fmt: skip


def _spec(name: str, description: str, fields: list[tuple[str, _Field]], *, items: bool = True) -> ToolSpec:
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


def _fields(draw: Draw, *fields: _Field) -> list[tuple[str, _Field]]:
    chosen: list[tuple[str, _Field]] = []
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """One sort of tool. `slots` draws the values of `fields` in order, as (value, as said); empty values are left out."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    fields: tuple[_Field, ...]
    phrases: tuple[str, ...]
    confirm: str
    slots: Callable[[Draw], tuple[tuple[Any, str], ...]]


def _same(value: str) -> tuple[Any, str]:
    return value, value


def _reminder_slots(draw: Draw) -> tuple[tuple[Any, str], ...]:
    date, on = day(draw)
    time = clock(draw) if draw.chance(0.5) else ""
    return _same(lexicon.task(draw)), (date, on), (time, f"at {time}" if time else "")


_SAYINGS = (
    "I am on my way", "I will be late", "the meeting is cancelled", "dinner is ready", "see you at the station", "thanks for the present",
    "I need five more minutes", "the train is late", "please call me back", "happy birthday", "I am at home now", "good luck today",
    "the keys are under the mat", "we are out of milk", "I sent you the photos", "the doctor says all is well", "I got the job",
    "lunch was great", "the car is fixed", "I miss you", "let us meet tomorrow", "the parcel is here", "I cannot come today", "all is fine",
)  # fmt: skip


def _message_slots(draw: Draw) -> tuple[tuple[Any, str], ...]:
    to = lexicon.person(draw) if draw.chance(0.85) else draw.choose(("Mum", "Dad", "Grandma", "Dr. Patel"))
    kind = draw.number(0, 9)
    if kind < 4:
        text = draw.pick(_SAYINGS)
    elif kind < 6:
        text = f"please {lexicon.task(draw)}"
    elif kind < 8:
        text = f"the {lexicon.event(draw)} is {day(draw)[1]} at {clock(draw)}"
    else:
        text = f"I will be at {lexicon.venue(draw)} at {clock(draw)}"
    return _same(to), _same(text)


def _weather_slots(draw: Draw) -> tuple[tuple[Any, str], ...]:
    date = draw.choose(("", "", "today", "tomorrow", *lexicon.WEEKDAYS))
    said = "" if not date else date if date in ("today", "tomorrow") else f"on {date}"
    return _same(lexicon.city(draw)), (date, said)


def _minutes(draw: Draw) -> tuple[tuple[Any, str], ...]:
    number = draw.number(1, 90)
    return ((number, str(number)),)


_ROOMS = ("kitchen", "bedroom", "living room", "bathroom", "hall", "office", "garage", "garden")
_LANGUAGES = ("German", "French", "Spanish", "Italian", "Hindi", "Thai", "Portuguese", "Polish")
_TOPICS = (
    "pasta recipes", "bike shops", "train tickets", "cheap flights", "llama facts", "running shoes", "vegan restaurants", "piano lessons",
    "used cars", "garden ideas", "museum opening hours", "football results", "guitar chords", "hiking trails", "yoga videos", "dog names",
)  # fmt: skip


def _switch_slots(draw: Draw) -> tuple[tuple[Any, str], ...]:
    on = draw.chance(0.5)
    return _same(draw.choose(_ROOMS)), (on, "on" if on else "off")


def _field(*names: str, about: str, kind: str = "string", required: bool = True) -> _Field:
    return _Field(names=names, description=about, kind=kind, required=required)


KINDS: tuple[_Kind, ...] = (
    _Kind(
        names=("add_reminder", "set_reminder", "create_reminder", "remind_me", "new_reminder", "reminder_add", "schedule_reminder", "make_reminder"),
        descriptions=("Set a reminder.", "Remind the user of something.", "Add a reminder to the phone."),
        fields=(_field("text", "task", "what", "title", "note", "reminder", "message", "about", about="What to remember"), _field("date", "day", "when", "on", "due", "due_date", about="Day"), _field("time", "at", "hour", "start_time", about="Time of day", required=False)),
        phrases=("Remind me to {0} {1} {2}.", "Set a reminder to {0} {1} {2}", "{1} {2} I have to {0}, remind me.", "Please remind me {1} {2} to {0}.", "I need to {0} {1} {2}, set a reminder.", "Can you remind me to {0} {1} {2}?", "Add a reminder: {0} {1} {2}.", "Don't let me forget to {0} {1} {2}."),
        confirm="Done. I will remind you to {0} {1} {2}.",
        slots=_reminder_slots,
    ),
    _Kind(
        names=("send_message", "send_text", "text_contact", "message", "send_sms", "write_message", "send_chat_message", "sms_send"),
        descriptions=("Send a message to a contact.", "Send a text message.", "Write to somebody."),
        fields=(_field("to", "recipient", "contact", "name", "person", "receiver", "contact_name", "to_person", about="Who gets the message"), _field("text", "message", "body", "content", "msg", "message_text", "words", "what", about="The text of the message")),
        phrases=('Send a message to {0}: {1}', "Text {0}: {1}", "Tell {0}: {1}", "Write to {0}: {1}", "Message {0}: {1}", "Please text {0} that {1}", "Tell {0} that {1}", "Send {0} a message saying {1}", "Let {0} know that {1}", "Can you message {0} that {1}?", "Drop {0} a line: {1}"),
        confirm="Done. I sent the message to {0}.",
        slots=_message_slots,
    ),
    _Kind(
        names=("get_weather", "weather", "check_weather", "weather_forecast", "get_forecast", "current_weather", "lookup_weather", "forecast"),
        descriptions=("Get the weather of a place.", "Weather forecast for a city.", "Look up the weather."),
        fields=(_field("city", "location", "place", "town", "where", "city_name", "in_city", "area", about="Name of the city"), _field("day", "date", "when", "on", about="Day of the forecast", required=False)),
        phrases=("What is the weather in {0} {1}?", "Weather in {0} {1}?", "How is the weather in {0} {1}?", "Will it rain in {0} {1}?", "Do I need an umbrella in {0} {1}?", "Check the weather in {0} {1}.", "Is it cold in {0} {1}?", "Tell me the weather for {0} {1}", "What's the forecast for {0} {1}?"),
        confirm="",
        slots=_weather_slots,
    ),
    _Kind(
        names=("set_timer", "start_timer", "timer", "new_timer", "countdown", "create_timer", "timer_start", "begin_timer"),
        descriptions=("Start a timer.", "Set a countdown timer in minutes."),
        fields=(_field("minutes", "duration", "length", "duration_minutes", "mins", about="Length in minutes", kind="integer"),),
        phrases=("Set a timer for {0} minutes.", "Start a {0} minute timer.", "Timer for {0} minutes", "Wake me in {0} minutes.", "{0} minutes timer please", "Count down {0} minutes.", "Can you set a timer for {0} minutes?", "I need a {0} minute timer.", "Please start a timer, {0} minutes."),
        confirm="Done. The timer is set for {0} minutes.",
        slots=_minutes,
    ),
    _Kind(
        names=("set_alarm", "create_alarm", "alarm", "wake_up", "add_alarm", "new_alarm", "alarm_set", "schedule_alarm"),
        descriptions=("Set an alarm.", "Wake the user at a given time."),
        fields=(_field("time", "at", "hour", "alarm_time", "when", about="Time of the alarm"),),
        phrases=("Set an alarm for {0}.", "Wake me up at {0}.", "Alarm at {0}", "I have to get up at {0}, set an alarm.", "Please wake me at {0}.", "Can you set the alarm to {0}?", "New alarm: {0}", "I need an alarm at {0}.", "Get me up at {0}"),
        confirm="Done. The alarm is set for {0}.",
        slots=lambda draw: (_same(clock(draw)),),
    ),
    _Kind(
        names=("call_contact", "make_call", "phone", "call", "dial", "start_call", "phone_call", "ring"),
        descriptions=("Call somebody on the phone.", "Start a phone call."),
        fields=(_field("name", "contact", "person", "who", "to", "contact_name", "callee", "number", about="Who to call"),),
        phrases=("Call {0}.", "Phone {0} please", "Give {0} a call.", "Ring {0}.", "I want to talk to {0}, call now.", "Can you call {0}?", "Please dial {0}.", "Start a call with {0}.", "Get {0} on the phone"),
        confirm="Done. I am calling {0}.",
        slots=lambda draw: (_same(lexicon.person(draw)),),
    ),
    _Kind(
        names=("play_song", "play_music", "play", "start_song", "music_play", "play_track", "listen", "start_music"),
        descriptions=("Play a song.", "Start playing music."),
        fields=(_field("song", "title", "track", "name", "music", "song_title", "tune", "piece", about="Title of the song"),),
        phrases=("Play {0}.", "Put on {0} please", "I want to hear {0}.", "Can you play {0}?", "Play the song {0}.", "Start {0}", "Let me listen to {0}.", "Music: {0}", "Please play {0} now."),
        confirm="Now playing {0}.",
        slots=lambda draw: (_same(draw.pick(lexicon.SONGS)),),
    ),
    _Kind(
        names=("navigate", "get_directions", "navigate_to", "directions", "route_to", "start_navigation", "find_route", "drive_to"),
        descriptions=("Start navigation to a place.", "Find the way to a place."),
        fields=(_field("destination", "to", "place", "location", "target", "where", "address", "goal", about="Where to go"),),
        phrases=("Take me to {0}.", "Navigate to {0}.", "How do I get to {0}?", "Directions to {0} please", "Show me the way to {0}.", "I want to drive to {0}.", "Route to {0}", "Find the way to {0}.", "Can you guide me to {0}?"),
        confirm="Starting navigation to {0}.",
        slots=lambda draw: (_same(lexicon.venue(draw) if draw.chance(0.5) else lexicon.city(draw)),),
    ),
    _Kind(
        names=("set_light", "switch_light", "light", "control_light", "toggle_light", "lamp", "set_lamp", "light_switch"),
        descriptions=("Switch the light of a room.", "Turn a light on or off."),
        fields=(_field("room", "where", "location", "name", "place", "area", about="Name of the room"), _field("on", "state", "turn_on", "enabled", "power", about="true for on, false for off", kind="boolean")),
        phrases=("Turn {1} the light in the {0}.", "Switch the {0} light {1}.", "Light {1} in the {0} please", "{0} light {1}", "Can you turn {1} the {0} light?", "Turn the lights {1} in the {0}.", "Please switch {1} the light in the {0}.", "Put the {0} lamp {1}.", "Lights {1} in the {0}!"),
        confirm="Done. The {0} light is {1}.",
        slots=_switch_slots,
    ),
    _Kind(
        names=("web_search", "search_web", "search", "search_internet", "find_online", "lookup", "internet_search", "query_web"),
        descriptions=("Search the web.", "Find something on the internet."),
        fields=(_field("query", "q", "text", "search", "topic", "keywords", "terms", "what", about="What to search for"),),
        phrases=("Search for {0}.", "Look up {0}.", "Find {0} online.", "Search the web for {0}", "Can you look for {0}?", "Google {0}", "I want to find {0}.", "Please search {0}.", "Show me {0}"),
        confirm="I searched for {0}.",
        slots=lambda draw: (_same(draw.pick(_TOPICS)),),
    ),
    _Kind(
        names=("create_note", "add_note", "save_note", "take_note", "note", "write_note", "new_note", "note_add"),
        descriptions=("Save a note.", "Write down a note."),
        fields=(_field("text", "content", "note", "body", "what", "message", "words", "entry", about="Text of the note"),),
        phrases=("Make a note: {0}", "Note: {0}", "Take a note: {0}", "Write down: {0}", "Save a note that says {0}", "Please note that {0}", "Can you write down that {0}?", "New note: {0}", "Remember this: {0}"),
        confirm="Done. I saved the note.",
        slots=lambda draw: (_same(draw.pick(_SAYINGS)),),
    ),
    _Kind(
        names=("add_to_list", "shopping_list_add", "add_item", "add_shopping_item", "list_add", "put_on_list", "shopping_add", "append_item"),
        descriptions=("Add an item to the shopping list.", "Put something on the shopping list."),
        fields=(_field("item", "name", "product", "thing", "what", "article", "entry", "goods", about="What to buy"),),
        phrases=("Add {0} to my shopping list.", "Put {0} on the list.", "We need {0}, add it to the list.", "Shopping list: {0}", "I have to buy {0}, put it on the list.", "Please add {0} to the list.", "Can you put {0} on the shopping list?", "Add {0}", "Don't forget {0} on the shopping list."),
        confirm="Done. {0} is on the list.",
        slots=lambda draw: (_same(draw.pick(lexicon.FOODS + lexicon.DISHES)),),
    ),
)  # fmt: skip

HELD_KINDS: tuple[_Kind, ...] = (
    _Kind(
        names=("order_taxi",),
        descriptions=("Order a taxi.",),
        fields=(_field("pickup", about="Where to start"), _field("destination", about="Where to go"), _field("time", about="Pickup time")),
        phrases=("Order a taxi from {0} to {1} at {2}.", "I need a taxi from {0} to {1} at {2}."),
        confirm="Done. The taxi from {0} to {1} comes at {2}.",
        slots=lambda draw: (_same(lexicon.venue(draw)), _same(lexicon.city(draw)), _same(clock(draw))),
    ),
    _Kind(
        names=("translate_text",),
        descriptions=("Translate a text into another language.",),
        fields=(_field("text", about="The text"), _field("language", about="Target language")),
        phrases=("Translate into {1}: {0}", "What is this in {1}: {0}"),
        confirm="Done.",
        slots=lambda draw: (_same(draw.pick(_SAYINGS)), _same(draw.choose(_LANGUAGES))),
    ),
    _Kind(
        names=("reserve_table",),
        descriptions=("Reserve a table in a restaurant.",),
        fields=(_field("restaurant", about="Name of the restaurant"), _field("seats", about="Number of seats", kind="integer"), _field("time", about="Time")),
        phrases=("Reserve a table for {1} at {0} at {2}.", "Book a table at {0} for {1} people at {2}."),
        confirm="Done. A table for {1} at {0} is reserved at {2}.",
        slots=lambda draw: (_same(draw.pick(lexicon.VENUES[:20])), (n := draw.number(2, 12), str(n)), _same(clock(draw))),
    ),
)  # fmt: skip

# Invented tools: a function nobody has seen, called by its own words. They teach to read the specification.
_VERBS = (
    "track",
    "rate",
    "rent",
    "open",
    "close",
    "measure",
    "count",
    "sell",
    "paint",
    "share",
    "archive",
    "rename",
    "scan",
    "mail",
    "store",
    "lock",
    "start",
    "stop",
    "publish",
    "import",
    "export",
    "assign",
    "approve",
    "report",
)
_NOUNS = (
    "box",
    "file",
    "ticket",
    "parcel",
    "bike",
    "room",
    "order",
    "photo",
    "report",
    "lamp",
    "camera",
    "chart",
    "recipe",
    "plant",
    "door",
    "album",
    "form",
    "locker",
    "ship",
    "robot",
    "card",
    "folder",
    "page",
    "badge",
)
_EXTRAS: tuple[tuple[tuple[str, ...], str, str, Callable[[Draw], tuple[Any, str]]], ...] = (
    (("person", "owner", "name", "user"), "string", "for", lambda draw: _same(lexicon.person(draw))),
    (("city", "place", "location"), "string", "in", lambda draw: _same(lexicon.city(draw))),
    (("day", "date"), "string", "on", lambda draw: _same(draw.choose(lexicon.WEEKDAYS))),
    (("time", "at"), "string", "at", lambda draw: _same(clock(draw))),
    (("color", "colour"), "string", "in", lambda draw: _same(draw.choose(("red", "blue", "green", "yellow", "black", "white", "orange", "pink")))),
    (("number", "id", "code"), "integer", "number", lambda draw: (n := draw.number(1, 999), str(n))),
    (("company", "shop"), "string", "with", lambda draw: _same(draw.pick(lexicon.COMPANIES))),
)  # fmt: skip


def invented(draw: Draw) -> Use:
    """A made-up function with one to three arguments."""
    verb, noun = draw.pick(_VERBS), draw.pick(_NOUNS)
    extras = draw.sample(_EXTRAS, draw.number(1, 3))
    words: list[str] = []
    pairs: list[tuple[str, _Field]] = []
    values: dict[str, Any] = {}
    for names, kind, preposition, value in extras:
        key = draw.choose(names)
        while key in values:
            key = draw.choose(names) + "_2"
        values[key], said = value(draw)
        words.append(f"{preposition} {said}")
        pairs.append((key, _field(key, about=f"The {key}", kind=kind)))
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


def use(draw: Draw, kind: _Kind) -> Use:
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
