"""The server's certificate: modern TLS only, and a renewed file taken without a restart or a dropped connection."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path

from llamakit.stack.run_config import ServeConfig

log = logging.getLogger(__name__)

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption. TLS 1.3 has no others."""
CHECK_S = 5.0
"""Seconds between two looks at the files."""

_Stamp = tuple[tuple[int, int, int], ...]


def harden(context: ssl.SSLContext) -> None:
    """Let nothing older than TLS 1.2 in."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION


class Certificate:
    """The certificate of a running server, in the context that its new connections use."""

    def __init__(self, config: ServeConfig, context: ssl.SSLContext) -> None:
        self._cert = config.tls_cert or ""
        self._key = config.tls_key or ""
        self._password = config.tls_key_password.reveal() if config.tls_key_password is not None else None
        self._context = context
        self._stamp = self._look()

    async def watch(self) -> None:
        """Take the files again whenever they have changed."""
        while True:
            await asyncio.sleep(CHECK_S)
            if await asyncio.to_thread(self._is_renewed):
                # Here, where handshakes are made: between certificate and key none may begin.
                self._take()

    def renew(self) -> bool:
        """Take the files if they have changed and belong together; whether they were taken."""
        return self._is_renewed() and self._take()

    def _is_renewed(self) -> bool:
        stamp = self._look()
        if stamp is None or stamp == self._stamp:
            return False
        self._stamp = stamp
        # Into a scratch context first: half a pair in the real one would break every new connection.
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def _take(self) -> bool:
        if self._look() != self._stamp:
            return False  # changed again meanwhile: the next look decides
        if not self._load(self._context):
            self._stamp = None  # changed while it was read
            return False
        log.info("took the changed certificate %s", self._cert)
        return True

    def _load(self, context: ssl.SSLContext) -> bool:
        try:
            context.load_cert_chain(self._cert, self._key, self._password)
        except (OSError, ssl.SSLError) as fault:
            log.warning("the changed certificate %s is not taken, the old one stays: %s", self._cert, fault)
            return False
        return True

    def _look(self) -> _Stamp | None:
        try:
            found = [os.stat(Path(path)) for path in (self._cert, self._key)]
        except OSError:
            return None  # in the middle of being replaced
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)
