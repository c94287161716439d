"""The chat: commands, several lines, Ctrl-C, and what is kept of a conversation; with a small random model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tiny import tiny_checkpoint

from llamakit.cli.chat import Chat, run_chat
from llamakit.cli.lines import read_message
from llamakit.cli.slash import WORDS, obey
from llamakit.cli.speaking import as_json, speak
from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.core.messages import Done, Finish, ToolCallDelta, Usage, assistant, user
from llamakit.hub import store
from llamakit.hub.modelfile import Modelfile
from llamakit.runtime.llm import LLM
from llamakit.runtime.opening import LoadOptions


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model on the disk."""
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", context_length=2048)


@pytest.fixture
def chat(tiny: Path) -> Iterator[Chat]:
    said: list[str] = []
    options = LoadOptions(prompt_format="llama3.2", threads=1)
    made = Chat(
        llm=LLM.load(str(tiny), options=options),
        load=lambda name: LLM.load(name, options=options),
        show=said.append,
        sampling={"max_tokens": 8, "temperature": 0.0, "ignore_eos": True},
    )
    yield made
    made.llm.close()


def typed(*lines: str | type[BaseException]):
    """A reader that gives these lines, then the end."""
    rest = iter(lines)

    def read(prompt: str) -> str:
        line = next(rest, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return read


def test_a_conversation_grows_and_is_cleared(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(chat, typed("Hello", "", "   ", "Again", "/clear", "Third", "/bye", "never said"))
    assert [message.role for message in chat.messages] == ["user", "assistant"]
    assert chat.messages[0] == user("Third")
    assert "Ctrl-D to leave" in capsys.readouterr().err


def test_ctrl_c_at_the_prompt_and_ctrl_d(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(chat, typed(KeyboardInterrupt, "Hello"))
    assert len(chat.messages) == 2
    assert "Ctrl-D or /bye leaves" in capsys.readouterr().err


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    pieces: list[str] = []

    def interrupt(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 2:
            raise KeyboardInterrupt

    chat.show = interrupt
    chat.sampling |= {"max_tokens": 500}
    run_chat(chat, typed("Hello", "/show messages"))
    assert "(stopped)" in capsys.readouterr().err
    assert chat.messages[1].text.startswith(pieces[0])
    deadline = time.monotonic() + 10
    while chat.llm.stats().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert chat.llm.stats().running == 0, "the engine stops too"
    assert chat.llm.stats().generated_tokens < 400


def test_a_message_too_long_leaves_the_conversation_as_it_was(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(chat, typed("Hello", "x" * 5000))
    assert len(chat.messages) == 2
    told = capsys.readouterr().err
    assert "holds 2048" in told and "/clear starts a new conversation" in told


def test_errors_do_not_end_the_chat(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(chat, typed("/nope", "/set parameter temperature hot", "/load nothing-like-it", "Hello"))
    told = capsys.readouterr().err
    assert (
        "no command /nope" in told and "temperature must be a number" in told and "no model 'nothing-like-it'" in told
    )
    assert len(chat.messages) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one line"], "one line"),
        (['"""first', "second", 'third"""'], "first\nsecond\nthird"),
        (['"""all on one"""'], "all on one"),
        (['"""', "a", "", "b", '"""'], "\na\n\nb\n"),
        (['/set system """be', 'brief"""'], "/set system be\nbrief"),
        (['say """this"""'], 'say """this"""'),
    ],
)
def test_several_lines(lines: list[str], message: str) -> None:
    assert read_message(typed(*lines)) == message


def test_an_unclosed_message_is_the_end(chat: Chat) -> None:
    with pytest.raises(EOFError):
        read_message(typed('"""never', "closed"))


def test_set_parameters(chat: Chat) -> None:
    for line in ("/set parameter temperature 0.5", "/set parameter num_predict 3", "/set parameter stop END",
                 "/set parameter stop two words", "/set parameter seed 7"):  # fmt: skip
        assert obey(chat, line)
    assert chat.sampling["temperature"] == 0.5 and chat.sampling["max_tokens"] == 3 and chat.sampling["seed"] == 7
    assert chat.sampling["stop"] == ("END", "two words")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/set parameter", "needs a name and a value"),
        ("/set parameter seed", "seed needs a value"),
        ("/set parameter temprature 1", "nearest: 'temperature'"),
        ("/set parameter temperature 1000", r"temperature must be in"),
        ("/set parameter num_ctx 100", "the context is fixed while a model is loaded"),
        ("/set nonsense", "/set knows parameter, system"),
        ("/set format xml", "/set knows"),
        ("/set system", "/set system needs a text"),
        ("/show nonsense", "/show knows info"),
        ("/save", "/save needs a name"),
        ("/save llama3.2", "already known"),
        ("/save ../x", "the name of a created model is"),
        ("/load", "/load needs the name"),
        ("/sett x", "no command /sett; nearest: '/set'"),
    ],
)
def test_bad_commands_are_refused_and_change_nothing(chat: Chat, line: str, told: str) -> None:
    before = (dict(chat.sampling), chat.system, list(chat.messages), chat.llm)
    with pytest.raises((InvalidRequest, UnknownModel), match=told):
        obey(chat, line)
    assert (chat.sampling, chat.system, chat.messages, chat.llm) == before


def test_format_and_system_come_and_go(chat: Chat) -> None:
    for line in ("/set format json", "/set system Be brief.", "/set verbose"):
        obey(chat, line)
    assert chat.sampling["constraint"].kind == "json_object" and chat.system == "Be brief." and chat.is_verbose
    for line in ("/set noformat", "/set nosystem", "/set quiet"):
        obey(chat, line)
    assert "constraint" not in chat.sampling and chat.system is None and not chat.is_verbose


def test_verbose_says_tokens_and_seconds(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    run_chat(chat, typed("/set verbose", "Hello"))
    told = capsys.readouterr().err
    assert "prompt tokens" in told and "first token after" in told and "8 tokens in" in told
    assert "(cut at the token limit)" in told


def test_show(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.system, chat.messages = "Be brief.", [user("Hi"), assistant("Yes?")]
    for line in ("/show", "/show system", "/show parameters", "/show messages", "/show licence", "/?", "/help"):
        assert obey(chat, line)
    captured = capsys.readouterr()
    for fact in (
        "94,528",
        "2,048 tokens",
        "llama3.2",
        "float32 on cpu",
        "Be brief.",
        "max_tokens",
        "Yes?",
        "not known",
    ):
        assert fact in captured.out
    assert captured.err.count("/set parameter NAME VALUE") == 2


def test_saving_makes_a_model_that_begins_there(chat: Chat, world: Path, tiny: Path) -> None:
    run_chat(chat, typed("/set system Be brief.", "/set parameter top_k 5", "Hello", "/save brief", "/show modelfile"))
    recipe = store.load(world / "home", "brief").recipe
    assert recipe.base == str(tiny) and recipe.system == "Be brief."
    assert dict(recipe.parameters) == {"max_tokens": 8, "temperature": 0.0, "top_k": 5}
    assert [role for role, _ in recipe.messages][:1] == ["user"]
    obey(chat, "/load brief")
    assert chat.llm.name == "brief"
    chat.reply("Go on")
    with pytest.raises(InvalidRequest, match="cannot be built on itself"):
        obey(chat, "/save brief")


def test_leaving_words(chat: Chat) -> None:
    assert [obey(chat, word) for word in ("/bye", "/exit", "/quit")] == [False] * 3


def test_the_words_that_are_completed_are_commands(chat: Chat) -> None:
    for word in WORDS:
        if word.split()[0] not in ("/save", "/load", "/bye") and word not in ("/set parameter", "/set system"):
            assert obey(chat, word)


def test_an_answer_for_programs(chat: Chat) -> None:
    spoken = speak(chat.llm.stream([user("Hi")], sampling=chat.sampling), lambda piece: None)
    told = as_json("m", spoken)
    assert told["finish_reason"] == "length" and told["usage"]["completion_tokens"] == 8
    assert told["timings"]["total_s"] >= told["timings"]["first_token_s"] > 0


def test_tool_calls_are_shown_one_a_line() -> None:
    pieces: list[str] = []
    events = [
        ToolCallDelta(index=0, id="a", name="f", arguments='{"x":'),
        ToolCallDelta(index=0, arguments="1}"),
        ToolCallDelta(index=1, id="b", name="g", arguments="{}"),
        Finish(reason="tool_calls"),
        Done(usage=Usage()),
    ]
    spoken = speak(iter(events), pieces.append)
    assert "".join(pieces) == 'f {"x":1}\ng {}'
    assert as_json("m", spoken)["tool_calls"] == [
        {"name": "f", "arguments": '{"x":1}'},
        {"name": "g", "arguments": "{}"},
    ]


def test_a_recipe_of_nothing(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.sampling = {}
    obey(chat, "/show modelfile")
    assert capsys.readouterr().out.startswith("FROM /")
    assert Modelfile(base="x").sampling() == {}
