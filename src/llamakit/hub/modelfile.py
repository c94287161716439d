"""Modelfiles: a model, and what it starts every conversation with, as a small text file.

    FROM llama3.2:1b
    PARAMETER temperature 0.2
    SYSTEM You are terse.

Understood are FROM, PARAMETER, SYSTEM, ADAPTER, MESSAGE and LICENSE, in Ollama's syntax. TEMPLATE is refused:
prompt formats here are tested code, chosen by the model. Knows text, not where models live.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from llamakit.core.config import nearest
from llamakit.core.errors import InvalidRequest

MAX_BYTES = 1 << 20
INSTRUCTIONS = ("FROM", "PARAMETER", "SYSTEM", "ADAPTER", "MESSAGE", "LICENSE")
MESSAGE_ROLES = ("system", "user", "assistant")
_QUOTES = '"""'

Kind = Literal["int", "float", "text"]

# Modelfile spelling -> (our name, kind). Our names are fields of SamplingParams, and `context`.
PARAMETERS: dict[str, tuple[str, Kind]] = {
    "num_ctx": ("context", "int"),
    "num_predict": ("max_tokens", "int"),
    "repeat_penalty": ("repetition_penalty", "float"),
    "temperature": ("temperature", "float"),
    "top_k": ("top_k", "int"),
    "top_p": ("top_p", "float"),
    "min_p": ("min_p", "float"),
    "typical_p": ("typical_p", "float"),
    "presence_penalty": ("presence_penalty", "float"),
    "frequency_penalty": ("frequency_penalty", "float"),
    "seed": ("seed", "int"),
    "stop": ("stop", "text"),
}
_OWN_NAMES: dict[str, tuple[str, Kind]] = {own: (own, kind) for own, kind in PARAMETERS.values()}

# Known elsewhere and without meaning here: set aside, and said so.
SET_ASIDE = frozenset(
    {
        "mirostat", "mirostat_eta", "mirostat_tau", "tfs_z", "repeat_last_n", "penalize_newline",
        "num_gpu", "main_gpu", "num_thread", "num_keep", "num_batch", "draft_num_predict",
        "low_vram", "f16_kv", "vocab_only", "use_mmap", "use_mlock", "numa",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Modelfile:
    """One recipe. Equality is by content; `render` and `parse` are inverse."""

    base: str
    """Name or path after FROM."""
    parameters: tuple[tuple[str, int | float | str], ...] = ()
    """Our parameter names with their values, in order; `stop` may repeat, of others the last one counts."""
    system: str | None = None
    adapters: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    """Role and text of turns every conversation begins with."""
    licence: str | None = None
    set_aside: tuple[str, ...] = ()
    """Known parameters that have no meaning here."""

    def sampling(self) -> dict[str, Any]:
        """Keyword arguments for SamplingParams."""
        values: dict[str, Any] = {name: value for name, value in self.parameters if name not in ("context", "stop")}
        stops = tuple(str(value) for name, value in self.parameters if name == "stop")
        return values | ({"stop": stops} if stops else {})

    @property
    def context(self) -> int | None:
        """Context in tokens, if the file sets it."""
        values = [value for name, value in self.parameters if name == "context"]
        return int(values[-1]) if values else None


def parse(text: str, *, where: str = "Modelfile") -> Modelfile:
    """Read a Modelfile; raises `InvalidRequest` naming the line."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidRequest(f"{where} is larger than {MAX_BYTES} bytes")
    base: list[str] = []
    system: list[str] = []
    licences: list[str] = []
    adapters: list[str] = []
    messages: list[tuple[str, str]] = []
    parameters: list[tuple[str, int | float | str]] = []
    set_aside: list[str] = []
    for at, word, head, value in _instructions(text, where):
        match word:
            case "FROM":
                base.append(value)
            case "SYSTEM":
                system.append(value)
            case "LICENSE":
                licences.append(value)
            case "ADAPTER":
                adapters.append(value)
            case "MESSAGE":
                messages.append((_role(head.lower(), at), value))
            case "PARAMETER" if head.lower() in SET_ASIDE:
                set_aside.append(head.lower())
            case "PARAMETER":
                parameters.append(parse_parameter(head, value, where=at))
    for word, values in (("FROM", base), ("SYSTEM", system)):
        if len(values) > 1:
            raise InvalidRequest(f"{where}: {word} appears {len(values)} times, a model has one")
    if not base:
        raise InvalidRequest(f"{where}: no FROM; begin with the model to build on, such as FROM llama3.2:1b")
    return Modelfile(
        base=base[0],
        parameters=tuple(parameters),
        system=system[0] if system else None,
        adapters=tuple(adapters),
        messages=tuple(messages),
        licence="\n\n".join(licences) or None,
        set_aside=tuple(set_aside),
    )


def parse_parameter(name: str, text: str, *, where: str = "parameter") -> tuple[str, int | float | str]:
    """Our name and the value of one parameter, in either spelling; raises `InvalidRequest`."""
    word = name.lower()
    known = PARAMETERS | _OWN_NAMES
    if word not in known:
        raise InvalidRequest(
            f"{where}: unknown parameter {word!r}{nearest(word, known)}. Known: {', '.join(PARAMETERS)}"
        )
    own, kind = known[word]
    if kind == "text":
        return own, text
    try:
        return own, _number(text.strip(), kind)
    except ValueError as fault:
        expected = "an integer" if kind == "int" else "a number"
        raise InvalidRequest(f"{where}: {word} must be {expected}, got {text!r}") from fault


def render(recipe: Modelfile) -> str:
    """The Modelfile text of a recipe; `parse` gives the recipe back (but for what was set aside)."""
    spelling = {own: word for word, (own, _) in PARAMETERS.items()}
    lines = [f"FROM {_quote(recipe.base)}"]
    lines += [f"ADAPTER {_quote(adapter)}" for adapter in recipe.adapters]
    lines += [f"PARAMETER {spelling[name]} {_quote(str(value))}" for name, value in recipe.parameters]
    if recipe.system is not None:
        lines.append(f"SYSTEM {_quote(recipe.system)}")
    lines += [f"MESSAGE {role} {_quote(text)}" for role, text in recipe.messages]
    if recipe.licence is not None:
        lines.append(f"LICENSE {_quote(recipe.licence)}")
    return "\n".join(lines) + "\n"


def to_json(recipe: Modelfile) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    return {
        "from": recipe.base,
        "parameters": [[name, value] for name, value in recipe.parameters],
        "system": recipe.system,
        "adapters": list(recipe.adapters),
        "messages": [[role, text] for role, text in recipe.messages],
        "license": recipe.licence,
    }


def from_json(data: Any, *, where: str) -> Modelfile:
    """The inverse of `to_json`; raises `InvalidRequest` for anything it did not write."""
    try:
        recipe = Modelfile(
            base=_text(data["from"]),
            parameters=tuple(_checked(_text(name), value, where) for name, value in data["parameters"]),
            system=None if data["system"] is None else _text(data["system"]),
            adapters=tuple(_text(adapter) for adapter in data["adapters"]),
            messages=tuple((_role(role, where), _text(text)) for role, text in data["messages"]),
            licence=None if data["license"] is None else _text(data["license"]),
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise InvalidRequest(f"{where} is not a stored model: {fault}; create it again with `llama create`") from fault
    return recipe


def _instructions(text: str, where: str) -> Iterator[tuple[str, str, str, str]]:
    """Place, instruction word, first argument of those that have two, and value, of each instruction."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        place = f"{where} line {at + 1}"
        at += 1
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        word = word.upper()
        if word not in INSTRUCTIONS:
            raise InvalidRequest(f"{place}: {_refusal(word)}")
        head, _, rest = rest.strip().partition(" ") if word in ("PARAMETER", "MESSAGE") else ("", "", rest)
        value = rest.strip()
        if value.startswith(_QUOTES):
            # The quoted text is taken as it stands, so the lines are joined before anything is stripped.
            block = "\n".join([lines[at - 1].partition(_QUOTES)[2], *lines[at:]])
            value, closed, after = block.partition(_QUOTES)
            if not closed:
                raise InvalidRequest(f"{place}: the text opened with {_QUOTES} is never closed")
            if (trailing := after.partition("\n")[0].strip()) != "":
                raise InvalidRequest(f"{place}: nothing may follow the closing {_QUOTES}, got {trailing!r}")
            at += value.count("\n")
        else:
            value = _unquote(value)
        if not value:
            raise InvalidRequest(f"{place}: {word} {head} needs a value".replace("  ", " "))
        yield place, word, head, value


def _refusal(word: str) -> str:
    if word == "TEMPLATE":
        return (
            "TEMPLATE is not supported: the prompt format is tested code that the model chooses "
            "(see it with `llama model prompt-format NAME`). Leave it out; wishes go into SYSTEM"
        )
    return f"unknown instruction {word!r}{nearest(word, INSTRUCTIONS)}. Known: {', '.join(INSTRUCTIONS)}"


def _unquote(text: str) -> str:
    """The inside of a value in double quotes, written like a JSON string; any other value as it stands."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except json.JSONDecodeError:
            return text
    return text


def _quote(text: str) -> str:
    """A spelling that `parse` reads back to exactly `text`."""
    if text and text == text.strip() and text.isprintable() and not text.startswith('"'):
        return text
    if text and _QUOTES not in text and not text.endswith('"') and not text.startswith('"'):
        return f"{_QUOTES}{text}{_QUOTES}"
    return json.dumps(text)


def _number(text: str, kind: Kind) -> int | float:
    value = int(text) if kind == "int" else float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _checked(name: str, value: Any, where: str) -> tuple[str, int | float | str]:
    if name not in _OWN_NAMES:
        raise InvalidRequest(f"{where}: unknown parameter {name!r}")
    kind = _OWN_NAMES[name][1]
    expected = {"int": int, "float": int | float, "text": str}[kind]
    if isinstance(value, bool) or not isinstance(value, expected):
        raise InvalidRequest(f"{where}: {name} has the value {value!r}")
    return name, value


def _role(role: object, where: str) -> str:
    if role not in MESSAGE_ROLES:
        raise InvalidRequest(f"{where}: a MESSAGE is of {', '.join(MESSAGE_ROLES)}, got {role!r}")
    return str(role)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, got {value!r}")
    return value


def merged(base: Modelfile, above: Modelfile) -> Modelfile:
    """A recipe on top of another: what `above` says wins, adapters and messages come after those of `base`."""
    named = {name for name, _ in above.parameters}
    return Modelfile(
        base=base.base,
        parameters=tuple((n, v) for n, v in base.parameters if n not in named) + above.parameters,
        system=above.system if above.system is not None else base.system,
        adapters=base.adapters + above.adapters,
        messages=base.messages + above.messages,
        licence=above.licence if above.licence is not None else base.licence,
    )
