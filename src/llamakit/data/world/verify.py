"""Exact verifiers: how right an answer is, decided by code from the facts the question was made of.

No model judges. Every score is between 0 and 1; `score` of a task is the first of its figures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamakit.core.messages import Message
from llamakit.data.world.talk import answer_groups
from llamakit.data.world.world import Example


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered: text, and calls as (name, arguments)."""

    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


@dataclass(slots=True)
class Tally:
    """Sums of figures over examples."""

    n: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, figures: dict[str, float]) -> None:
        """Count one example."""
        self.n += 1
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Means of all figures, with n."""
        return {**{name: round(value / self.n, 4) for name, value in self.sums.items()}, "n": self.n}


def judge(one: Example, reply: Reply) -> dict[str, float]:
    """The figures of one answer."""
    return _JUDGES.get(one.task, _exact)(one, reply)


def expected_calls(message: Message) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The calls of a message with their arguments read."""
    return tuple((call.name, json.loads(call.arguments)) for call in message.tool_calls)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines() if line.strip()]


def _overlap(wanted: Sequence[Any], found: Sequence[Any]) -> tuple[float, float, float]:
    """Recall, precision and F1 of two sets; two empty sets agree."""
    want, have = set(wanted), set(found)
    hits = len(want & have)
    recall = hits / len(want) if want else float(not have)
    precision = hits / len(have) if have else float(not want)
    return recall, precision, 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def _summary(one: Example, reply: Reply) -> dict[str, float]:
    if not one.facts:
        return {"fact_f1": float(reply.text.strip() == one.answer.text)}
    recall, precision, f1 = _overlap([f"- {fact}" for fact in one.facts], _lines(reply.text))
    return {
        "fact_f1": f1,
        "fact_recall": recall,
        "fact_precision": precision,
        "exact": float(reply.text.strip() == one.answer.text),
    }


_ITEM = re.compile(r"- (?P<who>[^:]+): (?P<what>.*?)(?: \((?P<when>[^()]*)\))?")


def _items(text: str) -> list[tuple[str, str, str]]:
    found = (_ITEM.fullmatch(line) for line in _lines(text))
    return [(item["who"], item["what"], item["when"] or "") for item in found if item]


def _actions(one: Example, reply: Reply) -> dict[str, float]:
    _, _, f1 = _overlap([(a.who, a.what, a.when) for a in one.actions], _items(reply.text))
    return {"set_f1": f1, "exact": float(reply.text.strip() == one.answer.text)}


def _calls(one: Example, reply: Reply) -> dict[str, float]:
    wanted = expected_calls(one.answer)
    names = [name for name, _ in wanted] == [name for name, _ in reply.calls]
    return {"call_match": float(wanted == reply.calls), "name_match": float(names)}


def _no_call(one: Example, reply: Reply) -> dict[str, float]:
    return {"no_call": float(not reply.calls), "exact": _accepted(one, reply)["accepted"]}


def _exact(one: Example, reply: Reply) -> dict[str, float]:
    return {"exact": float(reply.text.strip() == one.answer.text and not reply.calls)}


def _accepted(one: Example, reply: Reply) -> dict[str, float]:
    """Any answer that belongs to the same question counts."""
    group = next((group for group in answer_groups() if one.answer.text in group), (one.answer.text,))
    return {"accepted": float(reply.text.strip() in group and not reply.calls)}


_JUDGES: dict[str, Callable[[Example, Reply], dict[str, float]]] = {
    "summary": _summary,
    "actions": _actions,
    "tool": _calls,
    "parallel": _calls,
    "assistant": _calls,
    "no_call": _no_call,
    "chat": _accepted,
    "unknown": _accepted,
    "fact": _accepted,
}

MEASURED = (
    "summary", "actions", "question", "tool", "parallel", "assistant", "no_call", "rewrite", "draft", "repeat",
    "chat", "fact", "arithmetic", "unknown", "persona", "memory",
)  # fmt: skip
"""Tasks whose last answer can be judged exactly."""


def nearest(one: Example, training: Sequence[tuple[frozenset[str], Message]]) -> Reply:
    """The baseline without a model: the answer of the training example whose question shares most words."""
    asked = words(one)
    answer = max(training, key=lambda known: len(asked & known[0]) / max(1, len(asked | known[0])))[1]
    return Reply(answer.text, expected_calls(answer))


def words(one: Example) -> frozenset[str]:
    """The words of an example's last question."""
    return frozenset(re.findall(r"\w+", one.messages[-2].text.lower()))
