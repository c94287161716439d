"""What can be said in a message thread, each with what it means.

A `Fact` is one or two messages together with the sentence that summarises them, the action item they
contain, and the questions they answer. Everything an example expects is derived from facts, so every
expected answer is true by construction.
"""

from __future__ import annotations

# ruff: noqa: E501 - a phrase book reads best with one question a line, however long.
from dataclasses import dataclass

from llamakit.data.world import lexicon
from llamakit.data.world.draw import Draw, sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """Who is to do what, and by when ("" when nobody said)."""

    who: str
    what: str
    when: str = ""

    def line(self) -> str:
        """The bullet of this item."""
        return f"- {self.who}: {self.what}" + (f" ({self.when})" if self.when else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Something for the calendar; empty fields were not mentioned."""

    title: str
    day: str
    time: str = ""
    place: str = ""
    people: tuple[str, ...] = ()
    """Whom to invite; a thread fills it with everybody who writes in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """Messages as (speaker, text), and everything that follows from them."""

    lines: tuple[tuple[str, str], ...]
    summary: str
    actions: tuple[Action, ...] = ()
    questions: tuple[tuple[str, str], ...] = ()
    plan: Plan | None = None
    topic: str = ""
    """Two facts of one thread never share a topic, so that each question has one answer."""


def day(draw: Draw) -> tuple[str, str]:
    """A day as a calendar field and as it stands in a sentence: ("Friday", "on Friday")."""
    kind = draw.number(0, 9)
    if kind < 5:
        name = draw.choose(lexicon.WEEKDAYS)
        return name, f"on {name}"
    if kind < 7:
        name = draw.choose(("tomorrow", "today", "tonight", "next week", "this weekend"))
        return name, name
    if kind == 7:
        name = f"next {draw.choose(lexicon.WEEKDAYS)}"
        return name, name
    month, number = draw.choose(lexicon.MONTHS), draw.number(1, 28)
    name = f"{number} {month}" if draw.chance(0.5) else f"{month} {number}"
    return name, f"on {name}"


def clock(draw: Draw) -> str:
    """A time of day as people write it."""
    kind = draw.number(0, 9)
    if kind < 4:
        return f"{draw.number(1, 12)} {draw.choose(('am', 'pm', 'pm'))}"
    if kind < 5:
        return f"{draw.number(1, 12)}{draw.choose(('am', 'pm'))}"
    if kind < 7:
        return f"{draw.number(1, 12)}:{draw.choose(('15', '30', '45'))} {draw.choose(('am', 'pm'))}"
    if kind < 9:
        return f"{draw.number(7, 22)}:{draw.choose(('00', '15', '30', '45'))}"
    return "noon"


def deadline(draw: Draw) -> str:
    """A due date, or nothing."""
    if draw.chance(0.2):
        return ""
    if draw.chance(0.15):
        return draw.choose(
            (
                "by the end of the week",
                "before lunch",
                "by the end of the month",
                "before the weekend",
                "as soon as possible",
            )
        )
    if draw.chance(0.2):
        return f"by {clock(draw)}"
    name, phrase = day(draw)
    if name in ("next week", "this weekend"):
        return phrase
    return draw.choose((f"by {name}", f"by {name}", f"before {name}", phrase)) if name != "today" else "today"


_REQUESTS = (
    "{b}, can you {vp} {by}?", "{b}, could you please {vp} {by}?", "@{b} please {vp} {by}", "Can you {vp} {by}, {b}?",
    "{b}, please {vp} {by}.", "{b} could you {vp} {by}? Thanks!", "Hey {b}, would you mind? We need you to {vp} {by}.",
    "{b}, I need you to {vp} {by}.", "Hi {b}! Can you {vp} {by}?", "{b}: please remember to {vp} {by}.",
    "Could {b} {vp} {by}?", "{b}, don't forget to {vp} {by}!", "It would be great if {b} could {vp} {by}.",
    "{b} can you {vp} {by}", "{b} pls {vp} {by}", "@{b} can you {vp} {by}?", "{b}, you have to {vp} {by}.",
    "{b}, will you {vp} {by}?", "I would like {b} to {vp} {by}.", "Hello {b}, it is your turn to {vp} {by}.",
)  # fmt: skip
_REQUESTS_PLAIN = (
    "Can you {vp} {by}?", "Could you {vp} {by}?", "Please {vp} {by}.", "can you {vp} {by}", "Would you {vp} {by}?", "Will you {vp} {by}?",
    "I need you to {vp} {by}.", "Can u {vp} {by}?", "pls {vp} {by}", "Could you please {vp} {by}?", "Would you mind? Please {vp} {by}.",
    "Don't forget to {vp} {by}!", "It's your turn to {vp} {by}.", "Can you please {vp} {by}? Thanks!", "You need to {vp} {by}.", "please {vp} {by}",
)  # fmt: skip
_YES = (
    "Ok!", "Sure.", "Will do.", "Yes, no problem.", "On it!", "Of course.", "Consider it done.", "Done deal.", "Yep",
    "Sure thing!",
)  # fmt: skip
_PROMISES = (
    "I'll {vp} {by}.", "I will {vp} {by}.", "I can {vp} {by}.", "Ok, I'll {vp} {by}.", "I'm going to {vp} {by}.",
    "Let me {vp} {by}.", "No worries, I will {vp} {by}", "Leave it to me, I'll {vp} {by}.", "Just so you know, I'll {vp} {by}.",
    "I'm happy to {vp} {by}.", "My job: {vp} {by}.", "I promise to {vp} {by}.",
)  # fmt: skip
_VOLUNTEERS = (
    "Who can {vp}?", "Can someone {vp}?", "Somebody has to {vp}.", "We still need someone to {vp}.", "Any volunteers to {vp}?",
    "Who wants to {vp}?", "Is anybody free to {vp}?", "Could one of you {vp}?",
)  # fmt: skip
_TAKES = (
    "I can do that {by}.", "Me! I'll do it {by}.", "I'll take care of it {by}.", "I can {by}.", "I'll do it {by}.",
    "That's me, I'll do it {by}.",
)  # fmt: skip
_EVERYONE = (
    "Everyone, please {vp} {by}.", "Reminder to all: {vp} {by}.", "We all need to {vp} {by}.", "Please everybody {vp} {by}.",
    "Team, please {vp} {by}.", "All of you: please {vp} {by}.", "Hi all, please {vp} {by}.", "Could everyone please {vp} {by}?",
)  # fmt: skip


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)


def _duty_questions(who: str, what: str, when: str, verb: str = "needs to") -> tuple[tuple[str, str], ...]:
    answer = f"{_join(who, verb, what, when)}."
    return (
        (f"What does {who} have to do?", answer),
        (f"What is {who} going to do?", answer),
        (f"Who will {what}?", answer),
        (f"Who has to {what}?", answer),
    )


def request(draw: Draw, cast: list[str]) -> Fact:
    """One person asks another to do something."""
    a, b = draw.sample(cast, 2)
    what, when = lexicon.task(draw), deadline(draw)
    if draw.chance(0.35):
        # Nobody is named: it is the one who answers.
        lines = [(a, draw.fill(draw.pick(_REQUESTS_PLAIN), vp=what, by=when)), (b, draw.pick(_YES))]
    else:
        lines = [(a, draw.fill(draw.pick(_REQUESTS), b=b, vp=what, by=when))]
        if draw.chance(0.4):
            lines.append((b, draw.pick(_YES)))
    return Fact(
        lines=tuple(lines),
        summary=f"{_join(a, 'asked', b, 'to', what, when)}.",
        actions=(Action(who=b, what=what, when=when),),
        questions=_duty_questions(b, what, when),
        topic=f"duty {b} {what}",
    )


def promise(draw: Draw, cast: list[str]) -> Fact:
    """Somebody says what they will do."""
    a = draw.choose(cast)
    what, when = lexicon.task(draw), deadline(draw)
    return Fact(
        lines=((a, draw.fill(draw.pick(_PROMISES), vp=what, by=when)),),
        summary=f"{_join(a, 'will', what, when)}.",
        actions=(Action(who=a, what=what, when=when),),
        questions=_duty_questions(a, what, when, "will"),
        topic=f"duty {a} {what}",
    )


def volunteer(draw: Draw, cast: list[str]) -> Fact:
    """One asks the group, another takes it."""
    a, b = draw.sample(cast, 2)
    what, when = lexicon.task(draw), deadline(draw)
    return Fact(
        lines=((a, draw.fill(draw.pick(_VOLUNTEERS), vp=what)), (b, draw.fill(draw.pick(_TAKES), by=when))),
        summary=f"{_join(b, 'will', what, when)}.",
        actions=(Action(who=b, what=what, when=when),),
        questions=_duty_questions(b, what, when, "will"),
        topic=f"duty {b} {what}",
    )


def everyone(draw: Draw, cast: list[str]) -> Fact:
    """Somebody asks all."""
    a = draw.choose(cast)
    what, when = lexicon.task(draw), deadline(draw)
    return Fact(
        lines=((a, draw.fill(draw.pick(_EVERYONE), vp=what, by=when)),),
        summary=f"{_join(a, 'asked everyone to', what, when)}.",
        actions=(Action(who="Everyone", what=what, when=when),),
        questions=((f"Who has to {what}?", f"{_join('Everyone needs to', what, when)}."),),
        topic=f"duty all {what}",
    )


_PLANS = (
    "The {event} is {on} at {time} at {place}.", "{Event} {on} at {time} at {place}?", "Let's have the {event} {on} at {time} at {place}.",
    "Shall we do the {event} {on}, {time}, at {place}?", "{Event} is {on} at {time}, we meet at {place}.",
    "Don't forget: {event} {on} at {time} at {place}!", "How about {event} {on} at {time} at {place}?",
    "I booked {place} for the {event} {on} at {time}.", "We are meeting at {place} {on} at {time} for the {event}.",
    "Are you coming to the {event}? It's {on} at {time} at {place}.", "{on} at {time}: {event} at {place}.",
    "Hi all! {Event} will be {on} at {time} at {place}.", "Hey, the {event} is set for {time} {on} at {place}.",
    "The {event} starts at {time} {on} at {place}.", "{Event} at {place} {on} at {time}, everyone ok with that?",
    "Are we still on for {event} {on} at {time} at {place}?",
)  # fmt: skip
_PLANS_NO_PLACE = (
    "The {event} is {on} at {time}.", "{Event} {on} at {time}?", "Let's have the {event} {on} at {time}.",
    "Don't forget the {event} {on} at {time}!", "How about {event} {on} at {time}?", "The {event} starts at {time} {on}.",
    "Are you free for the {event} {on} at {time}?", "We said {event} {on} at {time}, right?", "{on} at {time}: {event}.",
    "Can we do the {event} {on} at {time}?", "I put the {event} {on} at {time}.", "{Event} will be {on} at {time}.",
)  # fmt: skip
_PLANS_NO_TIME = (
    "The {event} is {on}.", "Let's have the {event} {on}.", "Don't forget the {event} {on}!", "How about {event} {on}?",
    "{Event} {on}?", "We have the {event} {on}.", "Is everyone free {on} for the {event}?", "The {event} will be {on}.",
)  # fmt: skip
_PLANS_TIME_ONLY = (
    "{Event} at {time}?", "The {event} is at {time}.", "{Event} at {time}.", "Let's have the {event} at {time}.", "The {event} starts at {time}.",
    "How about {event} at {time}?", "{Event} starts at {time}, don't be late!", "Is {time} ok for the {event}?",
)  # fmt: skip
_AGREE = (
    "Works for me!", "I'm in.", "Sounds good!", "Perfect, see you there.", "Great idea!", "Yes, count me in!",
    "See you then!", "Looking forward to it!",
)  # fmt: skip


def plan(draw: Draw, cast: list[str]) -> Fact:
    """A meeting of some kind, with a day and perhaps a time and a place."""
    a = draw.choose(cast)
    event = lexicon.event(draw)
    date, on = day(draw)
    if date in ("next week", "this weekend", "today"):
        date, on = "tomorrow", "tomorrow"
    time = place = ""
    if draw.chance(0.12):
        time, date, on = clock(draw), "", ""
        text = draw.fill(draw.pick(_PLANS_TIME_ONLY), event=event, Event=sentence(event), time=time)
    elif draw.chance(0.15):
        text = draw.fill(draw.pick(_PLANS_NO_TIME), event=event, Event=sentence(event), on=on)
    elif draw.chance(0.4):
        time = clock(draw)
        text = draw.fill(draw.pick(_PLANS_NO_PLACE), event=event, Event=sentence(event), on=on, time=time)
    else:
        time, place = clock(draw), lexicon.venue(draw)
        text = draw.fill(draw.pick(_PLANS), event=event, Event=sentence(event), on=on, time=time, place=place)
    lines = [(a, sentence(text))]
    if draw.chance(0.4):
        lines.append((draw.choose([name for name in cast if name != a]), draw.pick(_AGREE)))
    when = _join(on, f"at {time}" if time else "")
    where = f"at {place}" if place else ""
    questions = [(f"When is the {event}?", f"The {event} is {when}.")]
    if on:
        questions.append((f"What day is the {event}?", f"The {event} is {on}."))
        questions.append((f"What is happening {on}?", f"The {event} is {when}."))
    if time:
        questions.append((f"What time is the {event}?", f"The {event} is at {time}."))
        questions.append((f"What time does the {event} start?", f"The {event} is at {time}."))
    if place:
        questions.append((f"Where is the {event}?", f"The {event} is at {place}."))
        questions.append((f"Where do we meet for the {event}?", f"The {event} is at {place}."))
    return Fact(
        lines=tuple(lines),
        summary=f"{_join('The', event, 'is', when, where)}.",
        questions=tuple(questions),
        plan=Plan(title=sentence(event), day=date, time=time, place=place),
        topic=f"event {event}",
    )


_MOVES = (
    "The {event} moved to {new}.", "We have to move the {event} to {new}.", "Heads up: the {event} is now {on}.",
    "Change of plan, the {event} is now {on}.", "The {event} was shifted to {new}.", "New date for the {event}: {new}.",
    "They pushed the {event} to {new}.", "Can we move the {event} to {new}?",
)  # fmt: skip
_CANCELS = (
    "The {event} is cancelled.", "Bad news, the {event} is cancelled.", "They cancelled the {event}.", "No {event} this time, it's cancelled.",
    "Sorry all, we have to cancel the {event}.", "The {event} is off.", "{Event} is called off.", "I had to cancel the {event}.",
)  # fmt: skip


def change(draw: Draw, cast: list[str]) -> Fact:
    """Something known is moved or cancelled."""
    a, event = draw.choose(cast), lexicon.event(draw)
    if draw.chance(0.35):
        text = draw.fill(draw.pick(_CANCELS), event=event, Event=sentence(event))
        return Fact(
            lines=((a, text),),
            summary=f"The {event} is cancelled.",
            questions=((f"Is the {event} still on?", f"No, the {event} is cancelled."), (f"What happened to the {event}?", f"The {event} is cancelled.")),
            topic=f"event {event}",
        )  # fmt: skip
    date, on = day(draw)
    if date in ("today", "tonight", "next week", "this weekend"):
        date, on = "Monday", "on Monday"
    if draw.chance(0.5):
        time = clock(draw)
        date, on = f"{date} at {time}", f"{on} at {time}"
    return Fact(
        lines=((a, draw.fill(draw.pick(_MOVES), event=event, new=date, on=on)),),
        summary=f"The {event} was moved to {date}.",
        questions=((f"When is the {event}?", f"The {event} was moved to {date}."), (f"What happened to the {event}?", f"The {event} was moved to {date}.")),
        topic=f"event {event}",
    )  # fmt: skip
