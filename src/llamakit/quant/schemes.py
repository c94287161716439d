"""How many bits which weight gets, by the name a person chooses."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from llamakit.core.errors import ConfigError
from llamakit.kernels.packed import Bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """Bits of each kind of matrix; norms and biases stay as they are."""

    name: str
    linear_bits: Bits
    """Of the projections inside the layers."""
    table_bits: Bits
    """Of the embedding and the head: they meet every token and lose most."""
    two_pass_head: bool = False
    """Whether a large head looks at all rows by nibbles first, and at `table_bits` only where it matters."""


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(name="int8", linear_bits=8, table_bits=8),
        Scheme(name="int4", linear_bits=4, table_bits=8, two_pass_head=True),
    )
}


def resolve_scheme(name: str) -> Scheme:
    """The scheme of a name; ConfigError lists them for any other."""
    if name not in SCHEMES:
        near = get_close_matches(name, SCHEMES, n=1)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise ConfigError(f"quantization wants one of {', '.join(SCHEMES)}, got {name!r}{hint}")
    return SCHEMES[name]
