"""Documents of random tokens that come back: the shortest way to learn to look back and copy.

Summaries, action items and tool arguments are copies. A small model finds out how to copy from
conversations only after long training; from sequences in which nothing else can be predicted it finds
out at once, and for every token of the vocabulary, the rare ones included.
"""

from __future__ import annotations

import random

from llamakit.data.conversations import Document


def repeats(seed: int, number: int, *, first_id: int, num_ids: int, start_id: int, length: int) -> Document:
    """Document `number`: `start_id`, then `length` - 1 ids in `first_id ...`, of which the repeated ones are targets.

    A passage is followed by pieces of itself; the first token of a piece cannot be foreseen and is no target.
    """
    rng = random.Random(f"copying:{seed}:{number}")
    # Few different ids make single tokens ambiguous, so that longer matches have to be found.
    choice = [first_id + rng.randrange(num_ids) for _ in range(rng.choice((24, 64, 256, num_ids)))]
    passage = [rng.choice(choice) for _ in range(rng.randint(8, length // 3))]
    ids = [start_id, *passage]
    trained = [False] * len(ids)
    while len(ids) < length:
        if rng.random() < 0.5:
            begin, end = 0, len(passage)
        else:
            begin = rng.randrange(len(passage) - 2)
            end = rng.randint(begin + 2, len(passage))
        ids += passage[begin:end]
        trained += [False] + [True] * (end - begin - 1)
    return Document(ids[:length], trained[:length])
