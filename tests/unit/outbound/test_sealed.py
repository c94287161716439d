"""The sealed stretch: whoever uses the network in it is refused and counted; after it, all is as before."""

import ctypes
import os
import socket
import struct
import sys
import threading
import urllib.error
import urllib.request

import pytest

from llamakit.core.errors import OutboundRefused
from llamakit.outbound.sealed import sealed


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_every_way_out_is_refused_and_counted(listener):
    port = listener.getsockname()[1]
    with sealed() as seal, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        ways = (
            lambda: socket.create_connection(("127.0.0.1", port)),
            lambda: socket.getaddrinfo("example.org", 80),
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/"),
            lambda: datagram.sendto(b"x", ("127.0.0.1", port)),
        )
        for way in ways:
            with pytest.raises((OutboundRefused, urllib.error.URLError), match="the network is shut"):
                way()
        assert len(seal.attempts) == len(ways) and seal.connections_opened == 0
        first, second = socket.socketpair()
        first.close()
        second.close()
    socket.create_connection(("127.0.0.1", port)).close()


def test_it_holds_in_every_thread_and_may_be_nested(listener):
    address = listener.getsockname()
    failures = []

    def reach():
        try:
            socket.create_connection(address).close()
        except OutboundRefused as fault:
            failures.append(fault)

    with sealed() as outer, sealed() as inner:
        thread = threading.Thread(target=reach)
        thread.start()
        thread.join()
    assert len(failures) == len(outer.attempts) == len(inner.attempts) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="addresses are laid out otherwise")
def test_a_connection_behind_the_interpreters_back_shows_in_the_kernels_list(listener):
    libc = ctypes.CDLL(None)
    host, port = listener.getsockname()
    address = struct.pack("=H2s4s8x", socket.AF_INET, struct.pack("!H", port), socket.inet_aton(host))
    with sealed() as seal:
        if not seal.is_known_to_the_kernel:
            pytest.skip("the kernel does not list sockets here")
        descriptor = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        try:
            assert libc.connect(descriptor, address, len(address)) == 0
            assert seal.attempts == [] and seal.connections_opened == 1
        finally:
            os.close(descriptor)
