"""Documents of repeated tokens: pure functions of their number, whose targets can all be foreseen."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.data.copying import repeats


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(30, 300))
def test_every_target_was_seen_behind_the_same_token(number, length):
    one = repeats(1, number, first_id=5, num_ids=500, start_id=3, length=length)
    assert one == repeats(1, number, first_id=5, num_ids=500, start_id=3, length=length)
    assert len(one.ids) == length and one.ids[0] == 3
    assert all(5 <= token < 505 for token in one.ids[1:])
    seen = set()
    for before, (token, target) in zip(one.ids, list(zip(one.ids, one.trained, strict=True))[1:], strict=False):
        assert not target or (before, token) in seen
        seen.add((before, token))
    assert any(one.trained)
