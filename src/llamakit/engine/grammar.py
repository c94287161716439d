"""Constraints on the output: source text in, a walker that masks tokens out, by `llguidance`.

Compiling happens before a request reaches the engine, on the caller's thread, never between steps. Hostile
sources can crash or stall a compiler, so each is first tried in a child process (`grammar_check`); what is
left for the step loop is one mask a token, under the library's own limits. Knows token bytes, passed in as
plain data, and no tokenizer.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import llguidance
import numpy as np

from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.sampling import Constraint
from llamakit.engine.grammar_check import LIMITS, GrammarChecker

MAX_SOURCE_BYTES = 256 << 10
"""Longest constraint, in UTF-8."""

_PARAM = "response_format"
# Without a bound a model that likes blanks can write them until its tokens run out.
_WHITESPACE = r"[ ]|\n{1,2}[ \t]{0,20}"


class Vocabulary:
    """What a compiler must know of a tokenizer: bytes of each id, end tokens, names of control tokens.

    `tokens[i]` are the bytes of id i, empty for control tokens. `encode` gives a text's own ids; it is used
    where the constraint leaves only one text, so that the model reads the ids it was trained on.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        *,
        eos_ids: Sequence[int],
        special: Mapping[str, int],
        encode: Callable[[str], list[int]],
    ) -> None:
        if not eos_ids:
            raise ConfigError("constrained output needs an end token, the tokenizer names none")
        self.tokens = list(tokens)
        self.eos_ids = tuple(eos_ids)
        self.special = dict(special)
        self._encode = encode
        self._lock = threading.Lock()
        self.checker = GrammarChecker(sorted(self.special))

    def compiler_tokenizer(self) -> llguidance.LLTokenizer:
        """The compiler's own view of the vocabulary; takes about a second to make for 128k tokens, once."""
        with self._lock:
            return self._tokenizer

    @cached_property
    def _tokenizer(self) -> llguidance.LLTokenizer:
        return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Wrapper(self)), eos_token=list(self.eos_ids))

    def encode(self, text: str | bytes) -> list[int]:
        """Ids whose bytes are exactly those of `text`: the tokenizer's own if they are, else longest match."""
        data = text.encode() if isinstance(text, str) else text
        try:
            ids = self._encode(data.decode())
        except UnicodeDecodeError:
            return self._longest_match(data)
        # SentencePiece puts a blank before a text; inside an answer that would be another text.
        if b"".join(self.tokens[i] for i in ids) == data:
            return ids
        return self._longest_match(data)

    def _longest_match(self, data: bytes) -> list[int]:
        ids, start = [], 0
        while start < len(data):
            for length in range(min(self._longest, len(data) - start), 0, -1):
                token = self._ids.get(data[start : start + length])
                if token is not None:
                    ids.append(token)
                    start += length
                    break
            else:
                return ids  # A byte without a token ends what can be written.
        return ids

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        control = set(self.special.values())
        return {data: i for i, data in reversed(list(enumerate(self.tokens))) if data and i not in control}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=0)


class _Wrapper:
    """The shape in which `llguidance` takes a vocabulary from Python."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        names = {i: name.encode() for name, i in vocabulary.special.items()}
        self.tokens = [names.get(i, data) for i, data in enumerate(vocabulary.tokens)]
        self.special_token_ids = sorted(names)
        self.eos_token_id = vocabulary.eos_ids[0]
        self._vocabulary = vocabulary

    def __call__(self, text: str | bytes) -> list[int]:
        return self._vocabulary.encode(text)


class CompiledConstraint:
    """A checked constraint; `matcher` makes a walker for each choice."""

    def __init__(self, matcher: llguidance.LLMatcher, num_tokens: int) -> None:
        self._matcher = matcher
        self._num_tokens = num_tokens

    def matcher(self) -> GrammarMatcher:
        """A walker at the beginning."""
        return GrammarMatcher(self._matcher.deep_copy(), self._num_tokens)


class GrammarMatcher:
    """Walks a compiled constraint along one choice; satisfies `request.Matcher`."""

    def __init__(self, matcher: llguidance.LLMatcher, num_tokens: int) -> None:
        self._matcher = matcher
        self._num_tokens = num_tokens

    def mask(self) -> np.ndarray:
        """Allowed ids as booleans; end tokens are allowed where the constraint is satisfied."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        return np.unpackbits(bits, bitorder="little").view(np.bool_)

    def advance(self, token: int) -> None:
        """Take the next token; one that does not fit is an error."""
        if not self._matcher.consume_token(token):
            self._check()

    def rollback(self, num_tokens: int) -> None:
        """Undo the last `num_tokens` of `advance`."""
        if not self._matcher.rollback(num_tokens):
            self._check()

    def count_valid(self, ids: Sequence[int]) -> int:
        """How many of `ids` could follow."""
        # A model may have more ids than its tokenizer; asking for those would break the walker.
        known = list(itertools.takewhile(lambda token: token < self._num_tokens, ids))
        return self._matcher.validate_tokens(known)

    @property
    def is_complete(self) -> bool:
        """Whether only the end can follow."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refusal("the constraint became too complex while decoding", self._matcher.get_error())


def compile_constraint(
    constraint: Constraint, vocabulary: Vocabulary, *, deadline_s: float = 2.0
) -> CompiledConstraint:
    """Check and compile `constraint`; `InvalidRequest` says what is wrong with it, within about the deadline.

    May block for the deadline, so call it where waiting is allowed. A schema's `$ref` reaches into the schema
    only; keywords that cannot be enforced are errors, never ignored.
    """
    size = len(constraint.source.encode("utf-8", errors="surrogatepass"))
    if size > MAX_SOURCE_BYTES:
        raise InvalidRequest(
            f"a {constraint.kind} constraint has at most {MAX_SOURCE_BYTES} bytes, got {size}", param=_PARAM
        )
    grammar = _grammar(constraint)
    fault = vocabulary.checker.check(grammar, deadline_s)
    if fault is not None:
        raise _refusal(f"the {constraint.kind} constraint cannot be used", fault)
    limits = llguidance.LLParserLimits(**LIMITS, verbose_errors=False)
    matcher = llguidance.LLMatcher(vocabulary.compiler_tokenizer(), grammar, log_level=0, limits=limits)
    compiled = CompiledConstraint(matcher, len(vocabulary.tokens))
    # The first mask is the dearest and finds languages without any text.
    if not matcher.is_error():
        compiled.matcher().mask()
    if matcher.is_error():
        raise _refusal(f"the {constraint.kind} constraint cannot be used", matcher.get_error())
    return compiled


def _grammar(constraint: Constraint) -> str:
    source = constraint.source
    if "\0" in source or any("\ud800" <= char <= "\udfff" for char in source):
        raise InvalidRequest("a constraint must be Unicode text without NUL", param=_PARAM)
    match constraint.kind:
        case "json_object":
            return _schema_grammar('{"type": "object"}')
        case "json_schema":
            return _schema_grammar(source)
        case "regex":
            return llguidance.LLMatcher.grammar_from_regex(source)
        case "grammar":
            return llguidance.LLMatcher.grammar_from_lark(source)
        case "choice":
            return llguidance.LLMatcher.grammar_from_regex("|".join(map(_escape, _choices(source))))


def _schema_grammar(source: str) -> str:
    try:
        return llguidance.LLMatcher.grammar_from_json_schema(source, defaults={"whitespace_pattern": _WHITESPACE})
    except ValueError as error:
        raise _refusal("the JSON schema is not valid JSON", str(error)) from error


def _choices(source: str) -> list[str]:
    try:
        choices = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise _refusal("choice wants a JSON array of strings", str(error)) from error
    if not isinstance(choices, list) or not choices or not all(isinstance(c, str) and c for c in choices):
        raise InvalidRequest("choice wants a non-empty JSON array of non-empty strings", param=_PARAM)
    return choices


def _escape(text: str) -> str:
    """A regular expression that matches exactly `text`."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\u{{{ord(c):x}}}" for c in text)


def _refusal(what: str, fault: str) -> InvalidRequest:
    first_line = fault.strip().splitlines()[0] if fault.strip() else "unknown fault"
    return InvalidRequest(f"{what}: {first_line[:300]}", param=_PARAM)
