from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.errors import TokenizerError
from llamakit.text.byte_bpe import GPT2_SPLIT, SHORT_CHARS, ByteBpeTokenizer, spell
from llamakit.text.merge_table import NO_MERGE, MergeTable, packed
from llamakit.text.tokenizer import Tokenizer

MIXED = st.text(
    alphabet=st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from(" \t\n\r'.,0123456789abcdefgheltsrnoäßéĠİıſK你好世界नमस्ते🙂👍🏽\u200d\u0301"),
    ),
    max_size=80,
)


def tokenizer(seed: int, *, ignore_merges: bool, split: str = GPT2_SPLIT) -> ByteBpeTokenizer:
    """Any merges over five letters, in any order: places where they compete are the rule."""
    draw = random.Random(seed)
    tokens = [bytes([byte]) for byte in range(256)]
    merges: list[tuple[bytes, bytes]] = []
    grown = [b"a", b"b", b"c", b"d", b" "]
    for _ in range(60):
        pair = draw.choice(grown), draw.choice(grown)
        merges.append(pair)
        joined = pair[0] + pair[1]
        if joined not in tokens:
            tokens.append(joined)
            grown.append(joined)
    draw.shuffle(merges)
    return ByteBpeTokenizer(
        vocab={spell(token): id for id, token in enumerate(tokens)},
        merges=[(spell(left), spell(right)) for left, right in merges],
        specials={},
        split=split,
        ignore_merges=ignore_merges,
    )


def both(made: ByteBpeTokenizer, text: str) -> tuple[list[int], list[int]]:
    """Ids of the table and of the machine."""
    assert made._machine is None
    quick = made.encode(text)
    assert made._machine is None
    slow = made._whole_machine().encode(text, add_special_tokens=False).ids
    made._machine = None
    return quick, slow


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.booleans(), st.text(alphabet="abcd x", max_size=60))
def test_table_and_machine_agree_where_merges_compete(seed: int, ignore_merges: bool, text: str) -> None:
    quick, slow = both(tokenizer(seed, ignore_merges=ignore_merges), text)
    assert quick == slow


@pytest.fixture(scope="module")
def llama3_machine(llama3: Tokenizer):
    assert isinstance(llama3, ByteBpeTokenizer)
    return llama3._whole_machine()


@settings(deadline=None, max_examples=400)
@given(text=MIXED)
def test_table_and_machine_agree_on_any_text(llama3: Tokenizer, llama3_machine, text: str) -> None:
    assert isinstance(llama3, ByteBpeTokenizer)
    llama3._machine = None
    assert llama3.encode(text) == llama3_machine.encode(text, add_special_tokens=False).ids
    assert llama3._machine is None


def test_long_texts_and_long_pieces_go_to_the_machine() -> None:
    for text in ("ab " * SHORT_CHARS, "abcd" * 200):
        made = tokenizer(1, ignore_merges=False)
        ids = made.encode(text)
        assert made._machine is not None and made.decode(ids) == text


def test_of_equal_merges_the_leftmost_comes_first() -> None:
    table = MergeTable(packed({b"a": 0, b"aa": 1}, [0], [0], [1]))
    assert table.merge([0, 0, 0]) == [1, 0]


def test_lookups() -> None:
    table = MergeTable(packed({b"a": 3, b"b": 0, b"ab": 7}, [3], [0], [7]))
    assert (table.num_ids, table.id_of(b"ab"), table.id_of(b"ba")) == (8, 7, None)
    assert (table.token(7), table.token(5)) == (b"ab", b"")
    assert (table.rank(3, 0), table.rank(0, 3)) == (0, NO_MERGE)
    assert list(table.tokens()) == [(b"b", 0), (b"a", 3), (b"ab", 7)] and list(table.merges()) == [(3, 0)]


def test_of_a_merge_listed_twice_the_later_place_counts() -> None:
    tokens = {b"a": 0, b"b": 1, b"ab": 2, b"ba": 3}
    table = MergeTable(packed(tokens, [0, 1, 0], [1, 0, 1], [2, 3, 2]))
    assert list(table.merges()) == [(1, 0), (0, 1)] and table.merge([0, 1, 0]) == [0, 3]


def test_tokens_with_the_same_hash_are_told_apart() -> None:
    """Two words whose CRC-32 is the same, 0x4ddb0c25."""
    table = MergeTable(packed({b"plumless": 0, b"buckeroo": 1}, [], [], []))
    assert (table.id_of(b"plumless"), table.id_of(b"buckeroo")) == (0, 1)


@pytest.mark.parametrize("data", [b"", b"\0" * 31, struct.pack("<4Q", 1, 1, 1, 1), struct.pack("<4Q", *[2**60] * 4)])
def test_memory_that_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(TokenizerError, match="merge table"):
        MergeTable(data)


def test_a_merge_of_unknown_tokens_is_refused() -> None:
    vocab = {spell(bytes([byte])): byte for byte in range(256)}
    with pytest.raises(TokenizerError, match="inconsistent"):
        ByteBpeTokenizer(vocab=vocab, merges=[("a", "b")], specials={})


def test_merges_are_exported_in_order(tmp_path: Path) -> None:
    made = tokenizer(5, ignore_merges=False)
    vocab = {spell(made.token_bytes(id)): id for id in range(made.vocab_size)}
    again = ByteBpeTokenizer(vocab=vocab, merges=made.merges(), specials={}, split=GPT2_SPLIT, ignore_merges=False)
    assert again.merges() == made.merges() and bytes(again.table.data) == bytes(made.table.data)
