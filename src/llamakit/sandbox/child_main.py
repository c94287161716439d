"""The child's side of `child.py`: import the reader, lock the door, read, answer in JSON.

Run as `python -m llamakit.sandbox.child_main module:function DESCRIPTOR`; the order comes on
standard input as one line of JSON and then the document's bytes.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import sysconfig

from llamakit.core.errors import LlamakitError
from llamakit.sandbox.lockdown import limit, lock


def main() -> None:
    """Do one order and end."""
    descriptor = int(sys.argv[2])
    try:
        reply = {"result": _serve(sys.argv[1])}
    except LlamakitError as error:
        reply = {"error": str(error), "kind": type(error).__name__}
    except MemoryError:
        reply = {"error": "it needs more memory than a reader may use", "kind": "DocumentError"}
    except RecursionError:
        reply = {"error": "it is nested too deeply", "kind": "DocumentError"}
    except Exception as error:  # noqa: BLE001 - a library that trips over a hostile file may raise anything
        reply = {"error": f"{type(error).__name__}: {error}"[:500], "kind": "DocumentError"}
    data = memoryview(json.dumps(reply).encode())
    while data:
        data = data[os.write(descriptor, data) :]
    # No clean-up of the interpreter: it could run code of half-built objects.
    os._exit(0)


def _serve(target: str) -> object:
    module_name, _, function_name = target.partition(":")
    function = getattr(importlib.import_module(module_name), function_name)
    order = json.loads(sys.stdin.buffer.readline())
    document = sys.stdin.buffer.read()
    # Limits first: the address space counts from here on what the document makes of it.
    limit(memory_bytes=order["memory_bytes"], cpu_s=order["cpu_s"])
    layers = lock(_readable())
    result = function(document, **order["options"])
    return {"layers": layers, "value": result}


def _readable() -> set[str]:
    """Python itself, its packages and the libraries under it; a lazy import may still need them."""
    paths = sysconfig.get_paths()
    own = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return {*own, sys.base_prefix, sys.prefix, "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", *filter(None, sys.path)}


if __name__ == "__main__":
    main()
