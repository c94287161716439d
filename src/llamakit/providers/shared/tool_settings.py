"""Settings of tools: those of a run config, and those that come with each use of a tool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llamakit.core.config import nearest
from llamakit.core.errors import ConfigError, InvalidRequest, ToolError
from llamakit.core.messages import ToolSpec


def check_config(provider: str, config: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse settings of a run config that the provider does not have."""
    names = sorted(known)
    for key in config:
        if key not in names:
            raise ConfigError(f"{provider} has no setting {key!r}{nearest(key, names)}; it has: {', '.join(names)}")


def config_number(config: Mapping[str, Any], name: str, default: float, most: float) -> float:
    """A positive number of a run config, at most `most`; raises `ConfigError`."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ConfigError(f"{name} must be a number above 0 and at most {most:g}, got {value!r}")
    return value


def check_settings(tool: str, settings: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse settings of one use that the tool does not have."""
    names = sorted(known)
    for key in settings:
        if key not in names:
            raise InvalidRequest(f"{tool} has no setting {key!r}{nearest(key, names)}", param=f"tools.{key}")


def texts(value: Any, name: str, *, most: int = 100) -> tuple[str, ...]:
    """A list of short texts; raises `InvalidRequest` naming the setting."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or len(value) > most or not all(isinstance(one, str) for one in value):
        raise InvalidRequest(f"{name} must be a list of at most {most} texts", param=f"tools.{name}")
    return tuple(value)


def number(value: Any, name: str, default: float, *, low: float, high: float) -> float:
    """A number in a range; raises `InvalidRequest` naming the setting."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidRequest(f"{name} must be a number in [{low:g}, {high:g}]", param=f"tools.{name}")
    return value


def argument(arguments: Mapping[str, Any], spec: ToolSpec, name: str, *, most: int) -> str:
    """A text among the checked arguments of a call; raises `ToolError` in words for the model."""
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ToolError(f"{spec.name} needs {name!r}, a text that is not empty")
    if len(value) > most:
        raise ToolError(f"{name!r} of {spec.name} has {len(value)} characters; at most {most} are taken")
    return value
