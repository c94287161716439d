"""The command line that builds the walls: namespaces, a small read-only root, no capabilities, a filter.

Run as root, bubblewrap makes the walls with root's means and the guest becomes a user that exists
nowhere else; run as anybody else, a user namespace does the same. Knows no code and no result.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from llamakit.core.errors import SandboxUnavailable

_TREE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Where programs and libraries live; on most systems all but the first are links into it."""

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/work",
    "TMPDIR": "/work",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Walls:
    """Where the tools are and what the sandbox shows of the machine."""

    bwrap: Path
    python: Path
    """The interpreter itself, not a virtual environment's link to it."""
    prefix: Path
    """The installation it belongs to; shown read-only at the same place."""
    packages: Path | None = None
    """A folder of packages the code may import; shown read-only as `/packages`."""

    @classmethod
    def find(cls, packages: Path | None = None) -> Walls:
        """The tools of this machine, or `SandboxUnavailable` naming what is missing."""
        if sys.platform != "linux":
            raise SandboxUnavailable(f"the code interpreter needs Linux namespaces; this is {sys.platform}")
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise SandboxUnavailable("the code interpreter needs bubblewrap (bwrap): apt install bubblewrap")
        python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        return cls(bwrap=Path(bwrap), python=python, prefix=Path(sys.base_prefix).resolve(), packages=packages)

    @property
    def needs_user(self) -> bool:
        """Whether the guest still has to give up root."""
        return os.geteuid() == 0

    def command(self, *, filter_fd: int, disk_bytes: int, inner: list[str]) -> list[str]:
        """The arguments that run `inner` behind the walls; the descriptor holds the filter's bytes."""
        arguments = [str(self.bwrap), "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        arguments += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--hostname", "sandbox"]
        if self.needs_user:
            arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            arguments += ["--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]
        for name in _TREE:
            arguments += self._show(Path(name))
        if not self.prefix.is_relative_to("/usr"):
            for parent in reversed(self.prefix.parents[:-1]):
                arguments += ["--perms", "0755", "--dir", str(parent)]
            arguments += ["--ro-bind", str(self.prefix), str(self.prefix)]
        arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
        if self.packages is not None:
            arguments += ["--ro-bind", str(self.packages), "/packages"]
        arguments += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        # Readable and writable by whatever user the guest becomes; it is the only one there.
        arguments += ["--perms", "1777", "--size", str(disk_bytes), "--tmpfs", "/work", "--remount-ro", "/"]
        arguments += ["--clearenv"]
        for name, value in ENVIRONMENT.items():
            arguments += ["--setenv", name, value]
        return [*arguments, "--chdir", "/work", "--seccomp", str(filter_fd), "--", *inner]

    def _show(self, path: Path) -> list[str]:
        if path.is_symlink():
            return ["--symlink", os.readlink(path), str(path)]
        return ["--ro-bind", str(path), str(path)] if path.is_dir() else []
