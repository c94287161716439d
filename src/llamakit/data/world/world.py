"""The world as a stream of examples: which tasks there are, how often, and how they join into conversations.

`example(seed, split, index)` is a pure function, so a data set is its seed and its length, and a test
set needs no file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from llamakit.core.messages import Message, ToolCall, ToolSpec, assistant, system, tool_result, user
from llamakit.data.world import lexicon, reading, talk, tools, writing
from llamakit.data.world.draw import Draw, Split
from llamakit.data.world.facts import Action
from llamakit.data.world.threads import Thread, thread
from llamakit.data.world.tool_kinds import HELD_KINDS, KINDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One conversation that ends with the answer which its task asks for."""

    task: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    facts: tuple[str, ...] = ()
    """Sentences that the last answer must contain (summaries)."""
    actions: tuple[Action, ...] = ()
    """Items that the last answer must list (action items)."""

    @property
    def answer(self) -> Message:
        """What the last turn should be."""
        return self.messages[-1]


class _Turns:
    """A conversation while it grows."""

    def __init__(self, draw: Draw, system_chance: float = 0.35) -> None:
        self.messages: list[Message] = [system(talk.system_text(draw))] if draw.chance(system_chance) else []
        self._calls = 0

    def say(self, asked: str, answer: str) -> None:
        self.messages += [user(asked), assistant(answer)]

    def call(self, asked: str, *uses: tools.Use) -> list[ToolCall]:
        calls = []
        for use in uses:
            self._calls += 1
            calls.append(
                ToolCall(
                    id=f"call_{self._calls}",
                    name=use.spec.name,
                    arguments=json.dumps(use.arguments, ensure_ascii=False),
                )
            )
        self.messages += [user(asked), assistant("", *calls)]
        return calls


def _summary(draw: Draw) -> Example:
    turns = _Turns(draw)
    found = thread(
        draw, messages=10 if draw.chance(0.3) else None, facts=draw.number(3, 6) if draw.chance(0.3) else None
    )
    if len(found.facts) <= 3 and draw.chance(0.15):
        asked = reading.paste(draw, reading.ask(draw, reading.ONE_SENTENCE, n=str(found.num_messages)), found)
        turns.say(asked, found.one_sentence)
        return Example(task="summary", messages=tuple(turns.messages))
    asked = reading.paste(draw, reading.ask(draw, reading.SUMMARISE, n=str(found.num_messages)), found)
    # Some people paste and say nothing.
    turns.say(found.text if draw.chance(0.05) else asked, found.summary)
    return Example(task="summary", messages=tuple(turns.messages), facts=tuple(fact.summary for fact in found.facts))


def _actions(draw: Draw) -> Example:
    turns = _Turns(draw)
    found = thread(draw, messages=10 if draw.chance(0.2) else None)
    turns.say(
        reading.paste(draw, reading.ask(draw, reading.ACTIONS, n=str(found.num_messages)), found), found.action_list
    )
    return Example(task="actions", messages=tuple(turns.messages), actions=found.actions)


def _absent(draw: Draw, found: Thread) -> tuple[str, str]:
    events = " ".join(fact.topic for fact in found.facts)
    event = lexicon.event(draw)
    while event in events:
        event = lexicon.event(draw)
    name = lexicon.person(draw)
    while name in found.text:
        name = lexicon.person(draw)
    return event, name


def _question(draw: Draw) -> Example:
    turns = _Turns(draw)
    found = thread(draw)
    asked, answer = reading.question(draw, found, _absent(draw, found))
    turns.say(reading.paste(draw, asked, found), answer)
    for _ in range(draw.number(0, 2) if draw.split == "train" else 0):
        turns.say(*reading.question(draw, found, _absent(draw, found)))
    return Example(task="question", messages=tuple(turns.messages))


def _session(draw: Draw) -> Example:
    """Several questions about one thread, in any order."""
    turns = _Turns(draw)
    found = thread(draw, messages=10 if draw.chance(0.3) else None)
    n = str(found.num_messages)
    heads = draw.sample(("summary", "actions", "question", "question", "thanks"), draw.number(2, 4))
    for at, head in enumerate(heads):
        if head == "summary":
            asked, answer = reading.ask(draw, reading.SUMMARISE, n=n), found.summary
        elif head == "actions":
            asked, answer = reading.ask(draw, reading.ACTIONS, n=n), found.action_list
        elif head == "question" or at == 0:
            asked, answer = reading.question(draw, found, _absent(draw, found))
        else:
            asked, answer = talk.chat(draw, "thanks")
        turns.say(reading.paste(draw, asked, found) if at == 0 else asked, answer)
    return Example(task="session", messages=tuple(turns.messages))


def _specs(draw: Draw, *wanted: ToolSpec) -> tuple[ToolSpec, ...]:
    """The wanted tools among others."""
    specs = list(wanted)
    for _ in range(draw.weighted(((5, 0), (3, 1), (1, 2)))):
        other = tools.any_use(draw).spec
        if all(other.name != spec.name for spec in specs):
            specs.append(other)
    return tuple(draw.sample(specs, len(specs)))


def _finish(draw: Draw, turns: _Turns, calls: list[ToolCall], *uses: tools.Use) -> None:
    for call, use in zip(calls, uses, strict=True):
        turns.messages.append(tool_result(call, use.result))
    turns.messages.append(assistant(" ".join(use.confirmation for use in uses)))


def _tool(draw: Draw) -> Example:
    turns = _Turns(draw, 0.2)
    if draw.split == "train" and draw.chance(0.15):
        turns.say(*talk.chat(draw))
    use = tools.any_use(draw)
    request = use.request.lower() if draw.split == "train" and draw.chance(0.1) else use.request
    request = request.rstrip(".!") if draw.chance(0.2) else request
    if draw.chance(0.12):
        request = draw.choose(("Hi! ", "Hello, ", "Hey, ", "Please help: ", "Ok. ")) + request
    calls = turns.call(request, use)
    wanted = [use.spec]
    if draw.split == "train" and draw.chance(0.7):
        _finish(draw, turns, calls, use)
        if draw.chance(0.25):
            turns.say(*talk.chat(draw, "thanks"))
        if draw.chance(0.6):
            again = tools.any_use(draw)
            if again.spec.name != use.spec.name:
                wanted.append(again.spec)
                calls = turns.call(again.request, again)
                if draw.chance(0.4):
                    _finish(draw, turns, calls, again)
    return Example(task="tool", messages=tuple(turns.messages), tools=_specs(draw, *wanted))


def _parallel(draw: Draw) -> Example:
    turns = _Turns(draw, 0.1)
    first, second = tools.any_use(draw), tools.any_use(draw)
    while second.spec.name == first.spec.name:
        second = tools.any_use(draw)
    joined = (
        f"{first.request.rstrip('.?!')} and {second.request[:1].lower()}{second.request[1:]}"
        if draw.chance(0.5)
        else f"{first.request} {second.request}"
    )
    turns.call(joined, first, second)
    return Example(task="parallel", messages=tuple(turns.messages), tools=_specs(draw, first.spec, second.spec))


_NO_TOOL = "I have no tool for that. I can use: {names}."


def _no_call(draw: Draw) -> Example:
    """Tools are there, but the turn needs none of them, or none of them fits."""
    turns = _Turns(draw, 0.2)
    specs = _specs(draw, tools.any_use(draw).spec)
    if draw.chance(0.35):
        other = tools.any_use(draw)
        known = {spec.description for spec in specs}
        while any(_same_sort(other.spec, spec) for spec in specs) or other.spec.description in known:
            other = tools.any_use(draw)
        turns.say(other.request, _NO_TOOL.format(names=", ".join(spec.name for spec in specs)))
    else:
        turns.say(*_small(draw))
    return Example(task="no_call", messages=tuple(turns.messages), tools=specs)


def _same_sort(one: ToolSpec, other: ToolSpec) -> bool:
    return _sort(one) == _sort(other)


def _sort(spec: ToolSpec) -> str:
    for at, kind in enumerate((*KINDS, *HELD_KINDS)):
        if spec.description in kind.descriptions:
            return str(at)
    return "calendar" if "calendar" in spec.description.lower() else spec.name


def _assistant(draw: Draw) -> Example:
    """Summary, action items, invitation: what somebody does with a chat on their phone."""
    turns = _Turns(draw, 0.3)
    demo = draw.chance(0.3)
    found = thread(draw, messages=10 if demo or draw.chance(0.4) else None, facts=draw.number(2, 5), with_plan=True)
    while not found.plans:
        found = thread(draw, facts=draw.number(2, 5), with_plan=True)
    plan = draw.choose(found.plans)
    n = str(found.num_messages)
    use = tools.calendar(
        draw, plan, reading.ask(draw, reading.INVITE, event=plan.title[0].lower() + plan.title[1:]), demo=demo
    )
    if len(found.plans) > 1 and plan.title.lower() not in use.request.lower():
        use = tools.calendar(
            draw, plan, f"Send a calendar invitation for the {plan.title[0].lower()}{plan.title[1:]}.", demo=demo
        )
    steps = [
        (reading.ask(draw, reading.SUMMARISE, n=n), found.summary),
        (reading.ask(draw, reading.ACTIONS, n=n), found.action_list),
    ]
    kept = steps if demo or draw.chance(0.4) else draw.sample(steps, draw.number(0, 2))
    for at, (asked, answer) in enumerate(kept):
        turns.say(reading.paste(draw, asked, found) if at == 0 else asked, answer)
    calls = turns.call(use.request if kept else reading.paste(draw, use.request, found), use)
    if draw.split == "train":
        _finish(draw, turns, calls, use)
        if draw.chance(0.3):
            turns.say(*talk.chat(draw, "thanks"))
    return Example(
        task="assistant", messages=tuple(turns.messages), tools=(use.spec,) if demo else _specs(draw, use.spec)
    )


def _long(draw: Draw) -> Example:
    """A day of chatting: many turns about several threads, so that far positions are known too."""
    turns = _Turns(draw)
    for _ in range(draw.number(5, 9)):
        found = thread(draw)
        n = str(found.num_messages)
        asked, answer = draw.choose(
            (
                (reading.ask(draw, reading.SUMMARISE, n=n), found.summary),
                (reading.ask(draw, reading.ACTIONS, n=n), found.action_list),
                reading.question(draw, found, _absent(draw, found)),
            )
        )
        turns.say(reading.paste(draw, asked, found), answer)
        if draw.chance(0.5):
            turns.say(*reading.question(draw, found, _absent(draw, found)))
        for _ in range(draw.number(0, 2)):
            turns.say(*(draw.weighted(_TEXTS)(draw) if draw.chance(0.4) else _small(draw)))
    return Example(task="long", messages=tuple(turns.messages))


_SMALL: tuple[tuple[float, Callable[[Draw], tuple[str, str]]], ...] = (
    (4.0, talk.chat),
    (2.0, talk.fact),
    (1.5, talk.arithmetic),
    (2.0, talk.unknown),
)
_TEXTS: tuple[tuple[float, Callable[[Draw], tuple[str, str]]], ...] = (
    (2.0, writing.formal),
    (2.0, writing.shorten),
    (1.5, writing.correct),
    (1.0, writing.repeat),
    (2.0, writing.draft),
    (0.6, writing.story),
    (0.4, writing.poem),
)


def _small(draw: Draw) -> tuple[str, str]:
    return draw.weighted(_SMALL)(draw)


def _one(task: str, pool: Callable[[Draw], tuple[str, str]]) -> Callable[[Draw], Example]:
    def make(draw: Draw) -> Example:
        turns = _Turns(draw, 0.25)
        for _ in range(draw.weighted(((5, 1), (2, 2), (1, 3))) - 1 if draw.split == "train" else 0):
            turns.say(*_small(draw))
        turns.say(*pool(draw))
        return Example(task=task, messages=tuple(turns.messages))

    return make


def _persona(draw: Draw) -> Example:
    text, asked, answer = talk.persona(draw)
    return Example(task="persona", messages=(system(text), user(asked), assistant(answer)))


def _memory(draw: Draw) -> Example:
    """A name is told and asked for later."""
    turns = _Turns(draw, 0.15)
    told, greeting, asked, answer = talk.introduction(draw)
    turns.say(told, greeting)
    for _ in range(draw.number(0, 2)):
        turns.say(*_small(draw))
    if draw.chance(0.7):
        turns.say(asked, answer)
    return Example(task="memory", messages=tuple(turns.messages))


TASKS: dict[str, tuple[float, Callable[[Draw], Example]]] = {
    "summary": (3.0, _summary),
    "actions": (2.5, _actions),
    "question": (2.0, _question),
    "session": (2.0, _session),
    "assistant": (1.6, _assistant),
    "tool": (4.0, _tool),
    "parallel": (0.5, _parallel),
    "no_call": (0.9, _no_call),
    "chat": (1.8, _one("chat", talk.chat)),
    "fact": (1.4, _one("fact", talk.fact)),
    "arithmetic": (1.4, _one("arithmetic", talk.arithmetic)),
    "unknown": (1.2, _one("unknown", talk.unknown)),
    "rewrite": (2.0, _one("rewrite", lambda draw: draw.weighted(_TEXTS[:3])(draw))),
    "writing": (1.5, _one("writing", lambda draw: draw.weighted(_TEXTS[3:])(draw))),
    "persona": (0.3, _persona),
    "memory": (0.4, _memory),
    "long": (0.35, _long),
    "draft": (0.0, _one("draft", writing.draft)),
    "repeat": (0.0, _one("repeat", writing.repeat)),
}
"""Every task with its share of the training data; those without one exist to be measured by themselves."""


def example(seed: int, split: Split, index: int, task: str | None = None) -> Example:
    """Example `index` of a split; of one task when named, else of the mixture."""
    draw = Draw(seed, split, index)
    make = TASKS[task][1] if task is not None else draw.weighted(tuple(TASKS.values()))
    return make(draw)


def examples(seed: int, split: Split, count: int, task: str | None = None) -> Iterator[Example]:
    """The first `count` examples of a split."""
    return (example(seed, split, index, task) for index in range(count))


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 over the text of examples, for the model card."""
    hashed = hashlib.sha256()
    for one in examples:
        record = [
            [[m.role, m.text, [[c.name, c.arguments] for c in m.tool_calls]] for m in one.messages],
            [[spec.name, spec.description, json.dumps(spec.parameters)] for spec in one.tools],
        ]
        hashed.update(json.dumps(record, ensure_ascii=False).encode())
    return hashed.hexdigest()
