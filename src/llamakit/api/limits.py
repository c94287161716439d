"""The one table of limits of what a client may send: bytes, depth, counts, seconds.

Every endpoint refers to it. The clocks behind the seconds are monotonic. Limits of sampling values
(how many choices, stop strings, logprobs) stand beside the fields they bound, in `core/sampling.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from llamakit.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one request may be and how long it may take to arrive."""

    header_bytes: int = 32 << 10
    """Bytes of a request line with its headers."""
    header_s: float = 10.0
    """Seconds until the headers are complete, from the first byte or the opened connection."""
    body_bytes: int = 16 << 20
    """Bytes of a request body, counted while they arrive."""
    body_s: float = 60.0
    """Seconds until the body is complete, from the first read."""
    json_depth: int = 64
    """Objects and arrays inside one another."""
    json_keys: int = 100_000
    """Keys of all objects of a body together."""
    json_values: int = 1_000_000
    """Values of a body together, counted by its commas before anything is built."""
    json_containers: int = 100_000
    """Objects and arrays of a body together, counted in the same way."""
    messages: int = 10_000
    """Messages of one chat."""
    biases: int = 4_096
    """Tokens of one `logit_bias`."""
    tools: int = 1_024
    """Tools of one chat."""
    prompts: int = 1_024
    """Prompts of one completion request; with `n`, choices altogether."""
    concurrent_prompts: int = 32
    """Prompts of one request that are with the engine at a time."""
    inputs: int = 2_048
    """Inputs of one embedding request."""
    schema_bytes: int = 256 << 10
    """Bytes of a JSON Schema, regular expression, grammar or list of choices."""
    image_bytes: int = 12 << 20
    """Bytes of one decoded image."""
    file_bytes: int = 512 << 20
    """Bytes of a file sent in one request."""
    file_s: float = 900.0
    """Seconds until a file or a part is complete, from the first read."""
    part_bytes: int = 64 << 20
    """Bytes of one part of an upload."""
    upload_bytes: int = 8 << 30
    """Bytes of a file uploaded in parts."""
    form_fields: int = 32
    """Fields of a form, the file not among them."""
    form_field_bytes: int = 64 << 10
    """Bytes of one such field."""
    stalled_write_s: float = 60.0
    """Seconds a client may leave a full send buffer unread before the connection is dropped."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ConfigError(f"limit {limit.name} must be above 0, got {getattr(self, limit.name)!r}")


LIMITS = Limits()
"""The limits in force where no other table is given."""
