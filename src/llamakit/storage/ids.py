"""Identifiers: a prefix that says what the thing is, and 192 random bits nobody can guess.

The text is lower-case hexadecimal, so it is safe as a file name on any file system, also one that
folds case. An ill-formed id, an unknown one and somebody else's all raise the same `NotFound`.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

from llamakit.core.errors import ConfigError, NotFound

RANDOM_BYTES = 24
"""192 bits: no two ids ever meet, and none is found by trying."""

_PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}[-_]")


@dataclass(frozen=True, slots=True)
class IdKind:
    """One kind of object: makes its ids and recognises them."""

    prefix: str
    """Lower-case word and a dash or underscore, such as `resp_`."""
    noun: str
    """What the object is called in messages, such as `response`."""
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigError(f"an id prefix is a lower-case word and - or _, got {self.prefix!r}")
        pattern = re.compile(f"{re.escape(self.prefix)}[0-9a-f]{{{2 * RANDOM_BYTES}}}", re.ASCII)
        object.__setattr__(self, "_pattern", pattern)

    def new(self) -> str:
        """A fresh id from the system's random source."""
        return self.prefix + secrets.token_hex(RANDOM_BYTES)

    def is_valid(self, text: object) -> bool:
        """Whether `text` is spelled exactly as `new` spells."""
        return isinstance(text, str) and self._pattern.fullmatch(text) is not None

    def check(self, text: str) -> str:
        """`text` itself; an ill-formed id raises what an absent one raises."""
        if not self.is_valid(text):
            raise self.missing(text)
        return text

    def missing(self, text: object) -> NotFound:
        """The error for an id that leads nowhere, whatever the cause."""
        shown = str(text)
        return NotFound(f"no {self.noun} {shown[:80]!r}{' (cut)' if len(shown) > 80 else ''}; list what you have first")


RESPONSE = IdKind("resp_", "response")
MESSAGE = IdKind("msg_", "message")
FUNCTION_CALL = IdKind("fc_", "function call")
REASONING = IdKind("rs_", "reasoning item")
MCP_CALL = IdKind("mcp_", "MCP call")
CONVERSATION = IdKind("conv_", "conversation")
CHAT_COMPLETION = IdKind("chatcmpl-", "chat completion")
PROMPT = IdKind("pmpt_", "prompt")
FILE = IdKind("file-", "file")
UPLOAD = IdKind("upload_", "upload")
UPLOAD_PART = IdKind("part_", "upload part")
VECTOR_STORE = IdKind("vs_", "vector store")
FILE_BATCH = IdKind("vsfb_", "file batch")
DOCUMENT = IdKind("doc_", "document")
CHUNK = IdKind("chunk_", "chunk")
BATCH = IdKind("batch_", "batch")
JOB = IdKind("job_", "job")
AGENT = IdKind("agent_", "agent")
SESSION = IdKind("session_", "session")
TURN = IdKind("turn_", "turn")
STEP = IdKind("step_", "step")
KEY = IdKind("key_", "API key")
CONTAINER = IdKind("cntr_", "interpreter container")
