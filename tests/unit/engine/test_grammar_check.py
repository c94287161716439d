from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llguidance
import pytest

from llamakit.core.errors import EngineStopped
from llamakit.engine.grammar_check import GrammarChecker

GOOD = llguidance.LLMatcher.grammar_from_regex("[a-z]+")
BAD = llguidance.LLMatcher.grammar_from_regex("[a-z")


@pytest.fixture
def checker():
    made = GrammarChecker(["<|tag|>"])
    yield made
    made.close()


def test_says_what_is_wrong_or_nothing(checker: GrammarChecker):
    assert checker.check(GOOD, 20.0) is None
    assert "invalid regex" in (checker.check(BAD, 20.0) or "")
    assert checker.check(llguidance.LLMatcher.grammar_from_lark('start: <|tag|> "x"'), 20.0) is None


def test_the_child_is_kept_and_replaced_when_it_had_to_be_killed(checker: GrammarChecker):
    checker.check(GOOD, 20.0)
    first = checker._child
    assert checker.check(GOOD, 20.0) is None and checker._child is first
    assert "longer than 0 s" in (checker.check(GOOD, 0.0) or "")
    assert first is not None and first.poll() is not None
    assert checker.check(GOOD, 20.0) is None


def test_a_child_that_died_by_itself_is_replaced(checker: GrammarChecker):
    checker.check(GOOD, 20.0)
    assert checker._child is not None
    checker._child.kill()
    checker._child.wait()
    assert checker.check(GOOD, 20.0) is None


def test_threads_take_turns(checker: GrammarChecker):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: checker.check(BAD if i % 2 else GOOD, 30.0), range(40)))
    assert [answer is None for answer in answers] == [i % 2 == 0 for i in range(40)]


def test_the_child_knows_no_secrets(checker: GrammarChecker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLAMA_API_KEY", "canary-123")
    checker.check(GOOD, 20.0)
    assert checker._child is not None
    environ = Path(f"/proc/{checker._child.pid}/environ")
    if not environ.exists():
        pytest.skip("needs /proc")
    assert b"canary" not in environ.read_bytes()


def test_a_forgotten_checker_takes_its_child_along():
    checker = GrammarChecker([])
    checker.check(GOOD, 20.0)
    child = checker._child
    assert child is not None
    del checker
    gc.collect()
    ends = time.monotonic() + 10
    while child.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)
    assert child.poll() is not None


def test_without_a_child_constraints_are_refused_and_not_trusted(
    checker: GrammarChecker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    with pytest.raises(EngineStopped, match="cannot be checked"):
        checker.check(GOOD, 5.0)
    monkeypatch.setattr("sys.executable", "/bin/true")
    with pytest.raises(EngineStopped, match="cannot be checked"):
        checker.check(GOOD, 5.0)
