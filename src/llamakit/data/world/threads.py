"""Message threads and notes: facts in order, between remarks that mean nothing, as people paste them."""

from __future__ import annotations

# ruff: noqa: E501 - a phrase book reads best with one question a line, however long.
from dataclasses import dataclass, replace

from llamakit.data.world import lexicon
from llamakit.data.world.draw import Draw
from llamakit.data.world.facts import Action, Fact, Plan, plan
from llamakit.data.world.news import MAKERS

_REMARKS = (
    "Hi everyone!", "Hello!", "Good morning!", "Hey all", "haha", "lol", "Nice!", "Thanks!", "Thank you so much!", "Great.",
    "Ok", "Okay, got it.", "Cool", "Oh no!", "Wow!", "Congrats!", "Get well soon!", "No worries.", "Sounds good!", "Perfect.",
    "See you!", "Bye!", "What a day...", "How is everybody?", "I'm so tired today", "Same here", "Good to know.", "Really?",
    "Hmm", "I see", "That's funny", "Miss you all!", "Have a nice day!", "Take care!", "Good night", ":)", "Yay!", "Sorry to hear that.",
    "I love this group", "True", "Exactly!", "Let me think.", "Hope you are all well!", "Happy to hear that!", "Not again...",
    "Can't wait!", "What's up?", "Long time no see!", "Thanks for the info.", "Alright", "Brilliant!", "Good luck!",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Thread:
    """What a person pastes, and the facts in it."""

    text: str
    num_messages: int
    cast: tuple[str, ...]
    facts: tuple[Fact, ...]

    @property
    def summary(self) -> str:
        """One bullet per fact, in order."""
        if not self.facts:
            return "There is nothing important in these messages."
        return "\n".join(f"- {fact.summary}" for fact in self.facts)

    @property
    def one_sentence(self) -> str:
        """All facts in one sentence."""
        if not self.facts:
            return self.summary
        parts = [fact.summary.rstrip(".") for fact in self.facts]
        parts = [
            parts[0],
            *(part[0].lower() + part[1:] if part.startswith(("The ", "It ")) else part for part in parts[1:]),
        ]
        return (parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}") + "."

    @property
    def actions(self) -> tuple[Action, ...]:
        """Every action item, in order."""
        return tuple(action for fact in self.facts for action in fact.actions)

    @property
    def action_list(self) -> str:
        """One bullet per action item."""
        return "\n".join(action.line() for action in self.actions) or "There are no action items."

    @property
    def plans(self) -> tuple[Plan, ...]:
        """What could go into a calendar."""
        return tuple(fact.plan for fact in self.facts if fact.plan is not None and fact.plan.day)

    @property
    def questions(self) -> tuple[tuple[str, str], ...]:
        """Questions with one answer in this thread."""
        asked: dict[str, list[str]] = {}
        for fact in self.facts:
            for question, answer in fact.questions:
                asked.setdefault(question, []).append(answer)
        return tuple((question, answers[0]) for question, answers in asked.items() if len(answers) == 1)


def thread(draw: Draw, *, facts: int | None = None, messages: int | None = None, with_plan: bool = False) -> Thread:
    """A thread of this many facts (or a few), padded with remarks to `messages` lines when that is given."""
    cast = lexicon.people(draw, draw.weighted(((5, 2), (4, 3), (1.5, 4))))
    wanted = facts if facts is not None else draw.weighted(((0.15, 0), (2, 1), (3, 2), (3, 3), (2, 4), (1, 5)))
    found: list[Fact] = []
    while len(found) < wanted:
        maker = plan if with_plan and not found else draw.weighted(MAKERS)
        fact = maker(draw, cast)
        size = sum(len(other.lines) for other in found) + len(fact.lines)
        if messages is not None and size > messages:
            break
        if all(_apart(fact, other) for other in found):
            found.append(fact)
    found = draw.sample(found, len(found))
    blocks: list[tuple[tuple[str, str], ...]] = [fact.lines for fact in found]
    num_lines = sum(len(block) for block in blocks)
    remarks = (messages - num_lines) if messages is not None else draw.weighted(((4, 0), (3, 1), (2, 2), (1, 4)))
    if not blocks and not remarks:
        remarks = draw.number(2, 4)
    for _ in range(remarks):
        # The start is where people greet; elsewhere a remark may fall between any two facts.
        blocks.insert(draw.number(0, len(blocks)), ((draw.choose(cast), draw.pick(_REMARKS)),))
    lines = [line for block in blocks for line in block]
    if draw.chance(0.08) and found and messages is None:
        return _prose(draw, cast, found)
    # An invitation goes to everybody who wrote in the thread, in the order in which they first wrote.
    writers = tuple(dict.fromkeys(name for name, _ in lines))
    found = [replace(fact, plan=replace(fact.plan, people=writers)) if fact.plan else fact for fact in found]
    return Thread(text=_layout(draw, lines), num_messages=len(lines), cast=tuple(cast), facts=tuple(found))


_ASIDES = (
    "It was a nice day.", "Everybody was happy.", "That is all for now.", "The group chatted for a while.", "There were many messages.",
    "It took a long time.", "Nobody was surprised.", "They said hello.", "The mood was good.", "It was a long talk.",
)  # fmt: skip


def _prose(draw: Draw, cast: list[str], facts: list[Fact]) -> Thread:
    """The same facts as somebody would tell them in a paragraph."""
    told = [fact.summary for fact in facts]
    for _ in range(draw.number(0, 2)):
        told.insert(draw.number(0, len(told)), draw.pick(_ASIDES))
    return Thread(text=" ".join(told), num_messages=len(told), cast=tuple(cast), facts=tuple(facts))


def _apart(one: Fact, other: Fact) -> bool:
    asked = {question for question, _ in other.questions}
    return one.topic != other.topic and not any(question in asked for question, _ in one.questions)


def _layout(draw: Draw, lines: list[tuple[str, str]]) -> str:
    style = draw.weighted(
        (
            (10, "colon"),
            (1.5, "dash"),
            (2, "clock"),
            (1, "whatsapp"),
            (0.7, "angle"),
            (0.7, "bold"),
            (0.7, "number"),
            (0.8, "blank"),
            (1, "inline"),
        )
    )
    minute = draw.number(7 * 60, 20 * 60)
    date = f"{draw.number(1, 28):02d}/{draw.number(1, 12):02d}/2{draw.number(4, 7)}"
    if draw.chance(0.1):
        lines = [(name, text.lower()) for name, text in lines]
    rows: list[str] = []
    for count, (name, text) in enumerate(lines, start=1):
        minute += draw.number(0, 9)
        at = f"{minute // 60:02d}:{minute % 60:02d}"
        rows.append(
            {
                "colon": f"{name}: {text}",
                "inline": f"{name}: {text}",
                "blank": f"{name}: {text}",
                "dash": f"- {name}: {text}",
                "clock": f"[{at}] {name}: {text}",
                "whatsapp": f"{date}, {at} - {name}: {text}",
                "angle": f"<{name}> {text}",
                "bold": f"**{name}**: {text}",
                "number": f"{count}. {name}: {text}",
            }[style]
        )
    return {"inline": " ", "blank": "\n\n"}.get(style, "\n").join(rows)
