"""The chat in a real terminal: typed lines, a streamed answer, Ctrl-C that stops only the answer."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.tiny import tiny_checkpoint

import llamakit

SRC = Path(llamakit.__file__).parents[1]
PATIENCE_S = 90
PROMPT_IS_GONE = "\x1b[?2004l"
"""What the line editor writes last, before the answer begins."""


class Terminal:
    """A process on a pseudo-terminal; `until` reads what it prints."""

    def __init__(self, *arguments: str, home: Path) -> None:
        self._master, slave = pty.openpty()
        environ = {"PYTHONPATH": str(SRC), "PATH": "/usr/bin:/bin", "HOME": str(home), "LLAMA_HOME": str(home),
                   "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llamakit", *arguments],
            stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def some(self, count: int) -> None:
        """Wait for that many characters."""
        self._read(lambda: len(self._seen) >= count, f"{count} characters")

    def _read(self, is_there: Callable[[], bool], wanted: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_there():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited for {wanted}, saw {self._seen[-2000:]!r}")
            if select.select([self._master], [], [], 0.2)[0]:
                self._seen += os.read(self._master, 65536).decode(errors="replace")

    def until(self, wanted: str) -> str:
        """Everything up to and with `wanted`."""
        self._read(lambda: wanted in self._seen, repr(wanted))
        before, found, self._seen = self._seen.partition(wanted)
        return before + found

    def close(self) -> int:
        """Exit code of the process, which should be leaving."""
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def _take_terminal() -> None:
    """Make the pseudo-terminal the controlling one, so that Ctrl-C typed there is a signal that is heeded."""
    import fcntl
    import signal
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Tests that run in the background may have been started with it ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_person_chats(tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "tiny", context_length=65_536)
    terminal = Terminal(
        "run",
        str(model),
        "--format",
        "llama3.2",
        "-t",
        "0",
        "-n",
        "60000",
        "--no-speculation",
        "--threads",
        "1",
        home=tmp_path,
    )
    try:
        terminal.until(">>>")
        terminal.type('/set system """be\r')
        terminal.until("...")
        terminal.type('brief"""\r')
        terminal.until(">>>")
        terminal.type("/show system\r")
        terminal.until("be\r\nbrief")
        terminal.until(">>>")
        terminal.type("Hello\r")
        terminal.until(PROMPT_IS_GONE)
        terminal.some(200)  # of the answer: the keys are the shell's again
        terminal.type("\x03")
        terminal.until("(stopped)")
        terminal.until(">>>")
        terminal.type("/set parameter num_predict 3\r")
        terminal.until(">>>")
        terminal.type("Once more\r")
        terminal.until("(cut at the token limit)")
        terminal.until(">>>")
        terminal.type("\x04")
        assert terminal.close() == 0
    finally:
        terminal.kill()
    history = (tmp_path / "history").read_text()
    assert "+Hello" in history and (tmp_path / "history").stat().st_mode & 0o077 == 0
