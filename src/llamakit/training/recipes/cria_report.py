"""Measure cria: every task, on fresh examples of known pieces and on unseen names and phrasings.

Scores go into the model card as they come out of here. Beside each stands the nearest-example baseline,
which has no model: a task on which it does well would be no evidence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from llamakit.core.messages import TextDelta, ToolCallDelta
from llamakit.data.world import verify, world
from llamakit.data.world.draw import Split
from llamakit.data.world.verify import Reply, Tally
from llamakit.models.llama import Llama
from llamakit.text.formats.format import PromptFormat
from llamakit.training.greedy import greedy

SEED = 2026
"""Of the test examples; training has its own."""
BASELINE_EXAMPLES = 1_500
SMOKE_TASKS = ("summary", "actions", "question", "tool", "chat", "rewrite")
SMOKE_N = 6
"""Examples of each of those in the quick check that the test suite repeats."""


def replies(model: Llama, format: PromptFormat, examples: Sequence[world.Example]) -> list[Reply]:
    """Greedy answers to the last question of each example."""
    prompts = [format.render(one.messages[:-1], tools=one.tools) for one in examples]
    stops = set(prompts[0].stop_ids) if prompts else set()
    answers = greedy(model, [prompt.ids for prompt in prompts], tuple(stops))
    return [read(format, one, ids) for one, ids in zip(examples, answers, strict=True)]


def read(format: PromptFormat, one: world.Example, ids: Sequence[int]) -> Reply:
    """Ids of an answer as text and calls, by the parser that serves them."""
    parser = format.parser(one.tools)
    parts = []
    run: list[int] = []

    def flush() -> None:
        if run:
            parts.extend(parser.push(format.tokenizer.decode(run)))
            run.clear()

    for token in ids:
        if format.tokenizer.is_special(token):
            flush()
            parts.extend(parser.push(token))
        else:
            run.append(token)
    flush()
    parts.extend(parser.finish())
    text = "".join(part.text for part in parts if isinstance(part, TextDelta))
    calls = [(part.name or "", json.loads(part.arguments)) for part in parts if isinstance(part, ToolCallDelta)]
    return Reply(text, tuple(calls))


def measure(
    model: Llama,
    format: PromptFormat,
    split: Split,
    n: int,
    log: Callable[[str], None],
    tasks: Sequence[str] = verify.MEASURED,
) -> dict[str, dict[str, float]]:
    """Figures of every task on `n` examples of a split."""
    scores: dict[str, dict[str, float]] = {}
    for task in tasks:
        examples = list(world.examples(SEED, split, n, task))
        tally = Tally()
        for one, reply in zip(examples, replies(model, format, examples), strict=True):
            tally.add(verify.judge(one, reply))
        scores[task] = tally.means()
        log(f"{split} {task}: {scores[task]}")
    return scores


def baseline(split: Split, n: int, seed: int) -> dict[str, dict[str, float]]:
    """The same figures for the answer of the nearest training example."""
    scores: dict[str, dict[str, float]] = {}
    for task in verify.MEASURED:
        known = [(verify.words(one), one.answer) for one in world.examples(seed, "train", BASELINE_EXAMPLES, task)]
        tally = Tally()
        for one in world.examples(SEED, split, n, task):
            tally.add(verify.judge(one, verify.nearest(one, known)))
        scores[task] = tally.means()
    return scores


def overlap(split: Split, n: int, seed: int, training: int) -> float:
    """Share of test conversations that occur word for word among the first `training` training examples."""
    seen = {_text(one) for one in world.examples(seed, "train", training)}
    tests = [_text(one) for task in verify.MEASURED for one in world.examples(SEED, split, n, task)]
    return round(sum(text in seen for text in tests) / len(tests), 4)


def _text(one: world.Example) -> str:
    return "\n".join(message.text for message in one.messages[:-1] if message.role == "user")
