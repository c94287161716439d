"""Settings of a person's machine and their one order: default < file < `LLAMA_*` < flag.

A settings class is a frozen dataclass of simple fields. `load` fills it and remembers where every value came
from, which is what `llama config show` prints. Knows no command and no server.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
import textwrap
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from llamakit.core.errors import ConfigError

ENV_PREFIX = "LLAMA_"
CONFIG_FILE = "config.toml"
MAX_CONFIG_BYTES = 1 << 20

_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNIT_S = {"ms": 1e-3, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class Secret:
    """Text that never shows itself: `str`, `repr` and formatting print `***`; `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))


class Duration(float):
    """Seconds, written as people do: `90`, `5m`, `1.5h`, `250ms`; below zero means without end."""

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read `text`; raises `ConfigError`."""
        match = _DURATION.fullmatch(text.strip().lower())
        if match is None:
            raise ConfigError(f"a duration looks like 90, 5m, 1.5h or 250ms, got {text!r}")
        return cls(float(match[1]) * _UNIT_S[match[2]])

    @classmethod
    def read(cls, value: object) -> Duration:
        """`value` of a file, as seconds or as people write it; raises `ConfigError`."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ConfigError(f"a duration looks like 90, 5m, 1.5h or 250ms, got {value!r}")
        return cls.parse(value) if isinstance(value, str) else cls(value)

    def __str__(self) -> str:
        if self < 0:
            return "forever"
        for unit in ("d", "h", "m"):
            if self >= _UNIT_S[unit] and self % _UNIT_S[unit] == 0:
                return f"{self / _UNIT_S[unit]:.15g}{unit}"
        return f"{float(self):.15g}s"


FIVE_MINUTES = Duration(300)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the commands take from the machine when a flag does not say it."""

    model: str = "cria"
    """Model that commands use when none is named."""
    home: Path | None = None
    """Directory of created models and chats; by default the platform's data directory."""
    endpoint: str = "https://huggingface.co"
    """Hub that models are pulled from."""
    offline: bool = False
    """Never use the network."""
    host: str = "127.0.0.1"
    """Address of the server: where `serve` listens and where `ps` and `stop` ask."""
    port: int = 8321
    """Port of the server."""
    api_key: Secret | None = None
    """Key that the server demands and that clients of it send."""
    keep_alive: Duration = FIVE_MINUTES
    """How long an idle model stays loaded, such as 5m; below zero for ever."""
    context: int | None = None
    """Tokens of context; by default what the model was trained for and the memory holds."""
    threads: int | None = None
    """Threads to compute with; by default one per physical core."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of weights and computation."""
    quantize: Literal["auto", "none", "int8", "int4"] = "auto"
    """Pack the weights of loaded models to 8 or 4 bits; auto keeps those of quantized files as they are stored."""
    kv: Literal["auto", "int8"] = "auto"
    """How keys and values are kept: int8 takes half the memory and half the reading of long contexts."""
    debug: bool = False
    """Show tracebacks."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must be in [0, 65535], got {self.port}")
        for name, value in (("context", self.context), ("threads", self.threads)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if not self.endpoint.startswith(("https://", "http://")):
            raise ConfigError(f"endpoint must be an http(s) address, got {self.endpoint!r}")


S = TypeVar("S")


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded(Generic[S]):
    """Settings and, per field, where the value came from."""

    value: S
    sources: Mapping[str, str]
    """Field name to `default`, the path of the file, the name of the variable, or `flag`."""


def load(
    cls: type[S],
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Loaded[S]:
    """Fill `cls` from defaults, a TOML file (absent is fine), `LLAMA_*` and flags that are not None.

    Raises `ConfigError` for an unknown key of the file or the flags, and for a value of the wrong type;
    variables of the environment that are not ours belong to other programs and are left alone.
    """
    environ = os.environ if environ is None else environ
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    sources = {field.name: "default" for field in fields(cls)}  # pyright: ignore[reportArgumentType]
    for key, raw in _read_file(file).items():
        _check_known(key, sources, f"file {file}")
        values[key] = _from_file(key, raw, hints[key], str(file))
        sources[key] = str(file)
    for name in sources:
        variable = ENV_PREFIX + name.upper()
        if environ.get(variable, "") != "":
            values[name] = _from_text(variable, environ[variable], hints[name])
            sources[name] = variable
    for name, raw in (flags or {}).items():
        _check_known(name, sources, "the flags")
        if raw is not None:
            values[name] = _from_text(name, raw, hints[name]) if isinstance(raw, str) else raw
            sources[name] = "flag"
    return Loaded(value=cls(**values), sources=sources)


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """The settings file: `LLAMA_CONFIG`, else in `LLAMA_HOME`, else in the platform's config directory."""
    environ = os.environ if environ is None else environ
    if environ.get("LLAMA_CONFIG"):
        return Path(environ["LLAMA_CONFIG"]).expanduser()
    if environ.get("LLAMA_HOME"):
        return Path(environ["LLAMA_HOME"]).expanduser() / CONFIG_FILE
    import platformdirs

    return platformdirs.user_config_path("llamakit") / CONFIG_FILE


def data_home(environ: Mapping[str, str] | None = None) -> Path:
    """The data directory: `LLAMA_HOME`, else `home` of the settings file, else the platform's."""
    home = load(Settings, file=config_path(environ), environ=environ).value.home
    if home is not None:
        return home.expanduser()
    import platformdirs

    return platformdirs.user_data_path("llamakit")


def misspelt_variables(cls: type, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables of the environment that look like a slip of one of ours, with what was probably meant."""
    environ = os.environ if environ is None else environ
    known = [ENV_PREFIX + field.name.upper() for field in fields(cls)] + ["LLAMA_CONFIG"]
    strange = [name for name in environ if name.startswith(ENV_PREFIX) and name not in known]
    nearest = {name: difflib.get_close_matches(name, known, 1, 0.85) for name in strange}
    return {name: match[0] for name, match in sorted(nearest.items()) if match}


def field_docs(cls: type) -> dict[str, str]:
    """The line written under each field of a dataclass: the help text and the reference documentation."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{cls!r} is not a class with readable source")
    docs: dict[str, str] = {}
    for item, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(following, ast.Expr):
            text = following.value.value if isinstance(following.value, ast.Constant) else None
            if isinstance(text, str):
                docs[item.target.id] = inspect.cleandoc(text)
    return docs


def nearest(word: str, known: Iterable[str]) -> str:
    """`; nearest: 'x'` when something known is close to `word`, else nothing: the tail of an error message."""
    match = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"; nearest: {match[0]!r}" if match else ""


def _check_known(key: str, known: Mapping[str, str], where: str) -> None:
    if key not in known:
        raise ConfigError(f"unknown setting {key!r} in {where}{nearest(key, known)}. See `llama config show`")


def _read_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"settings file {file} has {file.stat().st_size} bytes, at most {MAX_CONFIG_BYTES}")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(f"settings file {file} is not TOML: {fault}") from fault


def _from_file(name: str, raw: object, hint: Any, where: str) -> Any:
    """A TOML value: already typed, so only what is written as text is parsed."""
    kinds = _kinds(hint)
    if isinstance(raw, str):
        return _from_text(name, raw, hint, spelled=False)
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        if isinstance(raw, bool) and bool in kinds:
            return raw
    elif isinstance(raw, int) and int in kinds:
        return raw
    elif float in kinds:
        return float(raw)
    elif Duration in kinds:
        return Duration(raw)
    raise ConfigError(f"{name} in {where} must be {_say(hint)}, got {raw!r}")


def _from_text(name: str, text: str, hint: Any, *, spelled: bool = True) -> Any:
    """A value written as text: a variable, a flag, or a string of the file, where numbers are not `spelled` out."""
    kinds = _kinds(hint)
    if types.NoneType in kinds and text.lower() in ("none", ""):
        return None
    for kind in kinds:
        if get_origin(kind) is Literal:
            if text in get_args(kind):
                return text
            break
        try:
            match kind:
                case _ if kind is str:
                    return text
                case _ if kind is Path:
                    return Path(text).expanduser()
                case _ if kind is Secret:
                    return Secret(text)
                case _ if kind is Duration:
                    return Duration.parse(text)
                case _ if kind is bool and spelled:
                    return _WORDS[text.lower()]
                case _ if kind is int and spelled:
                    return int(text)
                case _ if kind is float and spelled:
                    return float(text)
        except (ValueError, KeyError) as fault:
            raise ConfigError(f"{name} must be {_say(hint)}, got {text!r}") from fault
    raise ConfigError(f"{name} must be {_say(hint)}, got {text!r}")


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _say(hint: Any) -> str:
    names = {str: "text", int: "an integer", float: "a number", bool: "true or false", Path: "a path"}
    names |= {Secret: "text", Duration: "a duration such as 5m", types.NoneType: "none"}
    words = []
    for kind in _kinds(hint):
        words.append("one of " + ", ".join(get_args(kind)) if get_origin(kind) is Literal else names[kind])
    return " or ".join(words)
