"""Names of the control tokens, in the order in which they follow the base vocabulary.

Ids are never written down: they are the size of the base table plus the place in the list, so the
same code serves the published 128,000-entry table and any small one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

NUM_LLAMA3_SPECIALS: Final = 256

BEGIN_OF_TEXT: Final = "<|begin_of_text|>"
END_OF_TEXT: Final = "<|end_of_text|>"
RIGHT_PAD: Final = "<|finetune_right_pad_id|>"
START_HEADER: Final = "<|start_header_id|>"
END_HEADER: Final = "<|end_header_id|>"
END_OF_MESSAGE: Final = "<|eom_id|>"
END_OF_TURN: Final = "<|eot_id|>"
PYTHON_TAG: Final = "<|python_tag|>"
IMAGE: Final = "<|image|>"

SPM_UNKNOWN: Final = "<unk>"
SPM_BEGIN: Final = "<s>"
SPM_END: Final = "</s>"

INFILL_PREFIX: Final = "\u2581<PRE>"
INFILL_SUFFIX: Final = "\u2581<SUF>"
INFILL_MIDDLE: Final = "\u2581<MID>"
INFILL_END: Final = "\u2581<EOT>"
STEP: Final = "<step>"
CODE_LLAMA_SPECIALS: Final = frozenset(
    (INFILL_PREFIX, INFILL_SUFFIX, INFILL_MIDDLE, STEP, *(INFILL_END + "<EOT>" * more for more in range(6)))
)
"""Pieces of Code Llama that steer it; SentencePiece itself counts them as ordinary text that merges may reach."""

_NAMED: Final = (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    RIGHT_PAD,
    "<|step_id|>",
    START_HEADER,
    END_HEADER,
    END_OF_MESSAGE,
    END_OF_TURN,
    PYTHON_TAG,
    IMAGE,
)

LLAMA3_SPECIALS: Final = _NAMED + tuple(
    f"<|reserved_special_token_{2 + i}|>" for i in range(NUM_LLAMA3_SPECIALS - len(_NAMED))
)
"""The 256 names of Llama 3.1 and later (Meta's order); 3.0 has the same ids under reserved names."""


def llama3_specials(base_size: int) -> dict[str, int]:
    """Name to id of the 256 control tokens after a base table of `base_size` entries."""
    return {name: base_size + place for place, name in enumerate(LLAMA3_SPECIALS)}


def with_canonical_names(found: Mapping[str, int]) -> dict[str, int]:
    """`found` plus Meta's names for the same ids, where a file calls them otherwise.

    Releases name the ids differently (`<|eom_id|>` is a reserved token in 3.0), so the named tokens
    are placed by their distance from `<|begin_of_text|>`. A name the file uses itself keeps its id.
    """
    names = dict(found)
    first = found.get(BEGIN_OF_TEXT)
    if first is None:
        return names
    ids = set(found.values())
    for place, name in enumerate(_NAMED):
        if first + place in ids:
            names.setdefault(name, first + place)
    return names


def pick(names: Mapping[str, int], wanted: Iterable[str]) -> tuple[int, ...]:
    """Ids of those of `wanted` that exist, in order, each once."""
    return tuple(dict.fromkeys(names[name] for name in wanted if name in names))
