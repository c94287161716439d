"""Typed access to a foreign JSON object or metadata table, with errors that name file and field."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llamakit.core.errors import CheckpointError, ConfigError, UnsupportedFormat
from llamakit.core.model_config import ModelConfig


class Fields:
    """Looks fields up by name; null counts as absent, a field without default must be there."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values = {key: value for key, value in values.items() if value is not None}
        self.path = path

    def error(self, name: str, wanted: str) -> CheckpointError:
        """What to raise when a field is not what was wanted."""
        found = _short(self.values[name]) if name in self.values else "nothing"
        return CheckpointError(f"{self.path}: {name} must be {wanted}, found {found}")

    def integer(self, name: str, default: int | None = None) -> int:
        """A positive integer below 2^31."""
        value = self.values.get(name, default)
        if type(value) is not int or not 0 < value < 2**31:
            raise self.error(name, "a positive integer below 2^31")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.error(name, "a finite number")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def token_ids(self, name: str) -> tuple[int, ...]:
        """One token id or a list of them; empty when absent. Negative ids, which mean "none", are left out."""
        value = self.values.get(name, [])
        ids = value if isinstance(value, list) else [value]
        if len(ids) > 256 or not all(type(token) is int and -1 <= token < 2**31 for token in ids):
            raise self.error(name, "a token id or a list of them")
        return tuple(token for token in ids if token >= 0)

    def token_id(self, name: str) -> int | None:
        """One token id; None when absent or negative, the first of a list."""
        return next(iter(self.token_ids(name)), None)

    def optional_number(self, name: str) -> float | None:
        """A finite number, or None when absent."""
        return self.number(name) if name in self.values else None

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Raise `UnsupportedFormat` listing the fields nobody reads: each could change the maths."""
        known = frozenset(known)
        unknown = [name for name in self.values if name not in known]
        if not unknown:
            return
        listed = ", ".join(f"{name[:100]!r}{_nearest(name, known)}" for name in unknown[:10])
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise UnsupportedFormat(
            f"{self.path}: no plain Llama has the field {listed}{more}; "
            "remove it from the file if it does not change what the model computes"
        )


def build_config(path: Path, **shape: Any) -> ModelConfig:
    """A `ModelConfig` of values from `path`; impossible ones become a `CheckpointError` that names the file."""
    try:
        return ModelConfig(**shape)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:100], known, n=1)
    return f" (nearest known: {near[0]!r})" if near else ""


def _short(value: Any) -> str:
    # A nested value could be deep or huge, so only scalars and short lists of them are shown.
    if isinstance(value, list) and len(value) <= 4 and all(isinstance(entry, str | int | float) for entry in value):
        return repr(value)[:100]
    return repr(value)[:100] if isinstance(value, str | int | float) else type(value).__name__
