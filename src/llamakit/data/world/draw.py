"""Seeded choices with held-out entries: the only source of randomness in the world.

A `Draw` belongs to one example. It knows which split it draws for: every eighth entry of a pool is
kept out of training, so that held-out names and phrasings are words the model was never trained on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

Split = Literal["train", "seen", "held"]
"""`train` to learn from, `seen` for fresh examples of known pieces, `held` for unseen names and phrasings."""

Item = TypeVar("Item")

_HELD_EVERY = 8
_HELD_AT = 5
_WORD = re.compile(r"\{[^{}]*\}|[A-Za-z']{4,}")


class Draw:
    """Random choices of one example, a pure function of (seed, split, index)."""

    def __init__(self, seed: int, split: Split, index: int) -> None:
        self.split: Split = split
        # A string seed is hashed with SHA-512 by the standard library: the same on every machine.
        self._rng = random.Random(f"cria:{seed}:{split}:{index}")

    def pick(self, pool: Sequence[Item]) -> Item:
        """An entry of a pool of names or phrasings, respecting the split; pools below eight entries are never split."""
        if len(pool) < _HELD_EVERY:
            return self.choose(pool)
        if self.split == "held":
            return pool[_HELD_AT + _HELD_EVERY * self._rng.randrange((len(pool) - _HELD_AT - 1) // _HELD_EVERY + 1)]
        while True:
            index = self._rng.randrange(len(pool))
            if index % _HELD_EVERY != _HELD_AT:
                return pool[index]

    def pick_many(self, pool: Sequence[Item], count: int) -> list[Item]:
        """`count` different entries of a pool, respecting the split."""
        found: list[Item] = []
        while len(found) < count:
            item = self.pick(pool)
            if item not in found:
                found.append(item)
        return found

    def choose(self, items: Sequence[Item]) -> Item:
        """Any entry; for closed lists that the model is meant to know by heart."""
        return items[self._rng.randrange(len(items))]

    def weighted(self, items: Sequence[tuple[float, Item]]) -> Item:
        """An entry with probability in proportion to its weight."""
        point = self._rng.random() * sum(weight for weight, _ in items)
        for weight, item in items:
            point -= weight
            if point < 0:
                return item
        return items[-1][1]

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different positions of `items`, in random order."""
        return self._rng.sample(list(items), count)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._rng.random() < probability

    def number(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return self._rng.randint(low, high)

    def fill(self, template: str, **slots: object) -> str:
        """A template with its slots filled, tidied of the holes that empty slots leave."""
        return tidy(template.format(**slots))

    def typed(self, template: str) -> str:
        """What a hurried person makes of an instruction: case and marks dropped, a letter slipped; slots stay whole."""
        if self.chance(0.25):
            template = _outside_slots(template, str.lower)
        if self.chance(0.2):
            template = template.rstrip(".!?:")
        if self.chance(0.12):
            template = self.slip(template)
        return template

    def slip(self, template: str) -> str:
        words = [match for match in _WORD.finditer(template) if not match.group().startswith("{")]
        if not words:
            return template
        match = self.choose(words)
        word = match.group()
        at = self.number(1, len(word) - 2)
        kind = self.number(0, 2)
        if kind == 0:
            slipped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif kind == 1:
            slipped = word[:at] + word[at + 1 :]
        else:
            slipped = word[:at] + word[at] + word[at:]
        return template[: match.start()] + slipped + template[match.end() :]


def tidy(text: str) -> str:
    """Single spaces, none before a mark."""
    text = re.sub(r"[ ]{2,}", " ", text)
    return re.sub(r" ([.,!?;])", r"\1", text).strip(" ")


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _outside_slots(template: str, change: Callable[[str], str]) -> str:
    return "".join(piece if piece.startswith("{") else change(piece) for piece in re.split(r"(\{[^{}]*\})", template))
