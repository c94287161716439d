"""Constraints: what they allow, that sampled text obeys them, and that hostile ones are answered, not obeyed."""

from __future__ import annotations

import json
import random
import time

import jsonschema
import numpy as np
import pytest

from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.sampling import Constraint
from llamakit.engine.grammar import MAX_SOURCE_BYTES, GrammarMatcher, Vocabulary, compile_constraint

WORDS = [b"hello", b"he", b"llo", b" world", b'{"', b'":', b"true", b"false", b"null", b", ", b"\xc3\xa9"]
SPECIAL = {"<|end|>": 256 + len(WORDS), "<|eot|>": 257 + len(WORDS), "<|python_tag|>": 258 + len(WORDS)}
END, EOT, TAG = SPECIAL.values()
TOKENS = [bytes([i]) for i in range(256)] + WORDS + [b""] * 3


def encode(text: str) -> list[int]:
    """Longest match, as a stand-in for a tokenizer."""
    data, ids = text.encode(), []
    while data:
        best = max((i for i, word in enumerate(TOKENS) if word and data.startswith(word)), key=lambda i: len(TOKENS[i]))
        ids.append(best)
        data = data[len(TOKENS[best]) :]
    return ids


@pytest.fixture(scope="module")
def vocabulary():
    made = Vocabulary(TOKENS, eos_ids=[END, EOT], special=SPECIAL, encode=encode)
    yield made
    made.checker.close()


def walker(vocabulary: Vocabulary, kind: str, source: str = "") -> GrammarMatcher:
    return compile_constraint(Constraint(kind=kind, source=source), vocabulary, deadline_s=20.0).matcher()  # type: ignore[arg-type]


def write(matcher: GrammarMatcher, rng: random.Random, limit: int = 400) -> bytes:
    """A random text under the constraint, ended as soon as it may end."""
    text = b""
    for _ in range(limit):
        allowed = set(np.flatnonzero(matcher.mask()).tolist())
        if matcher.is_complete or (allowed & {END, EOT} and rng.random() < 0.3):
            break
        token = rng.choice(sorted(allowed - {END, EOT}))
        matcher.advance(token)
        text += TOKENS[token]
    return text


def accepts(matcher: GrammarMatcher, text: str) -> bool:
    """Whether the ids of `text` may come, one after another, and then the end."""
    ids = list(text.encode())
    if matcher.count_valid(ids) < len(ids):
        return False
    for token in ids:
        matcher.advance(token)
    return matcher.is_complete or bool(matcher.mask()[END])


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a", "b"]},
    {"type": "array", "items": {"enum": ["x", "yy", 3, None]}, "minItems": 1, "maxItems": 3},
    {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"], "additionalProperties": False,
     "$defs": {"n": {"type": "number", "minimum": 0, "maximum": 10}}},
    {"anyOf": [{"type": "string", "pattern": "^[a-c]{2,4}$"}, {"const": {"k": [1, True]}}]},
    {"type": "string", "minLength": 2, "maxLength": 5},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_what_a_schema_lets_through_is_valid(vocabulary: Vocabulary, schema: dict):
    compiled = compile_constraint(Constraint(kind="json_schema", source=json.dumps(schema)), vocabulary, deadline_s=20)
    finished = 0
    for seed in range(12):
        matcher = compiled.matcher()
        text = write(matcher, random.Random(seed))
        if matcher.mask()[END]:
            jsonschema.validate(json.loads(text), schema)
            finished += 1
    assert finished >= 6


def test_common_layouts_of_json_are_allowed_and_endless_blanks_are_not(vocabulary: Vocabulary):
    source = json.dumps(SCHEMAS[0] | {"additionalProperties": False})
    for text in ('{"a":1,"b":true}', '{"a": 1, "b": true}', '{\n  "a": 1,\n  "b": true\n}'):
        assert accepts(walker(vocabulary, "json_schema", source), text), text
    assert not accepts(walker(vocabulary, "json_schema", source), '{"a":      1, "b": true}')


def test_json_object_is_any_object(vocabulary: Vocabulary):
    assert accepts(walker(vocabulary, "json_object"), '{"k": [1, {"z": null}], "é": -2.5e3}')
    assert not accepts(walker(vocabulary, "json_object"), "[1]")


def test_a_regular_expression_matches_the_whole_text(vocabulary: Vocabulary):
    assert accepts(walker(vocabulary, "regex", "[0-9]{2}-(a|b)+"), "42-abba")
    assert not accepts(walker(vocabulary, "regex", "[0-9]{2}"), "4")


def test_a_grammar_can_name_control_tokens(vocabulary: Vocabulary):
    matcher = walker(vocabulary, "grammar", 'start: <|python_tag|> "f(" NUMBER ")"\nNUMBER: /[0-9]+/')
    assert np.flatnonzero(matcher.mask()).tolist() == [TAG]
    matcher.advance(TAG)
    assert accepts(matcher, "f(12)")


def test_text_that_spells_a_control_token_is_text(vocabulary: Vocabulary):
    matcher = walker(vocabulary, "regex", r"<\|python_tag\|>x")
    assert not matcher.mask()[TAG]
    assert accepts(matcher, "<|python_tag|>x")


@pytest.mark.parametrize("choices", [["yes", "no"], ["a.b", "a+", "(", "\\", '"', "é", "😀 x", "\n"]])
def test_choice_allows_exactly_its_texts(vocabulary: Vocabulary, choices: list[str]):
    source = json.dumps(choices)
    for text in choices:
        assert accepts(walker(vocabulary, "choice", source), text)
    for text in ("axb", "aa", "ye", "yesno"):
        assert not accepts(walker(vocabulary, "choice", source), text)


def test_where_one_text_is_left_the_tokenizers_own_ids_come(vocabulary: Vocabulary):
    matcher = walker(vocabulary, "choice", '["hello world"]')
    for expected in encode("hello world"):
        assert np.flatnonzero(matcher.mask()).tolist() == [expected]
        matcher.advance(expected)
    assert matcher.is_complete


def test_a_tokenizer_that_adds_a_blank_is_not_believed():
    vocabulary = Vocabulary(TOKENS, eos_ids=[END], special=SPECIAL, encode=lambda text: encode(" " + text))
    assert vocabulary.encode("hello world") == encode("hello world")
    assert vocabulary.encode(b"\xff\xc3") == [255, 195]


def test_rollback_undoes_advance(vocabulary: Vocabulary):
    matcher = walker(vocabulary, "json_schema", json.dumps(SCHEMAS[1]))
    masks = []
    for token in b'["yy",':
        masks.append(matcher.mask())
        matcher.advance(token)
    matcher.rollback(4)
    assert np.array_equal(matcher.mask(), masks[2])
    matcher.rollback(2)
    assert np.array_equal(matcher.mask(), masks[0])


def test_the_end_can_be_taken_back(vocabulary: Vocabulary):
    matcher = walker(vocabulary, "regex", "ab*")
    matcher.advance(ord("a"))
    before = matcher.mask()
    matcher.advance(END)
    assert matcher.is_complete
    matcher.rollback(1)
    assert np.array_equal(matcher.mask(), before)


def test_walkers_of_one_constraint_are_independent(vocabulary: Vocabulary):
    compiled = compile_constraint(Constraint(kind="regex", source="ab|cd"), vocabulary, deadline_s=20)
    one, two = compiled.matcher(), compiled.matcher()
    one.advance(ord("a"))
    assert two.mask()[ord("c")] and not one.mask()[ord("c")]


def test_any_end_token_may_end(vocabulary: Vocabulary):
    matcher = walker(vocabulary, "regex", "a+")
    matcher.advance(ord("a"))
    assert matcher.mask()[[END, EOT]].all()
    assert matcher.count_valid([ord("a"), ord("b")]) == 1
    assert matcher.count_valid([len(TOKENS) + 5]) == 0 and matcher.mask()[ord("a")]


def test_a_token_that_does_not_fit_is_an_error(vocabulary: Vocabulary):
    with pytest.raises(InvalidRequest):
        walker(vocabulary, "regex", "a").advance(ord("b"))


def test_a_vocabulary_needs_an_end():
    with pytest.raises(ConfigError, match="end token"):
        Vocabulary(TOKENS, eos_ids=[], special={}, encode=encode)


def chain(length: int) -> str:
    rules = "\n".join(f"r{i}: r{i + 1}" for i in range(length))
    return f'start: r0\n{rules}\nr{length}: "a"'


def definitions(length: int) -> str:
    defs: dict = {f"a{i}": {"type": "array", "items": {"$ref": f"#/$defs/a{i + 1}"}} for i in range(length)}
    return json.dumps({"$defs": defs | {f"a{length}": {}}, "$ref": "#/$defs/a0"})


HOSTILE = {
    "parentheses": ("regex", "(" * 30_000 + "a" + ")" * 30_000),
    "unbalanced": ("regex", "(" * 100),
    "look-around": ("regex", "(?!a)b"),
    "repetition": ("regex", "((a{1000}){1000}){1000}x"),
    "surrogate": ("regex", "\ud800"),
    "nul": ("regex", "a\0b"),
    "lark parentheses": ("grammar", "start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
    "lark chain": ("grammar", chain(5_000)),
    "lark cycle": ("grammar", "start: x\nx: y\ny: x"),
    "lark import": ("grammar", "%import /etc/passwd.x\nstart: x"),
    "lark nonsense": ("grammar", "start: %%%"),
    "lark unknown control token": ("grammar", "start: <|nobody|>"),
    "schema depth": ("json_schema", '{"items":' * 5_000 + "{}" + "}" * 5_000),
    "schema chain": ("json_schema", definitions(5_000)),
    "schema cycle": ("json_schema", '{"$ref": "#"}'),
    "schema remote": ("json_schema", '{"$ref": "http://localhost:9/x"}'),
    "schema file": ("json_schema", '{"$ref": "file:///etc/passwd"}'),
    "schema dangling": ("json_schema", '{"$ref": "#/$defs/x"}'),
    "schema type": ("json_schema", '{"type": "frob"}'),
    "schema keyword": ("json_schema", '{"not": {"type": "string"}}'),
    "schema pattern": ("json_schema", '{"type": "string", "pattern": "("}'),
    "schema array": ("json_schema", "[1]"),
    "schema text": ("json_schema", "{nonsense"),
    "schema contradiction": ("json_schema", '{"type": "string", "minLength": 3, "maxLength": 1}'),
    "schema patterns": (
        "json_schema",
        json.dumps({"patternProperties": {f"^p{i}[a-z]*$": {"type": "string"} for i in range(600)}}),
    ),
    "too long": ("regex", "a" * (MAX_SOURCE_BYTES + 1)),
    "choice of numbers": ("choice", "[1, 2]"),
    "choice of nothing": ("choice", "[]"),
    "choice depth": ("choice", "[" * 100_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_constraints_are_refused_in_time(vocabulary: Vocabulary, name: str):
    kind, source = HOSTILE[name]
    began = time.monotonic()
    with pytest.raises(InvalidRequest) as caught:
        compile_constraint(Constraint(kind=kind, source=source), vocabulary)  # type: ignore[arg-type]
    assert caught.value.param == "response_format"
    assert len(str(caught.value)) < 600
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "constraint",
    [
        ("regex", "(a+)+$"),
        ("regex", "(a|a)*b(.*.*.*.*)x{50}"),
        ("regex", "|".join(f"x{i}y" for i in range(20_000))),
        ("json_schema", json.dumps({"enum": [f"v{i}" for i in range(20_000)]})),
        ("grammar", 'start: start start | "a" | "b"'),
    ],
    ids=["nested repetition", "wide repetition", "many words", "large enum", "ambiguity"],
)
def test_what_others_choke_on_just_works(vocabulary: Vocabulary, constraint: tuple[str, str]):
    matcher = walker(vocabulary, *constraint)
    began = time.monotonic()
    write(matcher, random.Random(1), limit=60)
    assert time.monotonic() - began < 10


def test_a_bad_constraint_does_not_spoil_the_next_one(vocabulary: Vocabulary):
    for source in (chain(5_000), "start: %%%"):
        with pytest.raises(InvalidRequest):
            walker(vocabulary, "grammar", source)
        assert accepts(walker(vocabulary, "regex", "ok"), "ok")
