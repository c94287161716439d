"""Llama Stack's inference: wire requests -> `ChatRequest`, `CompletionRequest` and `EmbeddingRequest`.

What a field asks for and nothing here can give is refused when it would change the answer, and named as set
aside when it is a hint. The way back is in `llama_stack_answer.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llamakit.api.inference import ChatRequest, CompletionRequest, EmbeddingRequest, RequestContext
from llamakit.api.limits import LIMITS
from llamakit.api.llama_stack_content import LlamaStackContent, LlamaStackItems, to_text
from llamakit.api.llama_stack_messages import LlamaStackMessages, to_messages
from llamakit.api.llama_stack_sampling import (
    LlamaStackFormat,
    LlamaStackLogprobs,
    LlamaStackSampling,
    to_sampling,
)
from llamakit.api.llama_stack_tools import (
    LlamaStackPromptFormat,
    LlamaStackToolConfig,
    LlamaStackTools,
    to_choice,
    to_specs,
)
from llamakit.api.wire import FIRST, ModelName, Texts, Wire
from llamakit.core.errors import InvalidRequest


class LlamaStackGeneration(Wire):
    """Fields of every request that generates text."""

    model_id: ModelName
    sampling_params: LlamaStackSampling | None = None
    """Greedy when left out."""
    response_format: LlamaStackFormat | None = None
    logprobs: LlamaStackLogprobs | None = None


class LlamaStackChatFields(LlamaStackGeneration):
    """Fields of every request that answers conversations."""

    tools: LlamaStackTools | None = None
    tool_config: LlamaStackToolConfig | None = None


class LlamaStackChatRequest(LlamaStackChatFields):
    """Body of `POST /v1/inference/chat-completion`."""

    messages: LlamaStackMessages
    tool_choice: Literal["auto", "required", "none"] | None = None
    """Older form of `tool_config.tool_choice`."""
    tool_prompt_format: LlamaStackPromptFormat | None = None
    """A hint, set aside: a model is told of tools, and calls them, in its own format."""
    stream: bool | None = None


class LlamaStackChatBatchRequest(LlamaStackChatFields):
    """Body of `POST /v1/inference/batch-chat-completion`."""

    messages_batch: Annotated[list[LlamaStackMessages], FIRST]


class LlamaStackCompletionRequest(LlamaStackGeneration):
    """Body of `POST /v1/inference/completion`."""

    content: LlamaStackContent
    stream: bool | None = None


class LlamaStackCompletionBatchRequest(LlamaStackGeneration):
    """Body of `POST /v1/inference/batch-completion`."""

    content_batch: Annotated[list[LlamaStackContent], FIRST]


def _texts_or_items(value: Any) -> Literal["<texts>", "<items>"] | None:
    if not isinstance(value, list):
        return None
    return "<texts>" if value and isinstance(value[0], str) else "<items>"


LlamaStackContents = Annotated[
    Annotated[Texts, Tag("<texts>")] | Annotated[LlamaStackItems, Tag("<items>")],
    Discriminator(
        _texts_or_items,
        custom_error_type="contents",
        custom_error_message="must be an array of strings, or of objects of type text",
    ),
]


class LlamaStackEmbeddingsRequest(Wire):
    """Body of `POST /v1/inference/embeddings`."""

    model_id: ModelName
    contents: LlamaStackContents
    output_dimension: Annotated[int, Field(ge=1, lt=2**20)] | None = None
    """Length of the vectors, where the model can shorten them."""
    task_type: Literal["query", "document"] | None = None
    """A hint, set aside: the models here embed both alike."""
    text_truncation: Literal["none", "start", "end"] | None = None
    """Where a text that is too long is cut; `none` (default) refuses it."""


def to_chat(wire: LlamaStackChatRequest, *, request_id: str, salt: str = "") -> ChatRequest:
    """The house's request; raises `InvalidRequest` naming the field."""
    return _chat(wire, wire.messages, "messages", wire.tool_choice, RequestContext(id=request_id, salt=salt))


def to_chats(wire: LlamaStackChatBatchRequest, *, request_id: str, salt: str = "") -> tuple[ChatRequest, ...]:
    """One request per conversation; raises `InvalidRequest` naming the field."""
    _check_size(wire.messages_batch, "messages_batch")
    return tuple(
        _chat(wire, one, f"messages_batch[{index}]", None, RequestContext(id=f"{request_id}-{index}", salt=salt))
        for index, one in enumerate(wire.messages_batch)
    )


def to_completion(wire: LlamaStackCompletionRequest, *, request_id: str, salt: str = "") -> CompletionRequest:
    """The house's request; raises `InvalidRequest` naming the field."""
    return _completion(wire, wire.content, "content", RequestContext(id=request_id, salt=salt))


def to_completions(
    wire: LlamaStackCompletionBatchRequest, *, request_id: str, salt: str = ""
) -> tuple[CompletionRequest, ...]:
    """One request per text; raises `InvalidRequest` naming the field."""
    _check_size(wire.content_batch, "content_batch")
    return tuple(
        _completion(wire, one, f"content_batch[{index}]", RequestContext(id=f"{request_id}-{index}", salt=salt))
        for index, one in enumerate(wire.content_batch)
    )


def to_embedding(wire: LlamaStackEmbeddingsRequest, *, request_id: str, salt: str = "") -> EmbeddingRequest:
    """The house's request, its texts whole; raises `InvalidRequest` naming the field."""
    if not wire.contents or len(wire.contents) > LIMITS.inputs:
        raise InvalidRequest(f"contents must hold 1 to {LIMITS.inputs}, got {len(wire.contents)}", param="contents")
    texts = [
        to_text(item, f"contents[{index}]", "embedding models here read") for index, item in enumerate(wire.contents)
    ]
    for index, text in enumerate(texts):
        if not text:
            raise InvalidRequest(f"contents[{index}] must not be empty", param=f"contents[{index}]")
    return EmbeddingRequest(
        model=wire.model_id,
        inputs=tuple(texts),
        context=RequestContext(id=request_id, salt=salt),
        dimensions=wire.output_dimension,
    )


def set_aside(wire: LlamaStackChatRequest | LlamaStackChatBatchRequest) -> tuple[str, ...]:
    """Known fields that are accepted and have no effect here."""
    asked = {
        "tool_prompt_format": isinstance(wire, LlamaStackChatRequest) and wire.tool_prompt_format is not None,
        "tool_config.tool_prompt_format": wire.tool_config is not None
        and wire.tool_config.tool_prompt_format is not None,
    }
    return tuple(name for name, is_asked in asked.items() if is_asked)


def embedding_hints(wire: LlamaStackEmbeddingsRequest) -> tuple[str, ...]:
    """Known fields of an embedding that have no effect here."""
    return ("task_type",) if wire.task_type is not None else ()


def _chat(
    wire: LlamaStackChatFields, messages: Sequence[Wire], param: str, choice: str | None, context: RequestContext
) -> ChatRequest:
    specs = to_specs(wire.tools)
    return ChatRequest(
        model=wire.model_id,
        messages=to_messages(messages, param),
        context=context,
        sampling=to_sampling(wire.sampling_params, wire.response_format, wire.logprobs),
        tools=specs,
        tool_choice=to_choice(choice, wire.tool_config, specs),
    )


def _completion(
    wire: LlamaStackGeneration, content: str | Wire | Sequence[Wire], param: str, context: RequestContext
) -> CompletionRequest:
    return CompletionRequest(
        model=wire.model_id,
        prompt=to_text(content, param, "a completion continues"),
        context=context,
        sampling=to_sampling(wire.sampling_params, wire.response_format, wire.logprobs),
    )


def _check_size(batch: Sequence[object], param: str) -> None:
    if not 0 < len(batch) <= LIMITS.prompts:
        raise InvalidRequest(f"{param} must hold 1 to {LIMITS.prompts}, got {len(batch)}", param=param)
