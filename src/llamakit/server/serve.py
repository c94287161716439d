"""Run a server until it is asked to stop: take the address, load the models, answer, drain, leave.

A first SIGTERM or SIGINT stops new connections and gives running answers `drain_s`; what still runs then is
ended with an error event, never cut silently. A second SIGINT ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import psutil
import uvicorn

from llamakit.api.limits import LIMITS, Limits
from llamakit.core.errors import ConfigError
from llamakit.outbound.offline import shut
from llamakit.server.app import build_service_app
from llamakit.server.certificates import CIPHERS, Certificate, harden
from llamakit.server.listen import address_of, listen, release
from llamakit.server.metrics import Metrics
from llamakit.server.protocol import protocol_class
from llamakit.server.service import Service
from llamakit.stack.build import Stack, build_stack
from llamakit.stack.distribution import Distribution
from llamakit.stack.run_config import ServeConfig

log = logging.getLogger(__name__)

Ready = Callable[[str], None]
"""Called once with the address when requests are answered."""

GRACE_S = 5
"""Seconds after the drain in which the answers that were ended may tell their clients so."""


def serve(
    distribution: Distribution, *, stack: Stack | None = None, limits: Limits = LIMITS, on_ready: Ready | None = None
) -> None:
    """Serve until a signal says to stop; raises what keeps it from starting.

    Where the distribution is offline, this process opens no connection to other machines any more.
    """
    if distribution.server.offline:
        shut()
    bound = listen(distribution.server)
    _leave_no_core()
    try:
        with asyncio.Runner() as runner:
            runner.run(serve_on(bound, distribution, stack=stack, limits=limits, on_ready=on_ready))
    finally:
        release(distribution.server, bound)


async def serve_on(
    bound: socket.socket,
    distribution: Distribution,
    *,
    stack: Stack | None = None,
    limits: Limits = LIMITS,
    on_ready: Ready | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve on a bound socket until a signal says to stop, or `stop` is set; either way answers are drained."""
    config = distribution.server
    stack = build_stack(distribution) if stack is None else stack
    try:
        service = Service(
            stack=stack,
            config=config,
            metrics=Metrics(stack.inference.stats),
            limits=limits,
        )
        settings = _uvicorn_config(service)
        server = _Server(settings, service, address_of(config, bound), on_ready)
        await stack.start()
        await _warn_without_keys(config, stack)
        if config.preload:
            for model in stack.default_models:
                await stack.inference.load(model)
        _check_memory(config)
        beside = [asyncio.ensure_future(server.exit_when(stop))] if stop is not None else []
        if settings.ssl is not None:
            beside.append(asyncio.ensure_future(Certificate(config, settings.ssl).watch()))
        try:
            await server.serve(sockets=[bound])
        finally:
            for task in beside:
                task.cancel()
    finally:
        await stack.aclose()


def _check_memory(config: ServeConfig) -> None:
    """Raise `ConfigError` where the process has more than its budget before the first request."""
    if config.memory_mib is None:
        return
    taken = psutil.Process().memory_info().rss >> 20
    if taken > config.memory_mib:
        raise ConfigError(
            f"the server takes {taken} MiB with its models loaded, and memory_mib is {config.memory_mib}; "
            "choose a smaller model, less context, or --quantize int4"
        )


def _leave_no_core() -> None:
    """Keys and prompts are in memory, so a crash writes none of it to the disk."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


async def _warn_without_keys(config: ServeConfig, stack: Stack) -> None:
    """A server that takes only keys of its database, and has none, lets nobody in."""
    if config.require_key and not config.api_keys and config.oidc is None and not await stack.keys.list():
        log.warning("no key is in the database yet, so nobody is let in; make one with `llama key create NAME`")


def _uvicorn_config(service: Service) -> uvicorn.Config:
    config, limits = service.config, service.limits
    made = uvicorn.Config(
        build_service_app(service),
        http=protocol_class(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_graceful_shutdown=int(config.drain_s) + GRACE_S,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        ssl_keyfile_password=config.tls_key_password.reveal() if config.tls_key_password else None,
        ssl_ca_certs=config.tls_client_ca,
        ssl_cert_reqs=ssl.CERT_REQUIRED if config.tls_client_ca else ssl.CERT_NONE,
        ssl_ciphers=CIPHERS,
    )
    try:
        made.load()
        if made.ssl is not None:
            harden(made.ssl)
    except (OSError, ssl.SSLError) as fault:
        raise ConfigError(
            f"cannot use the certificate {config.tls_cert!r} with the key {config.tls_key!r}: {fault}"
        ) from None
    return made


class _Server(uvicorn.Server):
    """uvicorn's server that says when it is ready, drains by our clock, and ends well after a signal."""

    def __init__(self, config: uvicorn.Config, service: Service, address: str, on_ready: Ready | None) -> None:
        super().__init__(config)
        self._service = service
        self._address = address
        self._on_ready = on_ready

    async def exit_when(self, stop: asyncio.Event) -> None:
        """Ask the server to stop once `stop` is set."""
        await stop.wait()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            log.info("serving on %s", self._address)
            if self._on_ready is not None:
                self._on_ready(self._address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        drain, drain_s = self._service.drain, self._service.config.drain_s
        drain.stop()
        if drain.num_running:
            log.info("stopping; %d answers have %g s to end", drain.num_running, drain_s)
        timer = asyncio.get_running_loop().call_later(drain_s, drain.cut)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals and do not raise them again afterwards: stopping when asked is success."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
