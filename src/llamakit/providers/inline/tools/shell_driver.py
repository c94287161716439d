"""Runs the commands of a shell inside the sandbox, one after the other, and tells what each printed and how it ended.

This file is handed to the sandboxed interpreter as text behind a line that sets `ORDER`, so it imports nothing but
the standard library. What it prints is untrusted: the commands share its folder and its user.
"""

import json
import os
import select
import signal
import subprocess
import time
import zipfile

ORDER: dict = {}  # replaced by the line before, when this is run
KILLED_S = 0.5


def unpack(folder: str) -> None:
    """Unpack the skills that came as archives and were not unpacked yet."""
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        place = os.path.join(folder, name.removesuffix(".zip"))
        if name.endswith(".zip") and not os.path.isdir(place):
            with zipfile.ZipFile(os.path.join(folder, name)) as archive:
                archive.extractall(place)


def run(command: str, ends: float, most: int) -> dict:
    """One command: what it printed, up to `most` bytes of either stream, and its exit code; None when time was up."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None, "both are pipes"
    pipes = {process.stdout.fileno(): [], process.stderr.fileno(): []}
    sizes = dict.fromkeys(pipes, 0)
    first, second = pipes.values()
    left = set(pipes)
    while left and time.monotonic() < ends:
        ready, _, _ = select.select(list(left), [], [], max(0.0, ends - time.monotonic()))
        for descriptor in ready:
            piece = os.read(descriptor, 65536)
            if not piece:
                left.discard(descriptor)
            elif sizes[descriptor] < most:
                pipes[descriptor].append(piece[: most - sizes[descriptor]])
                sizes[descriptor] += len(piece)
    code = None
    try:
        code = process.wait(max(0.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait(KILLED_S)
    if code is not None and code < 0:
        code = 128 - code  # as a shell tells of a signal
    return {"stdout": text(first), "stderr": text(second), "exit": code}


def text(pieces: list) -> str:
    """The bytes as text."""
    return b"".join(pieces).decode("utf-8", "replace")


def main() -> None:
    """Run the order."""
    os.unlink("main.py")
    os.environ["PATH"] = ORDER["path"]
    unpack("skills")
    ends = time.monotonic() + ORDER["seconds"]
    for command in ORDER["commands"]:
        done = run(command, ends, ORDER["most_bytes"])
        print(json.dumps(done), flush=True)
        if done["exit"] is None:
            break


if __name__ == "__main__":
    main()
