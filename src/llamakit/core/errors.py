"""The error tree: what a person or the world can do wrong.

Each class also inherits the standard-library class it refines, so that callers who do not know
llamakit can still catch it. A message says what was wanted, what was found and what to do.
HTTP status is decided in `server/errors.py` and exit codes in `cli/main.py`, nowhere else.
"""

from __future__ import annotations


class LlamakitError(Exception):
    """Root of every error that is a person's mistake or the world's, never our own bug."""


class ConfigError(LlamakitError, ValueError):
    """A setting or a dataclass field holds a value that cannot work."""


class InvalidRequest(LlamakitError, ValueError):
    """A request field is bad or unsupported; `param` names the field on the wire."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class PromptTooLong(InvalidRequest):
    """The prompt (plus what was asked for) does not fit the model's context."""

    def __init__(self, message: str, *, param: str | None = "messages") -> None:
        super().__init__(message, param=param, code="context_length_exceeded")


class UnknownModel(LlamakitError, LookupError):
    """No model of that name is known or present."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class CheckpointError(LlamakitError, ValueError):
    """A weight, config or tokenizer file is damaged, hostile or of an unknown kind; names file and fault."""


class TokenizerError(CheckpointError):
    """A tokenizer file cannot be read."""


class UnsupportedFormat(CheckpointError):
    """A well-formed file uses a feature this build cannot run; the message lists what it can."""


class DownloadError(LlamakitError, OSError):
    """A download failed or did not verify."""


class GatedModel(DownloadError):
    """The repository asks for an accepted licence or a token."""


class Offline(DownloadError):
    """The network is needed and not available, or not allowed."""


class Overloaded(LlamakitError, RuntimeError):
    """The server has no room now; trying again later can work."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(Overloaded):
    """More was asked in a time than is allowed; trying again later works."""


class EngineStopped(LlamakitError, RuntimeError):
    """The engine was shut down or failed while the request ran."""


class MissingExtra(LlamakitError, ImportError):
    """An optional package is needed for what was asked; the message has the install line."""


class NotFound(LlamakitError, LookupError):
    """No such object, or it belongs to somebody else: the two look the same on purpose."""


class Conflict(LlamakitError, ValueError):
    """The object exists already, or changed since it was read; nothing was written."""


class StorageError(LlamakitError, OSError):
    """The database or the disk refused; what was not acknowledged may be wholly there or wholly absent."""


class StorageFull(StorageError):
    """No room is left on the disk; old data stays readable and writing works again once there is room."""


class StorageReadOnly(StorageError):
    """A write to the disk failed in a way that cannot be trusted, so the store takes no more writes."""


class OutboundRefused(LlamakitError, PermissionError):
    """The outbound policy does not allow this address, host, scheme or redirect."""


class OutboundFailed(LlamakitError, ConnectionError):
    """A remote host could not be reached, took too long, or sent more or other bytes than allowed."""


class RemoteFailed(OutboundFailed):
    """A remote service answered with an error of its own, or with what is no answer; the message names it."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, where that is what it failed by."""


class SandboxUnavailable(LlamakitError, RuntimeError):
    """A layer that untrusted work needs is missing here, so it is refused; the message names the layer."""


class DocumentError(LlamakitError, ValueError):
    """A document cannot be read: damaged, hostile, too large or of an unknown kind."""


class ToolError(LlamakitError, RuntimeError):
    """A tool is unknown, was called with wrong arguments, or failed."""
