"""Packing: every token once, documents whole, masks and positions of their own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.errors import ConfigError
from llamakit.data.conversations import Document
from llamakit.data.packing import pack


def _document(number: int, length: int) -> Document:
    return Document([number * 100 + at for at in range(length)], [at % 3 == 0 for at in range(length)])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 30), max_size=40))
def test_every_document_is_whole_and_alone(lengths):
    documents = [_document(number, length) for number, length in enumerate(lengths)]
    rows = pack(documents, (8, 16, 30), pad_id=-1)
    found = []
    for row in rows:
        assert len(row.ids) == len(row.trained) == len(row.documents) == len(row.positions) == row.length
        for number in range(1, max(row.documents) + 1):
            places = [at for at, owner in enumerate(row.documents) if owner == number]
            assert places == list(range(places[0], places[-1] + 1))
            assert [row.positions[at] for at in places] == list(range(len(places)))
            found.append(Document([row.ids[at] for at in places], [row.trained[at] for at in places]))
        for at, owner in enumerate(row.documents):
            if owner == 0:
                assert (row.ids[at], row.trained[at]) == (-1, False)
    assert sorted(one.ids for one in found) == sorted(one.ids for one in documents)
    assert sorted((one.ids, one.trained) for one in found) == sorted((one.ids, one.trained) for one in documents)


def test_a_document_opens_the_shortest_row_that_holds_it():
    rows = pack([_document(0, 5), _document(1, 12)], (8, 16), pad_id=0)
    assert sorted(row.length for row in rows) == [8, 16]


def test_a_document_longer_than_every_row_is_refused():
    with pytest.raises(ConfigError, match="17 tokens fits no row; the longest has 16"):
        pack([_document(0, 17)], (8, 16), pad_id=0)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="mask of 1 for 2 ids"):
        Document([1, 2], [True])
