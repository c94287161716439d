"""Prompt formats by example: small conversations, rendered as the model sees them.

Control tokens appear by their names, everything else as its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamakit.core.config import data_home
from llamakit.core.errors import InvalidRequest, LlamakitError, UnknownModel
from llamakit.core.messages import Message, ToolCall, ToolSpec, assistant, system, tool_result, user
from llamakit.hub import embedded, names
from llamakit.hub.locate import Located, locate
from llamakit.hub.names import ModelRef
from llamakit.text.formats.format import PromptFormat
from llamakit.text.tokenizer import Tokenizer

_CALL = ToolCall(id="call_1", name="get_weather", arguments='{"city": "Oslo"}')
_TOOL = ToolSpec(
    name="get_weather",
    description="Current weather of a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Name"}},
        "required": ["city"],
    },
)
# Title, messages, tools.
_CHATS: tuple[tuple[str, tuple[Message, ...], tuple[ToolSpec, ...]], ...] = (
    ("A question", (user("What is the capital of Norway?"),), ()),
    (
        "A system text and a second turn",
        (system("Answer in one word."), user("Capital of Norway?"), assistant("Oslo"), user("And of Sweden?")),
        (),
    ),
    ("A tool on offer", (user("What is the weather in Oslo?"),), (_TOOL,)),
    (
        "A call and its result",
        (user("What is the weather in Oslo?"), assistant("", _CALL), tool_result(_CALL, '{"celsius": 4}')),
        (_TOOL,),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One rendered conversation."""

    title: str
    text: str
    ids: tuple[int, ...]


def render_examples(model: str, tokenizer_of: str | None) -> tuple[str, list[Example]]:
    """The name of the model's prompt format and the examples it has words for.

    Renders with the model's own tokenizer where it is here, with that of `tokenizer_of` if given, else, for the
    Llama 3 families, with the one of the package. Raises `UnknownModel` when none fits.
    """
    ref = names.resolve(model, home=data_home())
    if ref.model is not None and ref.model.prompt_format is None:
        raise InvalidRequest(f"{ref.model.name} has no prompt format: {ref.model.not_yet}")
    located = _here(ref)
    tokenizer = _tokenizer(ref, located, tokenizer_of)
    prompt_format = _format(ref, located, tokenizer)
    examples: list[Example] = []
    for title, messages, tools in _CHATS:
        if tools and not prompt_format.supports_tools:
            continue
        try:
            ids = prompt_format.render(messages, tools=tools).ids
        except InvalidRequest:
            # Not every format has words for every conversation: guards take no system text.
            continue
        examples.append(Example(title=title, text=spell(tokenizer, ids), ids=ids))
    return prompt_format.name, examples


def spell(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Ids as text, control tokens by name."""
    by_id = {token: name for name, token in tokenizer.special.items()}
    pieces: list[bytes] = []
    for token in ids:
        pieces.append(by_id[token].encode() if tokenizer.is_special(token) else tokenizer.token_bytes(token))
    return b"".join(pieces).decode("utf-8", errors="replace")


def _here(ref: ModelRef) -> Located | None:
    try:
        return locate(ref)
    except LlamakitError:
        return None


def _tokenizer(ref: ModelRef, located: Located | None, tokenizer_of: str | None) -> Tokenizer:
    from llamakit.checkpoints.open import open_checkpoint
    from llamakit.text.tokenizer import load_tokenizer

    if tokenizer_of is not None:
        other = names.resolve(tokenizer_of, home=data_home())
        if other.source == "path" and other.path is not None and not (other.path / "config.json").is_file():
            return load_tokenizer(other.path)
        located = locate(other)
    if located is None:
        package = embedded.find(embedded.DEFAULT)
        if package is None or not (
            ref.model and (ref.model.prompt_format or "").startswith(("llama3", "guard2", "guard3"))
        ):
            raise UnknownModel(
                f"{ref.name} is not on this machine, and its format needs its tokenizer. Get it with "
                f"`llama pull {ref.name}`, or name a model or directory that has one with --tokenizer",
                name=ref.name,
            )
        return load_tokenizer(package)
    with open_checkpoint(located.path) as reader:
        source = reader.tokenizer_source()
    if source is None:
        raise UnknownModel(f"{located.path} has no tokenizer; name one with --tokenizer", name=ref.name)
    return load_tokenizer(source)


def _format(ref: ModelRef, located: Located | None, tokenizer: Tokenizer) -> PromptFormat:
    from llamakit.text.formats.resolve import detect_format, resolve_format

    named = located.prompt_format if located else (ref.model.prompt_format if ref.model else None)
    if named is not None:
        return resolve_format(named, tokenizer)
    assert located is not None, ref
    from llamakit.checkpoints.open import open_checkpoint

    with open_checkpoint(located.path) as reader:
        config, template = reader.config(), reader.metadata().chat_template
    return resolve_format(detect_format(tokenizer, name=ref.name, chat_template=template, config=config), tokenizer)
