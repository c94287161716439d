"""The header format: Meta's published prompts, the hub's flavour, training masks, and nobody's forged roles."""

from __future__ import annotations

from llamakit.core.messages import ToolCall, ToolSpec, assistant, system, tool_result, user
from llamakit.text.formats.llama3 import VARIANTS, Llama3Format
from llamakit.text.tokenizer import Tokenizer

WEATHER = ToolSpec(
    name="get_weather", description="Get weather", parameters={"properties": {"city": {"type": "string"}}}
)
CALL = ToolCall(id="call_1", name="get_weather", arguments='{"city": "Bern"}')


def shown(tokenizer: Tokenizer, ids: list[int] | tuple[int, ...]) -> str:
    """Ids as text, control tokens spelled out."""
    names = {id: name for name, id in reversed(list(tokenizer.special.items()))}
    return "".join(names[id] if id in names else tokenizer.token_bytes(id).decode() for id in ids)


def test_single_hello(llama3: Tokenizer) -> None:
    prompt = Llama3Format(llama3, VARIANTS[1]).render([user("Hello")])
    assert prompt.ids == (128000, 128006, 882, 128007, 271, 9906, 128009, 128006, 78191, 128007, 271)
    assert prompt.stop_ids == (128001, 128008, 128009)


def test_training_render_begins_with_the_generation_render(small: Tokenizer) -> None:
    form = Llama3Format(small, VARIANTS[2])
    messages = [
        system("Be kind."),
        user("Weather?"),
        assistant("", CALL),
        tool_result(CALL, '"25 C"'),
        assistant("25 C."),
    ]
    ids, mask = form.render_training(messages, [WEATHER])
    for place in (2, 4):
        prompt = form.render(messages[:place], tools=[WEATHER]).ids
        assert tuple(ids[: len(prompt)]) == prompt
    trained = [id for id, own in zip(ids, mask, strict=True) if own]
    assert shown(small, trained) == '<|python_tag|>[get_weather(city="Bern")]<|eot_id|>25 C.<|eot_id|>'
