"""The socket a server listens on: errors that say what to do, and files that are taken away."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from llamakit.core.errors import ConfigError
from llamakit.server.listen import address_of, listen, release
from llamakit.stack.run_config import ServeConfig


def test_a_free_port():
    config = ServeConfig(port=0)
    bound = listen(config)
    assert address_of(config, bound).startswith("http://127.0.0.1:")
    release(config, bound)


def test_a_taken_port_says_what_to_do():
    first = listen(ServeConfig(port=0))
    port = first.getsockname()[1]
    with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is taken.*--port {port + 1}"):
        listen(ServeConfig(port=port))
    first.close()


def test_an_address_of_another_machine():
    with pytest.raises(ConfigError, match="not an address of this machine"):
        listen(ServeConfig(host="203.0.113.7", port=0, allow_anonymous=True))
    with pytest.raises(ConfigError, match="cannot listen on host"):
        listen(ServeConfig(host="no such host", port=0, allow_anonymous=True))


def test_a_unix_socket_is_private_and_removed(tmp_path):
    config = ServeConfig(uds=str(tmp_path / "s"))
    bound = listen(config)
    assert stat.S_IMODE(os.stat(config.uds).st_mode) == 0o600
    assert address_of(config, bound) == f"unix:{config.uds}"
    with pytest.raises(ConfigError, match="another server listens"):
        listen(config)
    release(config, bound)
    assert not os.path.exists(config.uds)


def test_a_stale_unix_socket_is_replaced_and_a_file_is_not(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(path)
    release(ServeConfig(uds=path), listen(ServeConfig(uds=path)))
    (tmp_path / "f").write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"):
        listen(ServeConfig(uds=str(tmp_path / "f")))
    assert (tmp_path / "f").read_text() == "precious"
    with pytest.raises(ConfigError, match="cannot listen on the Unix socket"):
        listen(ServeConfig(uds=str(tmp_path / "no" / "such" / "dir")))
