"""uvicorn's HTTP/1.1 protocol with the deadlines it lacks: for headers to arrive, and for a reader to read.

A client that sends its headers a byte at a time, or takes an answer and stops reading, would otherwise hold
its connection for ever. Deadlines are absolute: a byte now and then does not move them. The head of an answer goes
out with what follows it at once, which halves the calls of the system for an answer that is whole.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llamakit.api.limits import Limits
from llamakit.api.openai_answer import to_json
from llamakit.api.openai_errors import error_body

log = logging.getLogger(__name__)

_AT_ONCE_BYTES = 1 << 16


class _Gathering(asyncio.Transport):
    """A transport that sends what is written in one step of the event loop at once, at the end of the step."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._below = transport
        self._loop = loop
        self._held: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hold the data until the step ends; what is more than a packet or two goes at once."""
        if not data:
            return
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(bytes(data))
        if len(data) >= _AT_ONCE_BYTES:
            self._flush()

    def close(self) -> None:
        """Send what is held, then close."""
        self._flush()
        self._below.close()

    def abort(self) -> None:
        """Close, whatever is held."""
        self._held.clear()
        self._below.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._below.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection."""
        return self._below.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Take nothing for now."""
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Take what comes again."""
        self._below.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have the connection."""
        self._below.set_protocol(protocol)

    def _flush(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._below.write(data)


def protocol_class(limits: Limits) -> type[H11Protocol]:
    """The protocol under `limits`; uvicorn makes one of it per connection."""

    class LimitedProtocol(H11Protocol):
        """One connection."""

        transport: asyncio.Transport

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._header_timer: asyncio.TimerHandle | None = None
            self._write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(_Gathering(transport, self.loop))
            self._await_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._await_headers()
            else:
                self._stop_header_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_header_timer()
            self.resume_writing()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._write_timer is None:
                self._write_timer = self.loop.call_later(limits.stalled_write_s, self._drop, "did not read its answer")

        def resume_writing(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None
            if self.flow is not None:
                super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            """What h11 refuses is answered in the one error shape too."""
            body = to_json(error_body(msg, kind="invalid_request_error")).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _await_headers(self) -> None:
            if self._header_timer is None:
                self._header_timer = self.loop.call_later(limits.header_s, self._drop, "did not complete its headers")

        def _stop_header_timer(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _drop(self, fault: str) -> None:
            log.info("dropped a connection that %s in time", fault)
            self.transport.abort()

    return LimitedProtocol
