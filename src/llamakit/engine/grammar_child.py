"""Child process that tries to compile grammars: one JSON line in, one JSON line out, until its input ends.

Run by path with `python -I`; imports nothing of this package. It may crash or be killed at any time: that is
its purpose. The first line lists the names of control tokens, the answer to it is `null`. Every further line
is a grammar; the answer is `null` or the fault. Works on single bytes, because faults do not depend on the
vocabulary.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
from typing import Any

import llguidance

_MEMORY_BYTES = 1 << 30
# Less than any thread of the parent has, so that what passes here does not overflow a stack there.
_STACK_BYTES = 1 << 20
_BYTES = 256
_WALK = 4
"""Tokens walked: some faults show behind the first one only."""


class _Bytes:
    """A vocabulary of single bytes and the given control tokens, the first of which is the end."""

    bos_token_id = None

    def __init__(self, special: list[str]) -> None:
        names = ["<end>", *special]
        self.tokens = [bytes([i]) for i in range(_BYTES)] + [name.encode() for name in names]
        self.special_token_ids = list(range(_BYTES, _BYTES + len(names)))
        self.eos_token_id = _BYTES

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def _fault(tokenizer: llguidance.LLTokenizer, grammar: str, limits: llguidance.LLParserLimits) -> str | None:
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    for _ in range(_WALK):
        if matcher.is_error():
            return matcher.get_error()[:500]
        allowed = int.from_bytes(matcher.compute_bitmask(), "little")
        if matcher.is_stopped() and not matcher.is_error():
            return None if matcher.is_accepting() else "no text matches it"
        lowest = (allowed & -allowed).bit_length() - 1
        if not matcher.is_error():
            matcher.consume_token(lowest)
    return matcher.get_error()[:500] or None


def _serve(settings: dict[str, Any]) -> None:
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes(json.loads(sys.stdin.readline()))))
    limits = llguidance.LLParserLimits(**settings, verbose_errors=False)
    print("null", flush=True)
    for line in sys.stdin:
        print(json.dumps(_fault(tokenizer, json.loads(line), limits)), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    threading.stack_size(_STACK_BYTES)
    worker = threading.Thread(target=_serve, args=(json.loads(sys.argv[1]),))
    worker.start()
    worker.join()
