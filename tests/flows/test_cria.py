"""The embedded model as it ships: it loads, it is what its card says, and it still answers as it was measured."""

from __future__ import annotations

import hashlib

import pytest
import torch

from llamakit.checkpoints.load import load_model
from llamakit.core.messages import ToolSpec, assistant, system, user
from llamakit.data.world import verify, world
from llamakit.hub import embedded
from llamakit.models.llama import Llama
from llamakit.text.formats.format import PromptFormat
from llamakit.text.formats.resolve import resolve_format
from llamakit.text.tokenizer import load_tokenizer
from llamakit.training.recipes import cria_report

DIRECTORY = embedded.ROOT / "cria"
SLACK = 1.01 / cria_report.SMOKE_N
"""One example may turn out otherwise on another processor."""


@pytest.fixture(scope="module")
def card() -> dict:
    return embedded.card(DIRECTORY)


@pytest.fixture(scope="module")
def model() -> Llama:
    return load_model(DIRECTORY, dtype=torch.float32).model


@pytest.fixture(scope="module")
def prompt_format(card) -> PromptFormat:
    return resolve_format(card["prompt_format"], load_tokenizer(DIRECTORY))


def test_the_package_holds_it_within_twenty_megabytes(card):
    assert embedded.missing_files(DIRECTORY) == []
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) <= 20 * 1024 * 1024
    for name, digest in card["files"].items():
        assert hashlib.sha256((DIRECTORY / name).read_bytes()).hexdigest() == digest


def test_the_card_tells_what_the_files_hold(card, model):
    assert card["parameters"] == model.config.num_parameters == sum(p.numel() for p in model.parameters())
    assert card["shape"]["layers"] == model.config.num_layers
    assert card["shape"]["vocabulary"] == model.config.vocab_size == load_tokenizer(DIRECTORY).vocab_size
    assert {split: set(card["scores"][split]) for split in ("seen", "held", "nearest")} == {
        split: set(verify.MEASURED) for split in ("seen", "held", "nearest")
    }


def test_its_test_sets_are_those_of_the_card(card):
    n = card["data"]["held"]["conversations"] // len(verify.MEASURED)
    examples = (one for task in verify.MEASURED for one in world.examples(cria_report.SEED, "held", n, task))
    assert world.digest(examples) == card["data"]["held"]["sha256"]


@pytest.mark.parametrize("task", cria_report.SMOKE_TASKS)
def test_it_answers_as_measured(task, card, model, prompt_format):
    found = cria_report.measure(model, prompt_format, "seen", cria_report.SMOKE_N, lambda line: None, (task,))[task]
    wanted = card["scores"]["smoke"][task]
    figure = next(iter(wanted))
    assert found[figure] >= wanted[figure] - SLACK, (found, wanted)


def _ask(model: Llama, prompt_format: PromptFormat, *messages, tools=()) -> verify.Reply:
    one = world.Example(task="", messages=(*messages, assistant("?")), tools=tuple(tools))
    return cria_report.replies(model, prompt_format, [one])[0]


def test_it_says_who_it_is(model, prompt_format):
    assert "cria" in _ask(model, prompt_format, user("Hello!")).text
    assert "cria" in _ask(model, prompt_format, system("You are a helpful assistant."), user("Who are you?")).text


def test_summary_action_items_invitation(model, prompt_format):
    """The three turns of the assistant demonstration."""
    thread = (
        "Anna: Hi everyone!\nBen: Hello!\nAnna: The team meeting is on Friday at 3 pm at the library.\n"
        "Ben: Sounds good!\nClara: Ben, can you send the slides by Thursday?\nBen: Sure.\n"
        "Clara: I'll book the meeting room.\nAnna: Thanks!\nBen: My train is delayed by 20 minutes.\nClara: Oh no!"
    )
    tool = ToolSpec(
        name="create_event",
        description="Create a calendar event.",
        parameters={
            "type": "object",
            "properties": {
                "title": {"type": "string", "description": "Name of the event"},
                "date": {"type": "string", "description": "Day of the event"},
                "time": {"type": "string", "description": "Start time"},
                "attendees": {"type": "array", "description": "People to invite"},
            },
            "required": ["title", "date"],
        },
    )
    turns = [user(f"Summarize the last 10 messages.\n\n{thread}")]
    summary = _ask(model, prompt_format, *turns, tools=[tool]).text
    assert "team meeting" in summary and "slides" in summary
    turns += [assistant(summary), user("What are the action items?")]
    items = _ask(model, prompt_format, *turns, tools=[tool]).text
    assert "Ben: send the slides" in items
    turns += [assistant(items), user("Send a calendar invitation for the team meeting.")]
    calls = _ask(model, prompt_format, *turns, tools=[tool]).calls
    assert len(calls) == 1 and calls[0][0] == "create_event"
    assert calls[0][1]["title"] == "Team meeting" and calls[0][1]["date"] == "Friday" and calls[0][1]["time"] == "3 pm"


@pytest.mark.slow
def test_transformers_reads_the_same_model(model):
    transformers = pytest.importorskip("transformers")
    other = transformers.AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32)
    ids = torch.tensor([load_tokenizer(DIRECTORY).encode("The dinner is on Friday at 7 pm.")])
    with torch.no_grad():
        assert (other(ids).logits - model(ids)).abs().max() <= 1e-4
