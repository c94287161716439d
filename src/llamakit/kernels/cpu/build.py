"""Build the CPU kernels into the source tree: `python -m llamakit.kernels.cpu.build`.

For developers: an installed package brings its library along. The library is put beside this file by a rename,
so that running programs keep the one they loaded.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def library_name() -> str:
    """File name of the library on this system."""
    return {"win32": "llamakit_cpu.dll"}.get(sys.platform, "libllamakit_cpu.so")


def build(into: Path = HERE, *, sanitize: bool = False) -> Path:
    """Compile the library and put it into the folder `into`; needs cmake and a C++17 compiler.

    Raises FileNotFoundError without cmake and CalledProcessError when the compiler fails.
    """
    cmake = shutil.which("cmake")
    if cmake is None:
        raise FileNotFoundError("building the CPU kernels needs cmake 3.18 or newer and a C++17 compiler on the PATH")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="llamakit-cpu-") as folder:
        options = [f"-DLLAMAKIT_SANITIZE={'ON' if sanitize else 'OFF'}", "-DCMAKE_BUILD_TYPE=Release"]
        subprocess.run([cmake, "-S", str(HERE), "-B", folder, *options], check=True, stdout=sys.stderr)
        subprocess.run([cmake, "--build", folder, "--config", "Release", "--parallel"], check=True, stdout=sys.stderr)
        made = next(path for path in Path(folder).rglob(library_name()))
        fresh = into / f".{library_name()}.{os.getpid()}"
        shutil.copy2(made, fresh)
        return fresh.replace(into / library_name())


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description="Build llamakit's CPU kernels.")
    parser.add_argument("--into", type=Path, default=HERE, help="folder for the library (default: the source tree)")
    parser.add_argument("--sanitize", action="store_true", help="with address and undefined-behaviour sanitizers")
    arguments = parser.parse_args()
    print(build(arguments.into, sanitize=arguments.sanitize))


if __name__ == "__main__":
    main()
