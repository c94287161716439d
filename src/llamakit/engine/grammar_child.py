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

import llguidance

_MEMORY_BYTES = 1 << 30
# Less than any thread of the parent has, so that what passes here does not overflow a stack there.
_STACK_BYTES = 1 << 20
_BYTES = 256


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


def _fault(tokenizer: llguidance.LLTokenizer, grammar: str, max_lexer_states: int) -> str | None:
    limits = llguidance.LLParserLimits(max_lexer_states=max_lexer_states, verbose_errors=False)
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        return matcher.get_error()[:500]
    if matcher.is_stopped() and not matcher.is_accepting():
        return "no text matches it"
    return None


def _serve(max_lexer_states: int) -> None:
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes(json.loads(sys.stdin.readline()))))
    print("null", flush=True)
    for line in sys.stdin:
        print(json.dumps(_fault(tokenizer, json.loads(line), max_lexer_states)), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    threading.stack_size(_STACK_BYTES)
    worker = threading.Thread(target=_serve, args=(int(sys.argv[1]),))
    worker.start()
    worker.join()
