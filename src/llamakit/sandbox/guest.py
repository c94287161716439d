"""What runs inside the sandbox before the untrusted code: limits, the last of root, files in, files out.

This file is handed to the sandboxed interpreter as text, so it imports nothing but the standard
library. All it reports is untrusted: the code it runs shares its process.
"""

import builtins
import json
import os
import resource
import stat
import sys


def read_exactly(descriptor: int, size: int) -> bytes:
    """`size` bytes from the host."""
    data = b""
    while len(data) < size:
        piece = os.read(descriptor, min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError("the host sent less than it announced")
        data += piece
    return data


def limit(limits: dict) -> None:
    """Set the limits for good: hard as well as soft."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def drop_root(user: int) -> None:
    """Become a user that owns nothing; the capabilities that allowed it go with it."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def unpack(descriptor: int, files: list) -> None:
    """Write the files the host sent into the working folder."""
    for name, size in files:
        folder = os.path.dirname(name)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(name, "wb") as file:
            file.write(read_exactly(descriptor, size))


def pack(descriptor: int, before: dict, most: int, most_bytes: int) -> None:
    """Name the files that are gone, and send every one that is new or changed: a line of JSON, then its bytes."""
    for path in before:
        if not os.path.lexists(path):
            os.write(descriptor, json.dumps({"gone": path}).encode() + b"\n")
    sent = total = left_out = 0
    for folder, _, names in os.walk("."):
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), ".")
            try:
                facts = os.lstat(path)
                if not stat.S_ISREG(facts.st_mode) or before.get(path) == (facts.st_mtime_ns, facts.st_size):
                    continue
                if sent >= most or total + facts.st_size > most_bytes:
                    left_out += 1
                    if left_out <= most:
                        os.write(descriptor, json.dumps({"left_out": path[:200]}).encode() + b"\n")
                    continue
                with open(path, "rb") as file:
                    data = file.read(facts.st_size)
            except OSError:
                continue
            line = json.dumps({"path": path, "size": len(data)}).encode() + b"\n"
            rest = memoryview(line + data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            sent, total = sent + 1, total + len(data)


def run(path: str) -> None:
    """Run a file as the main program."""
    main_module = type(sys)("__main__")
    main_module.__dict__.update(__file__=path, __builtins__=builtins)
    sys.modules["__main__"] = main_module
    builtins.exit = builtins.quit = sys.exit  # what `site` would have added
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, main_module.__dict__)  # noqa: S102 - running foreign code is what the walls around this are for


def main() -> None:
    """Prepare, run the code as `__main__`, and send back what it wrote."""
    incoming, outgoing = int(sys.argv[1]), int(sys.argv[2])
    order = json.loads(read_exactly(incoming, int(read_exactly(incoming, 12))))
    if order["user"] is not None:
        drop_root(order["user"])
    os.chdir("/work")
    unpack(incoming, order["files"])
    os.close(incoming)
    before = {}
    for name, _ in order["files"]:
        facts = os.lstat(name)
        before[os.path.normpath(name)] = (facts.st_mtime_ns, facts.st_size)
    sys.path[:] = [*order["path"], "/work", *(entry for entry in sys.path if entry)]
    sys.argv = ["main.py"]
    limit(order["limits"])
    os.write(outgoing, b'{"started": true}\n')
    status = 0
    try:
        run(order["main"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException as error:  # noqa: BLE001 - the code may raise anything, and all of it ends here
        status = 1
        show(error)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        pack(outgoing, before, order["most_files"], order["most_bytes"])
        os.write(outgoing, json.dumps({"exit": status & 0xFF}).encode() + b"\n")
        os._exit(status & 0xFF)


def show(error: BaseException) -> None:
    """The traceback, from the untrusted code's first line on."""
    import traceback

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != "main.py":
        trace = trace.tb_next
    if trace is None and not isinstance(error, SyntaxError):
        trace = error.__traceback__
    traceback.print_exception(type(error), error, trace)


if __name__ == "__main__":
    main()
