"""Code Llama's infilling: a prefix and a suffix, and the model writes what stands between them."""

from __future__ import annotations

from llamakit.core.errors import InvalidRequest
from llamakit.text.formats.format import Prompt
from llamakit.text.formats.script import Script
from llamakit.text.specials import INFILL_END, INFILL_MIDDLE, INFILL_PREFIX, INFILL_SUFFIX, SPM_BEGIN
from llamakit.text.tokenizer import Tokenizer

_NEEDED = (INFILL_PREFIX, INFILL_SUFFIX, INFILL_MIDDLE, INFILL_END)


def can_infill(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has the infilling tokens."""
    return all(name in tokenizer.special for name in _NEEDED)


def infill_prompt(tokenizer: Tokenizer, prefix: str, suffix: str, *, suffix_first: bool = False) -> Prompt:
    """Prompt whose answer is the text between; InvalidRequest where the model has no infilling tokens.

    `suffix_first` is the order suffix, prefix, middle, which suits a prefix that ends inside a token.
    """
    if not can_infill(tokenizer):
        raise InvalidRequest(
            "this model cannot fill in before a suffix; of the Llama family Code Llama 7B, 13B and 70B can",
            param="suffix",
        )
    script = Script(tokenizer)
    script.control(SPM_BEGIN)
    script.control(INFILL_PREFIX)
    if suffix_first:
        script.control(INFILL_SUFFIX)
        script.continuation(suffix)
        script.control(INFILL_MIDDLE)
        script.text(prefix)
    else:
        script.text(prefix)
        script.control(INFILL_SUFFIX)
        script.continuation(suffix)
        script.control(INFILL_MIDDLE)
    stop_ids = (tokenizer.special[INFILL_END], *tokenizer.eos_ids)
    return Prompt(ids=tuple(script.ids), stop_ids=stop_ids, continues=True)
