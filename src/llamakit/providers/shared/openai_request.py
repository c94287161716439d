"""The house's requests -> bodies of OpenAI's wire, as far as a vendor takes them.

What a vendor does not take and would change the answer is refused here, by the name of the field. Hints that only
serve the work (priority, keep_alive, progress) are left out where a vendor has no room for them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from llamakit.api.inference import ChatRequest, CompletionRequest, RequestContext, ToolChoice
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ImagePart, Message, TextPart, ToolSpec
from llamakit.core.sampling import Constraint, SamplingParams
from llamakit.providers.shared.vendors import Vendor

_ALWAYS = frozenset({"max_tokens", "temperature", "top_p", "stop"})
_USUAL = {"stop_ids": "stop_token_ids", "include_stop": "include_stop_str_in_output"}
_DEFAULTS = {field.name: field.default for field in fields(SamplingParams)}


def chat_body(request: ChatRequest, vendor: Vendor, model: str, *, stream: bool) -> dict[str, Any]:
    """Body of `chat/completions`; raises `InvalidRequest`."""
    body: dict[str, Any] = {"model": model, "messages": [_message(message, vendor) for message in request.messages]}
    body |= _sampling(request.sampling, vendor)
    logprobs = request.sampling.get("logprobs")
    if logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": logprobs}
    if request.tools:
        _need(vendor, "tools", "tools")
        body["tools"] = [_tool(tool) for tool in request.tools]
        body |= _tool_choice(request.tool_choice)
        if not request.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if request.continue_final_message or not request.add_generation_prompt:
        _need(vendor, "continue", "continue_final_message")
        body |= {
            "continue_final_message": request.continue_final_message,
            "add_generation_prompt": request.add_generation_prompt,
        }
    return body | _context(request.context, vendor, stream=stream) | _stream(vendor, stream=stream)


def completion_body(
    request: CompletionRequest, vendor: Vendor, model: str, *, stream: bool, max_tokens: int
) -> dict[str, Any]:
    """Body of `completions`; `max_tokens` stands in where none was asked for. Raises `InvalidRequest`."""
    _need(vendor, "completions", "prompt")
    prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    body: dict[str, Any] = {"model": model, "prompt": prompt, "max_tokens": max_tokens}
    body |= _sampling({**request.sampling, "max_tokens": max_tokens}, vendor, max_tokens_name="max_tokens")
    if request.sampling.get("logprobs") is not None:
        body["logprobs"] = request.sampling["logprobs"]
    if request.suffix is not None:
        _need(vendor, "suffix", "suffix")
        body["suffix"] = request.suffix
    if not request.add_special_tokens and isinstance(request.prompt, str):
        _need(vendor, "add_special_tokens", "add_special_tokens")
        body["add_special_tokens"] = False
    return body | _context(request.context, vendor, stream=stream) | _stream(vendor, stream=stream)


def to_messages(messages: Sequence[Message], vendor: Vendor) -> list[dict[str, Any]]:
    """Messages on the wire."""
    return [_message(message, vendor) for message in messages]


def to_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tools on the wire."""
    return [_tool(tool) for tool in tools]


def _need(vendor: Vendor, what: str, param: str) -> None:
    if what not in vendor.takes:
        hint = "leave it out, or ask another provider"
        raise InvalidRequest(f"{vendor.title} does not take {param}; {hint}", param=param)


def _sampling(asked: Mapping[str, Any], vendor: Vendor, *, max_tokens_name: str | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, value in asked.items():
        if name == "constraint":
            body |= _constraint(value, vendor) if value is not None else {}
            continue
        if value == _DEFAULTS[name] and name not in ("temperature", "logit_bias"):
            continue  # Says nothing that is not so without it.
        if name not in _ALWAYS:
            if name == "logit_bias" and not value:
                continue
            _need(vendor, name, name)
        match name:
            case "logprobs":
                continue
            case "max_tokens":
                body[max_tokens_name or vendor.max_tokens] = value
            case "logit_bias":
                body[name] = {str(token): bias for token, bias in value.items()}
            case "stop" | "stop_ids":
                body[_wire_name(name, vendor)] = list(value)
            case _:
                body[_wire_name(name, vendor)] = value
    return body


def _wire_name(name: str, vendor: Vendor) -> str:
    return vendor.renames.get(name) or _USUAL.get(name, name)


def _constraint(constraint: Constraint, vendor: Vendor) -> dict[str, Any]:
    if constraint.kind not in vendor.takes:
        raise InvalidRequest(f"{vendor.title} cannot follow a {constraint.kind}", param="response_format")
    match constraint.kind:
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "json_schema":
            named = {"name": "answer", "schema": json.loads(constraint.source), "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": named}}
        case "choice":
            return {"structured_outputs": {"choice": json.loads(constraint.source)}}
        case kind:
            return {"structured_outputs": {kind: constraint.source}}


def _context(context: RequestContext, vendor: Vendor, *, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if context.salt and "salt" in vendor.takes:
        body["cache_salt"] = context.salt
    if context.priority and "priority" in vendor.takes:
        body["priority"] = context.priority
    if vendor.manages:
        if context.keep_alive is not None:
            body["keep_alive"] = float(context.keep_alive)
        if context.wants_progress and stream:
            body["return_progress"] = True
    return body


def _stream(vendor: Vendor, *, stream: bool) -> dict[str, Any]:
    if not stream:
        return {}
    return {"stream": True, **({"stream_options": {"include_usage": True}} if vendor.streams_usage else {})}


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    match choice.mode:
        case "auto":
            return {}
        case "named":
            return {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
        case mode:
            return {"tool_choice": mode}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    function["parameters"] = dict(tool.parameters) or {"type": "object", "properties": {}}
    return {"type": "function", "function": function | ({"strict": True} if tool.strict else {})}


def _message(message: Message, vendor: Vendor) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": _content(message, vendor)}
    if message.role == "tool":
        body["tool_call_id"] = message.tool_call_id or ""
    elif message.name is not None:
        body["name"] = message.name
    if message.tool_calls:
        body["content"] = body["content"] or None
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return body


def _content(message: Message, vendor: Vendor) -> str | list[dict[str, Any]]:
    if all(isinstance(part, TextPart) for part in message.content):
        return message.text
    _need(vendor, "images", "images")
    parts: list[dict[str, Any]] = []
    for part in message.content:
        match part:
            case TextPart():
                parts.append({"type": "text", "text": part.text})
            case ImagePart():
                url = f"data:{part.mime};base64,{base64.b64encode(part.data).decode()}"
                parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts
