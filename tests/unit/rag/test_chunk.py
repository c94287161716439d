from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llamakit.core.errors import InvalidRequest
from llamakit.rag.chunk import ChunkSettings, chunk
from llamakit.rag.parse import Page


def words(text: str) -> int:
    return len(text.split())


def length(text: str) -> int:
    return len(text.encode())


TEXT = (
    "# Guide\n\nIntro words here.\n\n## Install\n\n"
    + "Run the thing. " * 30
    + "\n\n## Use\n\nCall it.\n\n- one\n- two\n"
)


def test_a_small_document_is_one_chunk():
    (made,) = chunk([Page("Hello there.")], words)
    assert (made.text, made.page, made.start, made.end, made.tokens) == ("Hello there.", None, 0, 12, 2)


def test_sections_start_chunks_and_name_them():
    made = chunk([Page(TEXT)], words, ChunkSettings(max_tokens=40, overlap_tokens=0))
    assert all(piece.tokens <= 40 for piece in made)
    assert made[-1].text.startswith("## Use") and made[-1].headings == ("Guide", "Use")
    assert any(piece.headings == ("Guide", "Install") for piece in made)


def test_overlap_repeats_the_end_of_the_last_chunk():
    text = " ".join(f"Sentence {n}." for n in range(100))
    made = chunk([Page(text)], words, ChunkSettings(max_tokens=20, overlap_tokens=6, by_structure=False))
    for before, after in pairwise(made):
        assert before.start < after.start < before.end < after.end


def test_pages_are_not_joined():
    made = chunk([Page("One.", 1), Page("  ", 2), Page("Three.", 3)], words)
    assert [(piece.page, piece.text) for piece in made] == [(1, "One."), (3, "Three.")]


def test_a_hash_in_code_is_no_heading():
    code = "# a comment\n\nx = 1\n\n# another\n\ny = 2\n"
    assert chunk([Page(code)], words, headings=False)[0].headings == ()
    fenced = "# Real\n\n```\n# not one\n\nx\n```\n\nafter"
    assert {piece.headings for piece in chunk([Page(fenced)], words)} == {("Real",)}


@pytest.mark.parametrize(("most", "overlap"), [(15, 0), (8193, 0), (100, 51), (100, -1)])
def test_sizes_that_cannot_be_are_refused(most: int, overlap: int):
    with pytest.raises(InvalidRequest, match="chunk_"):
        ChunkSettings(max_tokens=most, overlap_tokens=overlap)


@given(
    st.lists(
        st.sampled_from(["word ", "x" * 40, "\n", "\n\n", "# Head\n", "End. ", "```\n", "ü🦙", "   ", "\t"]),
        max_size=120,
    ),
    st.integers(16, 60),
    st.integers(0, 30),
    st.booleans(),
    st.sampled_from([words, length]),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_nothing_is_lost_and_nothing_is_too_large(parts, most, overlap, by_structure, count):
    text = "".join(parts)
    sizes = ChunkSettings(max_tokens=most, overlap_tokens=min(overlap, most // 2), by_structure=by_structure)
    made = chunk([Page(text, 7)], count, sizes)
    covered = set()
    for piece in made:
        assert piece.text == text[piece.start : piece.end] == piece.text.strip() != ""
        assert piece.tokens == count(piece.text) <= most and piece.page == 7
        covered.update(range(piece.start, piece.end))
    assert all(n in covered for n, character in enumerate(text) if not character.isspace())
    assert [piece.start for piece in made] == sorted({piece.start for piece in made})


def test_a_long_text_takes_time_in_proportion():
    made = chunk(
        [Page("word " * 200_000)], lambda text: len(text) // 5, ChunkSettings(max_tokens=512, overlap_tokens=0)
    )
    assert sum(piece.tokens for piece in made) > 95_000
