"""Log lines of the server: for people, or one JSON object each. What is logged is decided where it is logged."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from llamakit.core.tracing import current
from llamakit.server.exchange import REQUEST_ID

_SECRETS = (
    (("llk_",), re.compile(r"llk_[0-9A-Za-z]{8,}"), "llk_***"),
    (
        ("earer", "EARER", "asic", "ASIC"),
        re.compile(r"\b((?i:bearer|basic))\s+(?=\S*[0-9A-Z])[A-Za-z0-9._~+/=-]{8,}"),
        r"\1 ***",
    ),
    (("eyJ",), re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), "***"),
    (("://",), re.compile(r"(://[^\s:/@\"']*):[^\s@/\"']+@"), r"\1:***@"),
)
"""Our keys, authorization headers, signed tokens, passwords in URLs; before each what a line must hold to be looked at
closely, since nearly none does."""
_LOGGERS = ("llamakit", "uvicorn")


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and the record's facts."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        made: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            made["exception"] = self.formatException(record.exc_info)
        return masked(json.dumps(made, ensure_ascii=True, default=str))


class PlainFormatter(logging.Formatter):
    """Time, level and message, then the facts as `key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        message = record.getMessage()
        facts = " ".join(f"{key}={_plain(value)}" for key, value in _facts(record).items())
        line = f"{time} {record.levelname.lower():7} {message}" + (f"  {facts}" if facts else "")
        return masked(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


def configure_logging(*, as_json: bool, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send this package's log, and what matters of the HTTP server's, to `stream` (standard error by default)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("llamakit").setLevel(level)
    logging.getLogger("uvicorn").setLevel(max(level, logging.WARNING))


def masked(text: str) -> str:
    """The text without what looks like a secret. Nobody logs one on purpose; the error of a library may hold one."""
    for signs, shape, shown in _SECRETS:
        if any(sign in text for sign in signs):
            text = shape.sub(shown, text)
    return text


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """The record's own facts, and in which request and trace it was written."""
    facts = dict(record.__dict__.get("facts", {}))
    if REQUEST_ID.get():
        facts.setdefault("request_id", REQUEST_ID.get())
    context = current()
    if context is not None:
        facts |= {"trace_id": context.trace_id, "span_id": context.span_id}
    return facts


def _plain(value: object) -> str:
    """A value that cannot break the line or pass for another field."""
    text = str(value)
    return text if text.isprintable() and " " not in text and "=" not in text else json.dumps(text)
