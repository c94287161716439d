"""`llama run` for one prompt: words, pipes, JSON, schemas, tools, and the errors of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny import tiny_checkpoint

from llamakit.hub import store
from llamakit.hub.modelfile import Modelfile

QUICK = ("--max-tokens", "6", "--temperature", "0", "--threads", "1", "--format", "llama3.2")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", context_length=2048))


def test_words_are_answered(llama, tiny: str) -> None:
    result = llama("run", tiny, "Hello", "there", *QUICK, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["usage"]["completion_tokens"] <= 6 and answer["model"] == tiny
    text = llama("run", tiny, "Hello there", *QUICK)
    assert text.stdout == answer["text"] + "\n" and text.stderr == ""


def test_words_and_a_pipe_are_one_prompt(llama, tiny: str) -> None:
    together = llama("run", tiny, "Sum up:", *QUICK, "--json", input="a text\n")
    alone = llama("run", tiny, *QUICK, "--json", input="Sum up:\n\na text")
    assert json.loads(together.stdout)["text"] == json.loads(alone.stdout)["text"]
    assert json.loads(together.stdout)["usage"]["prompt_tokens"] == json.loads(alone.stdout)["usage"]["prompt_tokens"]


def test_the_same_seed_is_the_same_answer(llama, tiny: str) -> None:
    options = ("-n", "12", "-t", "1", "--top-p", "0.9", "--top-k", "50", "--min-p", "0.01", "--threads", "1", "--raw")
    first, second, other = (llama("run", tiny, "Once", *options, "--seed", seed, "--json") for seed in ("1", "1", "2"))
    texts = [json.loads(result.stdout)["text"] for result in (first, second, other)]
    assert texts[0] == texts[1] != texts[2]


def test_system_text_and_the_recipe_of_a_created_model(llama, tiny: str, world: Path) -> None:
    plain = json.loads(llama("run", tiny, "Hi", *QUICK, "--json").stdout)["usage"]["prompt_tokens"]
    told = json.loads(llama("run", tiny, "Hi", "--system", "Be brief.", *QUICK, "--json").stdout)["usage"][
        "prompt_tokens"
    ]
    assert told > plain
    store.save(world / "home", "brief", Modelfile(base=tiny, system="Be brief.", parameters=(("max_tokens", 2),)))
    made = json.loads(llama("run", "brief", "Hi", "--threads", "1", "--format", "llama3.2", "--json").stdout)
    assert made["usage"]["prompt_tokens"] == told and made["usage"]["completion_tokens"] <= 2


def test_a_schema_binds_the_answer(llama, tiny: str, world: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    (world / "schema.json").write_text(json.dumps(schema))
    result = llama("run", tiny, "Hi", "--schema", "schema.json", "-n", "40", "-t", "0", "--threads", "1")
    assert json.loads(result.stdout) in ({"a": 1}, {"a": 2}), result.output


def test_verbose_goes_beside_the_answer(llama, tiny: str) -> None:
    result = llama("run", tiny, "Hi", *QUICK, "--verbose")
    assert "prompt tokens" in result.stderr and "prompt tokens" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--schema", "nowhere.json"], "--schema: no file nowhere.json"),
        (["--schema", "broken.json"], "--schema broken.json is not JSON"),
        (["--schema", "list.json"], "must hold a JSON object"),
        (["--tools", "list.json"], "must hold a list of functions with a name"),
        (["--raw", "--system", "x"], "--raw continues a text"),
        (["--temperature", "-1"], "temperature must be in"),
        (["--dtype", "int3"], "dtype must be one of auto, float32"),
        (["--device", "abacus"], "device must be auto, cpu"),
        (["--context", "999999999"], "a context of 999999999 tokens needs"),
        (["--format", "klingon"], "no prompt format 'klingon'"),
    ],
)
def test_misuse_is_told(llama, tiny: str, world: Path, arguments: list[str], told: str) -> None:
    (world / "broken.json").write_text("{")
    (world / "list.json").write_text("[1]")
    result = llama("run", tiny, "Hi", "--threads", "1", *arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr and result.stdout == ""


def test_an_empty_pipe_is_misuse(llama, tiny: str) -> None:
    result = llama("run", tiny, input="  \n")
    assert result.exit_code == 2 and "standard input is empty" in result.stderr


def test_a_model_that_is_not_here_says_how_to_get_it(llama) -> None:
    result = llama("run", "llama3.2:1b", "Hi")
    assert result.exit_code == 1 and "Get it with `llama pull llama3.2:1b-instruct`" in result.stderr


def test_a_prompt_too_long_says_the_numbers(llama, tiny: str) -> None:
    result = llama("run", tiny, "--threads", "1", "--raw", input="x" * 3000)
    assert result.exit_code == 2 and "3001 tokens" in result.stderr and "holds 2048" in result.stderr


def test_tools_are_offered(llama, tiny: str, world: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    (world / "tools.json").write_text(json.dumps([tool]))
    plain = json.loads(llama("run", tiny, "Hi", *QUICK, "--json").stdout)
    told = json.loads(llama("run", tiny, "Hi", *QUICK, "--json", "--tools", "tools.json").stdout)
    assert told["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] and told["tool_calls"] == []


def test_ctrl_c_keeps_what_was_said_and_is_130(llama, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted():
        def show(piece: str) -> None:
            raise KeyboardInterrupt

        return show

    monkeypatch.setattr("llamakit.cli.run.stdout_shower", interrupted)
    result = llama("run", tiny, "Hi", "-n", "500", "-t", "0.9", "--seed", "1", "--threads", "1", "--raw")
    assert result.exit_code == 130 and "Traceback" not in result.output
