"""Anthropic's Messages: wire request -> `ChatRequest`, to count or to answer.

What a field asks for and nothing here can give is refused when it would change the answer, and named as set
aside when it is a hint. The way back is in `anthropic_answer.py`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.anthropic_messages import (
    AnthropicTool,
    AnthropicToolChoice,
    CacheControl,
    InputMessage,
    SystemText,
    hints,
    to_choice,
    to_messages,
    to_tools,
)
from llamakit.api.inference import ChatRequest, RequestContext, TokenizeRequest, ToolChoice
from llamakit.api.limits import LIMITS
from llamakit.api.wire import FIRST, ModelName, Texts, Wire
from llamakit.core.errors import InvalidRequest
from llamakit.core.sampling import Constraint, SamplingParams


class RequestMetadata(Wire):
    """Who the request is for, in the client's own words."""

    user_id: str | None = None


class JsonSchemaFormat(Wire):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Wire):
    """How the answer is to look."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    """A hint, set aside."""
    format: JsonSchemaFormat | None = None


class ThinkingConfig(Wire):
    """Whether a model is to think apart from its answer; set aside, as Llama models do not."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


class CountTokensRequest(Wire):
    """Body of `POST /v1/messages/count_tokens`."""

    model: ModelName
    """Name of the model, as `GET /v1/models` lists it."""
    messages: Annotated[list[InputMessage], FIRST]
    """The conversation; where it ends with the assistant's turn, the answer goes on from there."""
    system: SystemText | None = None
    tools: Annotated[list[AnthropicTool], FIRST] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: ThinkingConfig | None = None
    cache_control: CacheControl | None = None
    output_config: OutputConfig | None = None
    speed: Literal["standard", "fast"] | None = None


class MessagesRequest(CountTokensRequest):
    """Body of `POST /v1/messages`."""

    max_tokens: Annotated[int, Field(ge=0, lt=2**31)]
    """Most tokens of the answer; what the context does not hold is not asked for."""
    metadata: RequestMetadata | None = None
    stop_sequences: Texts | None = None
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    container: str | dict[str, Any] | None = None
    """Refused: no containers run here."""
    mcp_servers: Annotated[list[dict[str, Any]], FIRST] | None = None
    """Refused: this route calls no servers."""
    context_management: dict[str, Any] | None = None
    """Refused: conversations are not shortened here."""
    service_tier: Literal["auto", "standard_only"] | None = None
    inference_geo: str | None = None


def to_request(wire: MessagesRequest, *, request_id: str, salt: str = "") -> ChatRequest:
    """The house's request; raises `InvalidRequest` naming the field."""
    for param, asked in (
        ("container", wire.container),
        ("mcp_servers", wire.mcp_servers),
        ("context_management", wire.context_management),
    ):
        if asked:
            raise InvalidRequest(f"{param}: nothing here can do that; leave it out", param=param)
    tools = to_tools(wire.tools)
    choice, parallel = to_choice(wire.tool_choice, tools)
    messages = to_messages(wire.system, wire.messages)
    goes_on = messages[-1].role == "assistant"
    constraint = _constraint(wire)
    if constraint is not None and choice.mode in ("required", "named"):
        raise InvalidRequest("output_config.format and a forced tool call exclude each other", param="tool_choice")
    asked = {
        "max_tokens": wire.max_tokens,
        "temperature": wire.temperature,
        "top_k": wire.top_k,
        "top_p": wire.top_p,
        "stop": tuple(wire.stop_sequences) if wire.stop_sequences else None,
        "constraint": constraint,
    }
    sampling = {name: value for name, value in asked.items() if value is not None}
    try:
        SamplingParams(**sampling)
    except InvalidRequest as fault:
        raise InvalidRequest(str(fault), param="stop_sequences" if fault.param == "stop" else fault.param) from None
    return ChatRequest(
        model=wire.model,
        messages=messages,
        context=RequestContext(id=request_id, salt=salt, wants_progress=bool(wire.stream)),
        sampling=sampling,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
    )


def to_tokenize(wire: CountTokensRequest) -> TokenizeRequest:
    """The same conversation, to be counted as it would be answered; raises `InvalidRequest`."""
    tools = to_tools(wire.tools)
    choice, _ = to_choice(wire.tool_choice, tools)
    messages = to_messages(wire.system, wire.messages)
    goes_on = messages[-1].role == "assistant"
    return TokenizeRequest(
        model=wire.model,
        messages=messages,
        tools=() if choice == ToolChoice(mode="none") else tools,
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
    )


def set_aside(wire: CountTokensRequest) -> tuple[str, ...]:
    """Known fields that ask for something which is accepted and has no effect here."""
    asked = {
        "thinking": wire.thinking is not None and wire.thinking.type != "disabled",
        "cache_control": wire.cache_control is not None,
        "output_config.effort": wire.output_config is not None and wire.output_config.effort is not None,
        "speed": wire.speed == "fast",
    }
    if isinstance(wire, MessagesRequest):
        asked |= {
            "metadata": wire.metadata is not None,
            "service_tier": wire.service_tier == "standard_only",
            "inference_geo": wire.inference_geo is not None,
        }
    top = (name for name, is_asked in asked.items() if is_asked)
    return (*top, *hints(wire.system, wire.messages, wire.tools))


def _constraint(wire: MessagesRequest) -> Constraint | None:
    if wire.output_config is None or wire.output_config.format is None:
        return None
    source = json.dumps(wire.output_config.format.schema_, ensure_ascii=False)
    if len(source.encode()) > LIMITS.schema_bytes:
        param = "output_config.format.schema"
        raise InvalidRequest(f"{param} has more than {LIMITS.schema_bytes} bytes", param=param)
    return Constraint(kind="json_schema", source=source)
