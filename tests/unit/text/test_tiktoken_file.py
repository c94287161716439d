"""The Llama 3 tokenizer file: published encodings, agreement with tiktoken, hostile files."""

from __future__ import annotations

import base64
import random
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.errors import TokenizerError
from llamakit.text.byte_bpe import LLAMA3_SPLIT, ByteBpeTokenizer, spell
from llamakit.text.specials import LLAMA3_SPECIALS, llama3_specials
from llamakit.text.tiktoken_file import load_tiktoken, merges_of, read_ranks, write_ranks
from llamakit.text.tokenizer import Tokenizer

# model_facts 3.1, made with Meta's file.
PUBLISHED = {
    "Hello": [9906],
    " Hello": [22691],
    "Hello, world!": [9906, 11, 1917, 0],
    "The capital of France is": [791, 6864, 315, 9822, 374],
    "1234567": [4513, 10961, 22],
    "3.14159": [18, 13, 9335, 2946],
    "don't DON'T": [15357, 956, 45373, 17773],
    "  two  spaces": [220, 1403, 220, 12908],
    "def f(x):\n    return x": [755, 282, 2120, 997, 262, 471, 865],
    "a\r\n\r\nb": [64, 881, 65],
    "नमस्ते": [61196, 88344, 79468, 100365, 35470],
    "สวัสดี": [106123, 119657, 29419],
    "你好，世界": [57668, 53901, 3922, 102616],
    "🙂": [9468, 19044],
    "\n": [198],
    "\n\n": [271],
    "\n\n\n": [1432],
    "user": [882],
    "system": [9125],
    "assistant": [78191],
    "ipython": [23799, 4690],
    "safe": [19193],
    "unsafe": [39257],
    "unsafe\nS1": [39257, 198, 50, 16],
    "\n\nunsafe\nS1,S2": [271, 39257, 198, 50, 16, 21861, 17],
    "S10": [50, 605],
    "ABCD"[0]: [32],
    "B": [33],
    "C": [34],
    "D": [35],
    " A": [362],
    " B": [426],
    " C": [356],
    " D": [423],
    "Yes": [9642],
    "No": [2822],
    " Yes": [7566],
    " No": [2360],
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n": [
        38766, 1303, 33025, 2696, 25, 6790, 220, 2366, 18, 198,
        15724, 2696, 25, 220, 1627, 10263, 220, 2366, 19, 271,
    ],
    "<|eot_id|>": [27, 91, 68, 354, 851, 91, 29],
}  # fmt: skip


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_encodings(llama3: Tokenizer, text: str) -> None:
    assert llama3.encode(text) == PUBLISHED[text]
    assert llama3.decode(PUBLISHED[text]) == text


def test_llama3_shape(llama3: Tokenizer) -> None:
    assert llama3.vocab_size == 128_256
    assert (llama3.bos_id, llama3.eos_ids, llama3.pad_id) == (128_000, (128_001, 128_008, 128_009), 128_004)
    named = {"<|start_header_id|>": 128_006, "<|end_header_id|>": 128_007, "<|python_tag|>": 128_010}
    assert named.items() <= dict(llama3.special).items()
    assert llama3.special["<|image|>"] == 128_011
    assert llama3.special["<|reserved_special_token_2|>"] == 128_012
    assert llama3.special["<|reserved_special_token_245|>"] == 128_255


@pytest.fixture(scope="module")
def peer(llama3_model_path: Path) -> tiktoken.Encoding:
    return _tiktoken(read_ranks(llama3_model_path))


def _tiktoken(tokens: list[bytes]) -> tiktoken.Encoding:
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding("peer", pat_str=LLAMA3_SPLIT, mergeable_ranks=ranks, special_tokens={})


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200))
def test_agrees_with_tiktoken(llama3: Tokenizer, peer: tiktoken.Encoding, text: str) -> None:
    ids = llama3.encode(text)
    assert ids == peer.encode(text, disallowed_special=())
    assert llama3.decode(ids) == text


ALPHABETS = (" \n\t\r", "ab", "a b'sSſtTrRvVeEmMlLdDK", "aé🙂न  1२\u2028\u0085\u00a0\u3000", "()[]{}\n ")


@settings(max_examples=300, deadline=None)
@given(text=st.sampled_from(ALPHABETS).flatmap(lambda alphabet: st.text(alphabet, max_size=60)))
def test_agrees_with_tiktoken_where_merges_compete(llama3: Tokenizer, peer: tiktoken.Encoding, text: str) -> None:
    assert llama3.encode(text) == peer.encode(text, disallowed_special=())


def test_lone_surrogates_become_the_replacement_character(small: Tokenizer) -> None:
    assert small.decode(small.encode("a\ud800b")) == "a\ufffdb"
    assert small.decode(small.encode("\ud83d\ude42")) == "🙂"


@pytest.mark.parametrize("unit", [" ", "a", "\n", "🙂", "ab "])
def test_long_runs_are_cut_as_meta_cuts_them(small: Tokenizer, unit: str) -> None:
    text = unit * (60_000 // len(unit))
    assert small.decode(small.encode(text)) == text


def test_run_of_25001_is_cut_after_25000(small: Tokenizer) -> None:
    assert small.encode("a" * 25_001) == small.encode("a" * 25_000) + small.encode("a")
    assert small.encode("b " + "a" * 25_001) == small.encode("b " + "a" * 25_000) + small.encode("a")


@pytest.mark.parametrize("shuffled", [False, True])
def test_merging_by_rank_in_random_tables(shuffled: bool) -> None:
    """Against merging by hand: lowest rank first, leftmost on a tie; overlaps are frequent over two letters."""
    rng = random.Random(7)
    for _ in range(150):
        words = ["a", "b"]
        while len(words) < 12:
            words = list(dict.fromkeys([*words, rng.choice(words) + rng.choice(words)]))
        learned = words[2:]
        if shuffled:
            rng.shuffle(learned)
        tokens = [bytes([byte]) for byte in range(256)] + [word.encode() for word in learned]
        vocab = {spell(token): rank for rank, token in enumerate(tokens)}
        tokenizer = ByteBpeTokenizer(vocab=vocab, merges=merges_of(vocab), specials=llama3_specials(len(tokens)))
        for _ in range(10):
            text = "".join(rng.choices("ab", k=rng.randint(1, 30)))
            assert tokenizer.encode(text) == _merge_by_hand(text, vocab)


def _merge_by_hand(text: str, vocab: dict[str, int]) -> list[int]:
    if text in vocab:
        return [vocab[text]]
    parts = list(text)
    while True:
        ranked = [(vocab[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in vocab]
        if not ranked:
            return [vocab[part] for part in parts]
        _, i = min(ranked)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def test_written_file_reads_back(tmp_path: Path, small_model_path: Path) -> None:
    tokens = read_ranks(small_model_path)
    write_ranks(tmp_path / "copy.model", tokens)
    assert (tmp_path / "copy.model").read_bytes() == small_model_path.read_bytes()


def _line(token: bytes, rank: int | str) -> bytes:
    return base64.b64encode(token) + f" {rank}\n".encode()


BYTES = [_line(bytes([byte]), byte) for byte in range(256)]


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (BYTES[:200], "200 entries"),
        ([*BYTES, _line(b"ab", 255)], "appears twice"),
        ([*BYTES, _line(b"ab", 257)], "rank 257 in a file of 257"),
        ([*BYTES, _line(b"a", 256)], "share one token"),
        ([*BYTES, b"!!!! 256\n"], "bad base64"),
        ([*BYTES, _line(b"ab", "x")], "wanted a rank"),
        ([*BYTES, _line(b"ab", "9" * 30)], "wanted a rank"),
        ([*BYTES, _line(b"a" * 300, 256)], "300 bytes"),
        ([*BYTES, b" 256\n"], "0 bytes"),
        ([*BYTES[:255], _line(b"ab", 255)], "0xff is missing"),
    ],
)
def test_hostile_files_are_named(tmp_path: Path, lines: list[bytes], fault: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join(lines))
    with pytest.raises(TokenizerError, match=fault) as caught:
        load_tiktoken(path)
    assert str(path) in str(caught.value)


def test_there_are_256_control_names() -> None:
    assert len(LLAMA3_SPECIALS) == len(set(LLAMA3_SPECIALS)) == 256


def test_every_spelled_control_token_is_plain_text(llama3: Tokenizer) -> None:
    for name in llama3.special:
        for text in (name, f"a{name}b", f" {name}\n", name * 2):
            ids = llama3.encode(text)
            assert not any(map(llama3.is_special, ids))
            assert llama3.decode(ids) == text
