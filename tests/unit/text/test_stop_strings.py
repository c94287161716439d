"""Stop strings in pieces, against looking at the whole text."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.text.stop_strings import StopMatcher


def _whole(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The stop that ends first, the longest of those that end there; looked for at every place."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end - len(stop)], stop
    return text, None


def _pieces(matcher: StopMatcher, pieces: list[str]) -> tuple[str, str | None]:
    seen = ""
    for piece in pieces:
        text, stop = matcher.push(piece)
        seen += text
        if stop is not None:
            return seen, stop
    return seen + matcher.flush(), None


@settings(max_examples=500, deadline=None)
@given(
    pieces=st.lists(st.text("ab\n<", max_size=6), max_size=12),
    stops=st.lists(st.text("ab\n<", min_size=1, max_size=5), max_size=4),
)
def test_agrees_with_the_whole(pieces: list[str], stops: list[str]) -> None:
    assert _pieces(StopMatcher(stops), pieces) == _whole("".join(pieces), stops)


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab", max_size=30), stops=st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3))
def test_only_what_may_still_become_a_stop_is_held(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    seen = ""
    for end, char in enumerate(text, 1):
        sure, stop = matcher.push(char)
        seen += sure
        if stop is not None:
            return
        beginnings = [n for n in range(end + 1) if any(s.startswith(text[n:end]) for s in stops)]
        assert seen == text[: min(beginnings)]


def test_holds_a_beginning_and_gives_it_back() -> None:
    matcher = StopMatcher(["<|end|>"])
    assert matcher.push("a<|en") == ("a", None)
    assert matcher.push("x") == ("<|enx", None)
    assert matcher.push("<|end|>b") == ("", "<|end|>")
    assert matcher.push("more") == ("", None)
    assert matcher.flush() == ""


def test_time_is_linear() -> None:
    stops = ["a" * 1000 + "b", *("a" * n + "c" for n in range(900, 914))]
    matcher = StopMatcher(stops)
    start = time.process_time()
    for _ in range(100_000):
        matcher.push("a")
    assert time.process_time() - start < 5
