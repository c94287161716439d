"""Doubtful JSON is refused with a reason; sound JSON comes through unchanged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.api.limits import Limits
from llamakit.api.strict_json import decode
from llamakit.core.errors import InvalidRequest

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.booleans())
def test_sound_json_comes_through(value, ascii_only):
    assert decode(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a":1,"a":2}', "repeats the key 'a'"),
        (b'{"x":{"a":1,"b":1,"a":2}}', "repeats"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (rb'{"a":"\ud800"}', "surrogate"),
        (rb'{"\udfff":1}', "surrogate"),
        (rb'["\ud83d x \ude00"]', "surrogate"),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b"[" * 100_000, "deeper than 64"),
        (b'{"a":' * 50_000, "deeper than 64"),
        (b'{"a":' + b"9" * 5000 + b"}", "too many digits"),
        (b"{} {}", "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
    ],
    ids=range(19),
)
def test_doubtful_json_is_refused(body, says):
    with pytest.raises(InvalidRequest, match=says):
        decode(body)


def test_limits_hold_exactly():
    assert decode(b"[" * 64 + b"]" * 64)
    assert decode(rb'"\ud83d\ude00"') == "😀"
    limits = Limits(json_keys=3, json_values=4)
    assert decode(b'{"a":{"b":1},"c":2}', limits)
    with pytest.raises(InvalidRequest, match="more than 3 keys"):
        decode(b'{"a":{"b":1},"c":{"d":1}}', limits)
    with pytest.raises(InvalidRequest, match="more than 4 values"):
        decode(b"[1,2,3,4,5]", limits)


def test_sizes_are_counted_outside_of_strings():
    limits = Limits(json_values=4, json_containers=2)
    assert decode(b'{"a":",,,,,,,[[[[[{{{{","b":"\\",[["}', limits)
    for body in (b'{"a":[[1]]}', b'{"a":"x","b":1,"c":1,"d":1,"e":1}', b'["\\"",1,2,3,4]'):
        with pytest.raises(InvalidRequest, match="more than"):
            decode(body, limits)
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        decode(b'{"a":"' + b'\\"' * 100_000 + b",[" * 60_000)


def test_many_brackets_side_by_side_are_not_deep():
    assert len(decode(b"[" + b"[]," * 500 + b"[]]")) == 501
