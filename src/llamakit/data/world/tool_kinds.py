"""The tools that a phone of this world has: names, arguments, and how people ask for them."""

from __future__ import annotations

# ruff: noqa: E501 - a phrase book reads best with one question a line, however long.
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llamakit.data.world import lexicon
from llamakit.data.world.draw import Draw
from llamakit.data.world.facts import clock, day


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """An argument of a tool under any of its names."""

    names: tuple[str, ...]
    description: str
    kind: str = "string"
    required: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One sort of tool. `slots` draws the values of `fields` in order, as (value, as said); empty values are left out."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    fields: tuple[Field, ...]
    phrases: tuple[str, ...]
    confirm: str
    slots: Callable[[Draw], tuple[tuple[Any, str], ...]]


def same(value: str) -> tuple[Any, str]:
    """A value that is said as it is."""
    return value, value


def _reminder_slots(draw: Draw) -> tuple[tuple[Any, str], ...]:
    date, on = day(draw)
    time = clock(draw) if draw.chance(0.5) else ""
    return same(lexicon.task(draw)), (date, on), (time, f"at {time}" if time else "")


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
    return same(to), same(text)


def _weather_slots(draw: Draw) -> tuple[tuple[Any, str], ...]:
    date = draw.choose(("", "", "today", "tomorrow", *lexicon.WEEKDAYS))
    said = "" if not date else date if date in ("today", "tomorrow") else f"on {date}"
    return same(lexicon.city(draw)), (date, said)


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
    return same(draw.choose(_ROOMS)), (on, "on" if on else "off")


def argument(*names: str, about: str, kind: str = "string", required: bool = True) -> Field:
    """A `Field`."""
    return Field(names=names, description=about, kind=kind, required=required)


KINDS: tuple[Kind, ...] = (
    Kind(
        names=("add_reminder", "set_reminder", "create_reminder", "remind_me", "new_reminder", "reminder_add", "schedule_reminder", "make_reminder"),
        descriptions=("Set a reminder.", "Remind the user of something.", "Add a reminder to the phone."),
        fields=(argument("text", "task", "what", "title", "note", "reminder", "message", "about", about="What to remember"), argument("date", "day", "when", "on", "due", "due_date", about="Day"), argument("time", "at", "hour", "start_time", about="Time of day", required=False)),
        phrases=("Remind me to {0} {1} {2}.", "Set a reminder to {0} {1} {2}", "{1} {2} I have to {0}, remind me.", "Please remind me {1} {2} to {0}.", "I need to {0} {1} {2}, set a reminder.", "Can you remind me to {0} {1} {2}?", "Add a reminder: {0} {1} {2}.", "Don't let me forget to {0} {1} {2}."),
        confirm="Done. I will remind you to {0} {1} {2}.",
        slots=_reminder_slots,
    ),
    Kind(
        names=("send_message", "send_text", "text_contact", "message", "send_sms", "write_message", "send_chat_message", "sms_send"),
        descriptions=("Send a message to a contact.", "Send a text message.", "Write to somebody."),
        fields=(argument("to", "recipient", "contact", "name", "person", "receiver", "contact_name", "to_person", about="Who gets the message"), argument("text", "message", "body", "content", "msg", "message_text", "words", "what", about="The text of the message")),
        phrases=('Send a message to {0}: {1}', "Text {0}: {1}", "Tell {0}: {1}", "Write to {0}: {1}", "Message {0}: {1}", "Please text {0} that {1}", "Tell {0} that {1}", "Send {0} a message saying {1}", "Let {0} know that {1}", "Can you message {0} that {1}?", "Drop {0} a line: {1}"),
        confirm="Done. I sent the message to {0}.",
        slots=_message_slots,
    ),
    Kind(
        names=("get_weather", "weather", "check_weather", "weather_forecast", "get_forecast", "current_weather", "lookup_weather", "forecast"),
        descriptions=("Get the weather of a place.", "Weather forecast for a city.", "Look up the weather."),
        fields=(argument("city", "location", "place", "town", "where", "city_name", "in_city", "area", about="Name of the city"), argument("day", "date", "when", "on", about="Day of the forecast", required=False)),
        phrases=("What is the weather in {0} {1}?", "Weather in {0} {1}?", "How is the weather in {0} {1}?", "Will it rain in {0} {1}?", "Do I need an umbrella in {0} {1}?", "Check the weather in {0} {1}.", "Is it cold in {0} {1}?", "Tell me the weather for {0} {1}", "What's the forecast for {0} {1}?"),
        confirm="",
        slots=_weather_slots,
    ),
    Kind(
        names=("set_timer", "start_timer", "timer", "new_timer", "countdown", "create_timer", "timer_start", "begin_timer"),
        descriptions=("Start a timer.", "Set a countdown timer in minutes."),
        fields=(argument("minutes", "duration", "length", "duration_minutes", "mins", about="Length in minutes", kind="integer"),),
        phrases=("Set a timer for {0} minutes.", "Start a {0} minute timer.", "Timer for {0} minutes", "Wake me in {0} minutes.", "{0} minutes timer please", "Count down {0} minutes.", "Can you set a timer for {0} minutes?", "I need a {0} minute timer.", "Please start a timer, {0} minutes."),
        confirm="Done. The timer is set for {0} minutes.",
        slots=_minutes,
    ),
    Kind(
        names=("set_alarm", "create_alarm", "alarm", "wake_up", "add_alarm", "new_alarm", "alarm_set", "schedule_alarm"),
        descriptions=("Set an alarm.", "Wake the user at a given time."),
        fields=(argument("time", "at", "hour", "alarm_time", "when", about="Time of the alarm"),),
        phrases=("Set an alarm for {0}.", "Wake me up at {0}.", "Alarm at {0}", "I have to get up at {0}, set an alarm.", "Please wake me at {0}.", "Can you set the alarm to {0}?", "New alarm: {0}", "I need an alarm at {0}.", "Get me up at {0}"),
        confirm="Done. The alarm is set for {0}.",
        slots=lambda draw: (same(clock(draw)),),
    ),
    Kind(
        names=("call_contact", "make_call", "phone", "call", "dial", "start_call", "phone_call", "ring"),
        descriptions=("Call somebody on the phone.", "Start a phone call."),
        fields=(argument("name", "contact", "person", "who", "to", "contact_name", "callee", "number", about="Who to call"),),
        phrases=("Call {0}.", "Phone {0} please", "Give {0} a call.", "Ring {0}.", "I want to talk to {0}, call now.", "Can you call {0}?", "Please dial {0}.", "Start a call with {0}.", "Get {0} on the phone"),
        confirm="Done. I am calling {0}.",
        slots=lambda draw: (same(lexicon.person(draw)),),
    ),
    Kind(
        names=("play_song", "play_music", "play", "start_song", "music_play", "play_track", "listen", "start_music"),
        descriptions=("Play a song.", "Start playing music."),
        fields=(argument("song", "title", "track", "name", "music", "song_title", "tune", "piece", about="Title of the song"),),
        phrases=("Play {0}.", "Put on {0} please", "I want to hear {0}.", "Can you play {0}?", "Play the song {0}.", "Start {0}", "Let me listen to {0}.", "Music: {0}", "Please play {0} now."),
        confirm="Now playing {0}.",
        slots=lambda draw: (same(draw.pick(lexicon.SONGS)),),
    ),
    Kind(
        names=("navigate", "get_directions", "navigate_to", "directions", "route_to", "start_navigation", "find_route", "drive_to"),
        descriptions=("Start navigation to a place.", "Find the way to a place."),
        fields=(argument("destination", "to", "place", "location", "target", "where", "address", "goal", about="Where to go"),),
        phrases=("Take me to {0}.", "Navigate to {0}.", "How do I get to {0}?", "Directions to {0} please", "Show me the way to {0}.", "I want to drive to {0}.", "Route to {0}", "Find the way to {0}.", "Can you guide me to {0}?"),
        confirm="Starting navigation to {0}.",
        slots=lambda draw: (same(lexicon.venue(draw) if draw.chance(0.5) else lexicon.city(draw)),),
    ),
    Kind(
        names=("set_light", "switch_light", "light", "control_light", "toggle_light", "lamp", "set_lamp", "light_switch"),
        descriptions=("Switch the light of a room.", "Turn a light on or off."),
        fields=(argument("room", "where", "location", "name", "place", "area", about="Name of the room"), argument("on", "state", "turn_on", "enabled", "power", about="true for on, false for off", kind="boolean")),
        phrases=("Turn {1} the light in the {0}.", "Switch the {0} light {1}.", "Light {1} in the {0} please", "{0} light {1}", "Can you turn {1} the {0} light?", "Turn the lights {1} in the {0}.", "Please switch {1} the light in the {0}.", "Put the {0} lamp {1}.", "Lights {1} in the {0}!"),
        confirm="Done. The {0} light is {1}.",
        slots=_switch_slots,
    ),
    Kind(
        names=("web_search", "search_web", "search", "search_internet", "find_online", "lookup", "internet_search", "query_web"),
        descriptions=("Search the web.", "Find something on the internet."),
        fields=(argument("query", "q", "text", "search", "topic", "keywords", "terms", "what", about="What to search for"),),
        phrases=("Search for {0}.", "Look up {0}.", "Find {0} online.", "Search the web for {0}", "Can you look for {0}?", "Google {0}", "I want to find {0}.", "Please search {0}.", "Show me {0}"),
        confirm="I searched for {0}.",
        slots=lambda draw: (same(draw.pick(_TOPICS)),),
    ),
    Kind(
        names=("create_note", "add_note", "save_note", "take_note", "note", "write_note", "new_note", "note_add"),
        descriptions=("Save a note.", "Write down a note."),
        fields=(argument("text", "content", "note", "body", "what", "message", "words", "entry", about="Text of the note"),),
        phrases=("Make a note: {0}", "Note: {0}", "Take a note: {0}", "Write down: {0}", "Save a note that says {0}", "Please note that {0}", "Can you write down that {0}?", "New note: {0}", "Remember this: {0}"),
        confirm="Done. I saved the note.",
        slots=lambda draw: (same(draw.pick(_SAYINGS)),),
    ),
    Kind(
        names=("add_to_list", "shopping_list_add", "add_item", "add_shopping_item", "list_add", "put_on_list", "shopping_add", "append_item"),
        descriptions=("Add an item to the shopping list.", "Put something on the shopping list."),
        fields=(argument("item", "name", "product", "thing", "what", "article", "entry", "goods", about="What to buy"),),
        phrases=("Add {0} to my shopping list.", "Put {0} on the list.", "We need {0}, add it to the list.", "Shopping list: {0}", "I have to buy {0}, put it on the list.", "Please add {0} to the list.", "Can you put {0} on the shopping list?", "Add {0}", "Don't forget {0} on the shopping list."),
        confirm="Done. {0} is on the list.",
        slots=lambda draw: (same(draw.pick(lexicon.FOODS + lexicon.DISHES)),),
    ),
)  # fmt: skip

HELD_KINDS: tuple[Kind, ...] = (
    Kind(
        names=("order_taxi",),
        descriptions=("Order a taxi.",),
        fields=(argument("pickup", about="Where to start"), argument("destination", about="Where to go"), argument("time", about="Pickup time")),
        phrases=("Order a taxi from {0} to {1} at {2}.", "I need a taxi from {0} to {1} at {2}."),
        confirm="Done. The taxi from {0} to {1} comes at {2}.",
        slots=lambda draw: (same(lexicon.venue(draw)), same(lexicon.city(draw)), same(clock(draw))),
    ),
    Kind(
        names=("translate_text",),
        descriptions=("Translate a text into another language.",),
        fields=(argument("text", about="The text"), argument("language", about="Target language")),
        phrases=("Translate into {1}: {0}", "What is this in {1}: {0}"),
        confirm="Done.",
        slots=lambda draw: (same(draw.pick(_SAYINGS)), same(draw.choose(_LANGUAGES))),
    ),
    Kind(
        names=("reserve_table",),
        descriptions=("Reserve a table in a restaurant.",),
        fields=(argument("restaurant", about="Name of the restaurant"), argument("seats", about="Number of seats", kind="integer"), argument("time", about="Time")),
        phrases=("Reserve a table for {1} at {0} at {2}.", "Book a table at {0} for {1} people at {2}."),
        confirm="Done. A table for {1} at {0} is reserved at {2}.",
        slots=lambda draw: (same(draw.pick(lexicon.VENUES[:20])), (n := draw.number(2, 12), str(n)), same(clock(draw))),
    ),
)  # fmt: skip
