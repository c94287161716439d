"""The system block of Llama 3.1 and later: environment, built-in tools, dates, custom tools, own text.

Decides where the custom tools are told and what the block looks like in Meta's form and in that of the
hub's templates (`model_facts`: the two differ in order, blank lines and dates). Knows no ids.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import ToolSpec
from llamakit.text.formats.format import FormatOptions, ToolStyle
from llamakit.text.formats.tool_prompts import (
    hf_instructions,
    json_instructions,
    list_instructions,
    list_question,
    tagged_instructions,
)

# Month names are part of the prompt, so they must not follow the machine's locale.
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_HF_DATE: Final = datetime.date(2024, 7, 26)
_ENVIRONMENT: Final = "Environment: ipython"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tooling:
    """Tools of one conversation and how the model is told of them; every choice made."""

    tools: tuple[ToolSpec, ...]
    style: ToolStyle
    place: Literal["system", "user"]
    builtin: tuple[str, ...]
    environment: bool
    """Whether the block opens with `Environment: ipython`."""
    dates: bool


def resolve_tooling(tools: Sequence[ToolSpec], options: FormatOptions, own_style: ToolStyle) -> Tooling:
    """Fill the options' gaps from what the model was trained on."""
    hf = options.flavour == "hf"
    if hf and options.tool_style not in (None, "json"):
        raise InvalidRequest(
            f"the hub's templates ask for calls as JSON; tool_style {options.tool_style!r} needs flavour 'meta'",
            param="tools",
        )
    style: ToolStyle = "json" if hf else options.tool_style or own_style
    environment = options.environment_ipython
    if environment is None:
        custom = bool(tools) and (hf or style != "python_list")
        environment = custom or bool(options.builtin_tools)
    return Tooling(
        tools=tuple(tools),
        style=style,
        place=options.tools_in or ("system" if style == "python_list" else "user"),
        builtin=options.builtin_tools,
        environment=environment,
        dates=_wants_dates(options, bool(tools) or bool(options.builtin_tools)),
    )


def _wants_dates(options: FormatOptions, any_tools: bool) -> bool:
    if options.flavour == "hf":
        return True
    if options.date_block == "always" and options.today is None:
        raise InvalidRequest("date_block 'always' needs a date in `today`")
    return options.today is not None and (
        options.date_block == "always" or (options.date_block == "with_tools" and any_tools)
    )


def system_text(own: str | None, tooling: Tooling, options: FormatOptions) -> str | None:
    """Content of the system message; None where there is none. `own` is the caller's system text."""
    if options.flavour == "hf":
        return _hf_system(own or "", tooling, options)
    body = "\n\n".join(part for part in (_instructions(tooling, "system"), own) if part)
    head = _meta_head(tooling, options)
    if not head:
        return body if body or own is not None else None
    if head == [_ENVIRONMENT] and not body:
        return _ENVIRONMENT
    return "\n".join(head) + "\n" + (f"\n{body}\n" if body else "")


def _meta_head(tooling: Tooling, options: FormatOptions) -> list[str]:
    lines = [_ENVIRONMENT] if tooling.environment else []
    listed = _listed(tooling)
    if listed:
        lines.append(f"Tools: {listed}")
    if tooling.dates and options.today is not None:
        # Meta's own examples leave this line blank when no tools are listed.
        if lines and not listed:
            lines.append("")
        lines += [f"Cutting Knowledge Date: {options.knowledge_cutoff}", f"Today Date: {meta_date(options.today)}"]
    return lines


def _hf_system(own: str, tooling: Tooling, options: FormatOptions) -> str:
    environment = f"{_ENVIRONMENT}\n" if tooling.environment else ""
    listed = f"Tools: {_listed(tooling)}\n\n" if tooling.builtin else ""
    dates = f"Cutting Knowledge Date: {options.knowledge_cutoff}\nToday Date: {hf_date(options.today or _HF_DATE)}\n\n"
    told = hf_instructions(tooling.tools, in_system=True) if tooling.tools and tooling.place == "system" else ""
    return environment + listed + dates + told + own.strip()


def _listed(tooling: Tooling) -> str:
    """The code interpreter comes with the environment and is never listed."""
    return ", ".join(name for name in tooling.builtin if name != "code_interpreter")


def _instructions(tooling: Tooling, place: Literal["system", "user"]) -> str:
    if not tooling.tools or tooling.place != place:
        return ""
    match tooling.style:
        case "json":
            return json_instructions(tooling.tools)
        case "function_tag":
            return tagged_instructions(tooling.tools)
        case "python_list":
            return list_instructions(tooling.tools)


def tool_message(tooling: Tooling, options: FormatOptions) -> str | None:
    """Text of the user message that tells the tools before the conversation begins, if there is one."""
    if is_in_question(tooling, options):
        return None
    return _instructions(tooling, "user") or None


def is_in_question(tooling: Tooling, options: FormatOptions) -> bool:
    """Whether the tools are told inside the first user message."""
    told = bool(tooling.tools) and tooling.place == "user"
    return told and (options.flavour == "hf" or tooling.style == "python_list")


def tool_question(question: str, tooling: Tooling, options: FormatOptions) -> str:
    """The first user message with the tools told in it."""
    if options.flavour == "hf":
        return hf_instructions(tooling.tools, in_system=False) + question
    return list_question(tooling.tools, question)


def meta_date(day: datetime.date) -> str:
    """`21 September 2024`."""
    return f"{day.day:02d} {_MONTHS[day.month - 1]} {day.year}"


def hf_date(day: datetime.date) -> str:
    """`21 Sep 2024`."""
    return f"{day.day:02d} {_MONTHS[day.month - 1][:3]} {day.year}"
