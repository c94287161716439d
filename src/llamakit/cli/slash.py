"""Commands inside the chat: `/set`, `/show`, `/save`, `/load`, `/clear`, `/bye` and help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamakit.cli.chat import Chat
from llamakit.cli.terminal import put, put_facts, say
from llamakit.core.config import data_home, nearest
from llamakit.core.errors import InvalidRequest
from llamakit.core.sampling import Constraint
from llamakit.hub import catalog, embedded, store
from llamakit.hub.modelfile import PARAMETERS, Modelfile, parse_parameter, render

HELP = '''\
/set parameter NAME VALUE   temperature, top_p, top_k, num_predict, seed, stop, ...
/set system TEXT            what the model is told first; /set nosystem takes it back
/set format json            answers are JSON; /set noformat takes it back
/set verbose, /set quiet    tokens and seconds after each answer, or not
/show                       the model; also: /show system, parameters, messages, modelfile, licence
/save NAME                  keep model, settings and conversation as a model of your own
/load NAME                  go on with another model
/clear                      forget the conversation
/bye                        leave (Ctrl-D too)
"""                         begins and ends a message of several lines
Ctrl-C                      stops the answer'''

WORDS = (
    "/set parameter", "/set system", "/set nosystem", "/set format json", "/set noformat", "/set verbose", "/set quiet",
    "/show", "/show system", "/show parameters", "/show messages", "/show modelfile", "/show licence",
    "/save", "/load", "/clear", "/help", "/bye",
)  # fmt: skip


def obey(chat: Chat, line: str) -> bool:
    """Carry out one command; False means leave. Raises `InvalidRequest` for what it does not know."""
    word, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    if word in ("/bye", "/exit", "/quit"):
        return False
    commands: dict[str, Callable[[Chat, str], None]] = {
        "/?": _help,
        "/help": _help,
        "/set": _set,
        "/show": _show,
        "/save": _save,
        "/load": _load,
        "/clear": _clear,
    }
    if word not in commands:
        raise InvalidRequest(
            f"no command {word}{nearest(word, [*commands, '/bye'])}. /? lists them; "
            "to say a line that begins with a slash, put a space before it"
        )
    commands[word](chat, rest)
    return True


def _help(chat: Chat, rest: str) -> None:
    say(HELP)


def _clear(chat: Chat, rest: str) -> None:
    chat.messages = []
    say("forgotten", "faint")


def _load(chat: Chat, rest: str) -> None:
    if not rest:
        raise InvalidRequest("/load needs the name of a model")
    chat.change_model(rest)
    say(f"now {chat.llm.name}", "faint")


def _set(chat: Chat, rest: str) -> None:
    what, _, value = rest.partition(" ")
    value = value.strip()
    match what:
        case "parameter":
            _set_parameter(chat, value)
        case "system":
            if not value:
                raise InvalidRequest("/set system needs a text; /set nosystem takes it back")
            chat.system = value
        case "nosystem":
            chat.system = None
        case "format" if value == "json":
            chat.sampling["constraint"] = Constraint(kind="json_object")
        case "noformat":
            chat.sampling.pop("constraint", None)
        case "verbose" | "quiet":
            chat.is_verbose = what == "verbose"
        case _:
            known = ("parameter", "system", "nosystem", "format json", "noformat", "verbose", "quiet")
            raise InvalidRequest(f"/set knows {', '.join(known)}; got {rest!r}")


def _set_parameter(chat: Chat, text: str) -> None:
    name, _, value = text.partition(" ")
    if not name:
        raise InvalidRequest(f"/set parameter needs a name and a value. Names: {', '.join(PARAMETERS)}")
    if not value.strip():
        raise InvalidRequest(f"/set parameter {name} needs a value")
    own, parsed = parse_parameter(name, value.strip(), where="/set parameter")
    if own == "context":
        raise InvalidRequest("the context is fixed while a model is loaded; start again with: llama run --context N")
    changed = {**chat.sampling, own: (*chat.sampling.get("stop", ()), str(parsed)) if own == "stop" else parsed}
    chat.llm.prompter.sampling(changed)  # refuses a value out of range before it is kept
    chat.sampling = changed


def _show(chat: Chat, rest: str) -> None:
    match rest:
        case "" | "info":
            config = chat.llm.config
            put_facts(
                [
                    ("model", chat.llm.name),
                    ("parameters", f"{config.num_parameters:,}"),
                    ("context", f"{chat.llm.context:,} tokens"),
                    ("prompt format", chat.llm.format_name),
                    ("computing", f"{chat.llm.opened.model.dtype} on {chat.llm.device}".replace("torch.", "")),
                ]
            )
        case "system":
            put(chat.system if chat.system is not None else "(none of yours)")
        case "parameters":
            shown = chat.llm.prompter.defaults | chat.sampling
            put_facts([(name, str(value)) for name, value in shown.items()] or [("", "all at their defaults")])
        case "messages":
            put_facts([(message.role, message.text) for message in chat.messages] or [("", "nothing said yet")])
        case "modelfile":
            put(render(_recipe(chat)).rstrip())
        case "licence" | "license":
            model = catalog.find(chat.llm.name)
            put(f"{model.licence.title}\n{model.licence.url}" if model else "not known; see where the model came from")
        case _:
            raise InvalidRequest(f"/show knows info, system, parameters, messages, modelfile and licence; got {rest!r}")


def _save(chat: Chat, rest: str) -> None:
    if not rest:
        raise InvalidRequest("/save needs a name, lower case")
    if embedded.find(rest) is not None or catalog.find(rest) is not None:
        raise InvalidRequest(f"{rest} is a model already known; choose another name")
    if rest == chat.llm.name:
        raise InvalidRequest(f"{rest} is the model of this chat and cannot be built on itself; choose another name")
    created = store.save(data_home(), rest, _recipe(chat))
    say(f"saved; run it with: llama run {created.name}", "good")


def _recipe(chat: Chat) -> Modelfile:
    """The conversation as a model: this one, with what was set and said."""
    known = {own for own, _ in PARAMETERS.values()}
    parameters: list[tuple[str, Any]] = []
    for name, value in chat.sampling.items():
        if name == "stop":
            parameters += [("stop", text) for text in value]
        elif name in known:
            parameters.append((name, value))
    ref_name = chat.llm.name
    base = str(chat.llm.opened.path.resolve()) if ref_name.startswith((".", "/", "~")) else ref_name
    return Modelfile(
        base=base,
        parameters=tuple(parameters),
        system=chat.system,
        messages=tuple((message.role, message.text) for message in chat.messages if message.text),
    )
