"""How soon a server answers and what it then holds: a remote-only distribution, and `llama serve` as it comes.

Each start is a process of its own in an empty data home; time runs from its creation to the first answer of
`/health`. The packages counted are those of the core install, by the requirements that are installed here.

    python bench/startup.py
    python bench/startup.py --starts 9 --json bench/results/startup.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SERVERS = {
    "remote-only": (["stack", "run", "vllm", "--port", "0"], {"ready_s": 1.0, "rss_mb": 80.0}),
    "local": (["serve", "--port", "0"], {"ready_s": 4.0}),
}
"""What is started, and the goals."""
MAX_PACKAGES = 42
READY_S = 120.0


def start_once(arguments: list[str]) -> dict[str, float | bool]:
    """One start: seconds until it answers, of the processor too, and its memory then."""
    with tempfile.TemporaryDirectory() as home:
        environ = os.environ | {"PYTHONPATH": str(ROOT / "src"), "LLAMA_HOME": home}
        # An installed package is compiled; so must this one be, whatever this shell says.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "llamakit", *arguments], env=environ, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            address = next(
                (found[1] for line in process.stderr if (found := re.search(r"serving on (http://\S+)", line))), None
            )
            if address is None:
                raise SystemExit(f"llama {' '.join(arguments)} did not start")
            httpx2.get(f"{address}/health").raise_for_status()
            ready = time.perf_counter() - began
            seen = psutil.Process(process.pid)
            cpu = seen.cpu_times()
            maps = Path(f"/proc/{process.pid}/maps")
            return {
                "ready_s": ready,
                "cpu_s": cpu.user + cpu.system,
                "rss_mb": seen.memory_info().rss / 1e6,
                "has_torch": maps.exists() and "libtorch" in maps.read_text(),
            }
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def core_packages() -> list[str]:
    """The run-time packages of an install without extras, the package itself included."""
    found, waiting = set[str](), [("llamakit", frozenset[str]())]
    project = (ROOT / "pyproject.toml").read_text()
    ours = re.findall(r'^  "([^"]+)",$', project.partition("\ndependencies = [")[2].partition("\n]")[0], re.MULTILINE)
    while waiting:
        name, extras = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        found.add(key)
        needs = ours if key == "llamakit" else importlib.metadata.requires(name) or []
        for need in map(Requirement, needs):
            wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""})
            if wanted:
                waiting.append((need.name, frozenset(need.extras)))
    return sorted(found)


def measure(starts: int) -> dict[str, Any]:
    """Everything, and whether the goals are met."""
    made: dict[str, Any] = {}
    for name, (arguments, goals) in SERVERS.items():
        start_once(arguments)  # the first reads from the disk what the others find in memory
        runs = [start_once(arguments) for _ in range(starts)]
        figures = {
            key: {"min": min(values), "median": statistics.median(values), "max": max(values)}
            for key in ("ready_s", "cpu_s", "rss_mb")
            for values in [[float(run[key]) for run in runs]]
        }
        met = {key: figures[key]["median"] <= goal for key, goal in goals.items()}
        made[name] = {"command": f"llama {' '.join(arguments)}", **figures, "goals": goals, "met": met}
        made[name]["has_torch"] = any(run["has_torch"] for run in runs)
    packages = core_packages()
    made["packages"] = {"count": len(packages), "goal": MAX_PACKAGES, "met": len(packages) <= MAX_PACKAGES}
    made["packages"]["names"] = packages
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5, help="starts of each server that count")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args()
    made = measure(args.starts)
    for name in SERVERS:
        row = made[name]
        print(f"{name:12} {row['command']}")
        for key, figure in ((key, row[key]) for key in ("ready_s", "cpu_s", "rss_mb")):
            goal = f"  goal {row['goals'][key]:g}" if key in row["goals"] else ""
            print(f"  {key:8} {figure['median']:8.2f}  ({figure['min']:.2f} to {figure['max']:.2f}){goal}")
        print(f"  torch    {'yes' if row['has_torch'] else 'no':>8}")
    print(f"core install {made['packages']['count']} packages  goal {MAX_PACKAGES}")
    if args.json:
        command = [sys.executable, *sys.argv]
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        machine = {
            "commit": commit.stdout.strip(),
            "python": platform.python_version(),
            "machine": platform.platform(),
            "cores": os.cpu_count(),
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"command": command, "starts": args.starts, **machine, **made}, indent=2))


if __name__ == "__main__":
    main()
