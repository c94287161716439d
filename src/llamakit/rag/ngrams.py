"""Vectors of texts without any model: words and their stretches of letters, hashed.

Texts are near each other where they share words, stems and spellings, in any language; nothing is known of meaning.
Beside word search it finds inflected and misspelt words. Each feature adds or takes one at a place that CRC-32
decides (the hashing trick: Weinberger et al., 2009), so vectors are the same on every machine.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from llamakit.core.errors import InvalidRequest
from llamakit.rag.embed import Vectors

WIDTH = 768
_WORD = re.compile(r"\w+")
_IDEOGRAPHS = "\u2e80"
_SHORT = {1: 0.1, 2: 0.1, 3: 0.1, 4: 0.5}
"""Short words are mostly grammar, so they count less; a list of them would know one language only."""
_WHOLE = 0.5
"""What a word counts as a whole; its stretches count 1 together, in square."""


class NgramEncoder:
    """Makes the vectors; holds nothing."""

    width = WIDTH
    context = None
    memory_bytes = 0

    def encode(self, inputs: Sequence[str | Sequence[int]]) -> tuple[Vectors, int]:
        """One vector of length one a text (all zero where it holds no word), and the number of words."""
        vectors, num_words = np.zeros((len(inputs), WIDTH), np.float32), 0
        for row, text in zip(vectors, inputs, strict=True):
            if not isinstance(text, str):
                raise InvalidRequest("this model embeds texts; it has no token ids", param="input")
            words = _WORD.findall(text.lower())
            num_words += len(words)
            for feature, weight in _features(words).items():
                hashed = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
                row[hashed % WIDTH] += math.log1p(weight) * (1 if hashed >> 31 else -1)
            row /= max(float(np.linalg.norm(row)), 1e-12)
        return vectors, num_words


def _features(words: Sequence[str]) -> dict[str, float]:
    """Words and their stretches, with what they count; a stretch cannot be a word, whose name begins with a space."""
    made: dict[str, float] = {}
    for word, times in Counter(words).items():
        is_ideographic = max(word) >= _IDEOGRAPHS
        weight = times * (1.0 if is_ideographic else _SHORT.get(len(word), 1.0))
        made[f" {word}"] = made.get(f" {word}", 0.0) + _WHOLE * weight
        shortest, longest = (1, 2) if is_ideographic else (3, 5)
        spelled = word if is_ideographic else f"<{word}>"
        stretches = [
            spelled[start : start + size]
            for size in range(shortest, longest + 1)
            for start in range(len(spelled) - size + 1)
        ]
        for stretch in stretches:
            made[stretch] = made.get(stretch, 0.0) + weight / math.sqrt(len(stretches))
    return made
