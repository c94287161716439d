import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.errors import ConfigError, NotFound
from llamakit.storage import ids
from llamakit.storage.ids import FILE, RESPONSE, IdKind

KINDS = [value for value in vars(ids).values() if isinstance(value, IdKind)]


def test_an_id_has_its_prefix_and_192_bits():
    made = RESPONSE.new()
    assert made.startswith("resp_")
    assert len(bytes.fromhex(made.removeprefix("resp_"))) * 8 == 192
    assert RESPONSE.check(made) == made
    assert RESPONSE.new() != made


def test_prefixes_are_distinct():
    prefixes = [kind.prefix for kind in KINDS]
    assert len(set(prefixes)) == len(prefixes) > 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resp_",
        "resp_../../etc/passwd",
        "RESP_" + "a" * 48,
        "resp_" + "A" * 48,
        "resp_" + "a" * 47,
        "resp_" + "a" * 49,
        "resp_" + "a" * 48 + "\n",
        " resp_" + "a" * 48,
        "resp_" + "a" * 47 + "\0",
        "resp_" + "١" * 48,
        "file-" + "a" * 48,
    ],
)
def test_another_spelling_is_no_id(text: str):
    assert not RESPONSE.is_valid(text)
    with pytest.raises(NotFound, match="no response"):
        RESPONSE.check(text)


def test_something_that_is_no_text_is_no_id():
    assert not FILE.is_valid(None)
    assert not FILE.is_valid(7)


def test_ill_formed_and_absent_read_alike():
    absent = FILE.new()
    with pytest.raises(NotFound) as ill_formed:
        FILE.check("nonsense")
    assert str(ill_formed.value).replace("nonsense", absent) == str(FILE.missing(absent))


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_text_is_an_id_by_chance(text: str):
    assert not any(kind.is_valid(text) for kind in KINDS)


def test_a_prefix_is_a_word():
    with pytest.raises(ConfigError, match="prefix"):
        IdKind("../", "trick")
