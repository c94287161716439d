"""Token ids over the wire: `/tokenize`, `/detokenize`, `/tokenizer_info`, with vLLM's field names.

Evaluation harnesses use this trio in place of a tokenizer of their own.
"""

from __future__ import annotations

from typing import Any

from llamakit.api.inference import TokenizeRequest, TokenizerInfo, Tokens
from llamakit.api.openai_messages import WireMessages, WireTools, to_messages, to_tools
from llamakit.api.wire import ModelName, TokenIds, Wire
from llamakit.core.errors import InvalidRequest


class WireTokenizeRequest(Wire):
    """Body of `POST /tokenize`: a prompt, or messages."""

    model: ModelName | None = None
    """May be left out where one model is served."""
    prompt: str | None = None
    messages: WireMessages | None = None
    tools: WireTools | None = None
    add_special_tokens: bool | None = None
    """Begin a prompt with the beginning-of-text token; true by default."""
    add_generation_prompt: bool | None = None
    """Open the assistant's turn after the messages; true by default."""
    continue_final_message: bool | None = None
    parse_special: bool | None = None
    """Take spelled special tokens of the prompt as such; by default they are plain text (extension)."""
    return_token_strs: bool | None = None
    """Return the text of each token too."""


class WireTokens(Wire):
    """The token ids."""

    model: str
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class WireDetokenizeRequest(Wire):
    """Body of `POST /detokenize`."""

    model: ModelName | None = None
    tokens: TokenIds


class WireDetokenized(Wire):
    """The text, special tokens by name."""

    prompt: str


class SpecialToken(Wire):
    """A token that is no text."""

    id: int
    content: str


class WireTokenizerInfo(Wire):
    """Facts about a tokenizer."""

    model: str
    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    bos_token: str | None
    bos_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None
    pad_token: str | None
    chat_template: str | None
    """Always null: chats are rendered by code, and `POST /tokenize` with messages shows the result."""
    eos_tokens: list[SpecialToken]
    """Every token that ends an answer."""


def to_request(wire: WireTokenizeRequest, model: str) -> TokenizeRequest:
    """The house's request; raises `InvalidRequest` unless exactly one of prompt and messages is there."""
    if (wire.prompt is None) == (wire.messages is None):
        raise InvalidRequest("send either prompt or messages", param="prompt")
    go_on = bool(wire.continue_final_message)
    if go_on and (wire.add_generation_prompt or wire.messages is None or wire.messages[-1:] == []):
        raise InvalidRequest(
            "continue_final_message needs messages, and no add_generation_prompt", param="continue_final_message"
        )
    return TokenizeRequest(
        model=model,
        prompt=wire.prompt,
        messages=() if wire.messages is None else to_messages(wire.messages),
        tools=to_tools(wire.tools),
        add_special_tokens=wire.add_special_tokens is not False,
        add_generation_prompt=not go_on if wire.add_generation_prompt is None else wire.add_generation_prompt,
        continue_final_message=go_on,
        parse_special=bool(wire.parse_special),
    )


def from_tokens(wire: WireTokenizeRequest, model: str, tokens: Tokens, context_length: int) -> dict[str, Any]:
    """The wire form of token ids."""
    made = {
        "model": model,
        "count": len(tokens.ids),
        "max_model_len": context_length,
        "tokens": list(tokens.ids),
        "token_strs": list(tokens.texts) if wire.return_token_strs else None,
    }
    return made


def from_info(info: TokenizerInfo) -> dict[str, Any]:
    """The wire form of facts about a tokenizer."""
    eos = info.eos[0] if info.eos else (None, None)
    bos = info.bos or (None, None)
    return {
        "model": info.model,
        "tokenizer_class": info.kind,
        "vocab_size": info.vocab_size,
        "model_max_length": info.context_length,
        "bos_token": bos[1],
        "bos_token_id": bos[0],
        "eos_token": eos[1],
        "eos_token_id": eos[0],
        "pad_token": None,
        "chat_template": None,
        "eos_tokens": [{"id": token, "content": name} for token, name in info.eos],
    }
