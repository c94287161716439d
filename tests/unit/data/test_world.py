"""The world: a seed is a data set, splits do not meet, and every expected answer follows from its question."""

from __future__ import annotations

import itertools
import json

import pytest

from llamakit.data.world import lexicon, talk, verify, world
from llamakit.data.world.draw import Draw
from llamakit.data.world.verify import Reply


def test_same_seed_same_bytes():
    assert world.digest(world.examples(3, "train", 200)) == world.digest(world.examples(3, "train", 200))
    assert world.digest(world.examples(3, "train", 200)) != world.digest(world.examples(4, "train", 200))


def test_bytes_are_those_that_the_embedded_model_was_trained_on():
    # A change here means that the published weights can no longer be reproduced: retrain, then change it.
    assert (
        world.digest(world.examples(1, "train", 500))
        == "148819447bc264059dd894eaec2b7ec82026174312f54f79620366663d501c4c"
    )


def test_examples_do_not_depend_on_their_neighbours():
    alone = world.example(3, "train", 17)
    assert list(world.examples(3, "train", 20))[17] == alone


@pytest.mark.parametrize("task", verify.MEASURED)
@pytest.mark.parametrize("split", ["train", "seen", "held"])
def test_every_example_is_a_conversation_that_ends_with_its_answer(task, split):
    for one in world.examples(9, split, 40, task):
        assert one.messages[-1].role == "assistant"
        turns = [message.role for message in one.messages if message.role != "system"]
        assert turns[0] == "user"
        assert all(a != b for a, b in itertools.pairwise(turns) if a != "tool")
        assert all(message.text or message.tool_calls for message in one.messages)
        offered = {spec.name: spec for spec in one.tools}
        for message in one.messages:
            for call in message.tool_calls:
                known = offered[call.name].parameters["properties"]
                assert set(json.loads(call.arguments)) <= set(known)


def test_held_names_and_phrasings_never_occur_in_training():
    held = {name for at, name in enumerate(lexicon.PEOPLE) if at % 8 == 5}
    drawn = {Draw(1, "train", index).pick(lexicon.PEOPLE) for index in range(3000)}
    assert not drawn & held
    assert {Draw(1, "held", index).pick(lexicon.PEOPLE) for index in range(3000)} == held
    asked = {Draw(1, "train", index).pick(talk.INTENTS["hello"][0]) for index in range(3000)}
    assert len(asked) == len(talk.INTENTS["hello"][0]) - 3


@pytest.mark.parametrize("task", verify.MEASURED)
def test_the_expected_answer_is_judged_right_and_an_empty_one_is_not(task):
    for one in world.examples(5, "held", 30, task):
        right = Reply(one.answer.text, verify.expected_calls(one.answer))
        assert all(value == 1.0 for value in verify.judge(one, right).values())
        wrong = verify.judge(one, Reply("", (("nobody_knows_this", {}),)))
        assert min(wrong.values()) == 0.0


def test_summary_score_counts_facts_and_inventions():
    one = next(e for e in world.examples(5, "held", 50, "summary") if len(e.facts) == 2)
    figures = verify.judge(one, Reply(f"- {one.facts[0]}\n- Nobody came."))
    assert figures["fact_recall"] == figures["fact_precision"] == 0.5


def test_no_test_question_with_a_thread_occurs_in_training():
    seen = {e.messages[-2].text for e in world.examples(1, "train", 3000, "summary")}
    assert not any(e.messages[-2].text in seen for e in world.examples(2026, "held", 100, "summary"))
