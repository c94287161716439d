"""How fast is llamakit on this CPU, beside llama.cpp, OpenVINO GenAI, onnxruntime-genai and transformers?

Writes random weights of the Llama-3.2-1B (or 3B) shape once, in the forms that the engines take, then lets every
engine that is installed do the same work in turn (A B A B), each in processes of its own with the same number of
threads: prompts, single and batched decoding, a server under eight clients, a second start, peak memory. Prints
medians, ratios and shares of the machine's limits, measured in the same run; `--json FILE` keeps all of it.

    python bench/cpu_vs_peers.py                            # int4 and int8 against every peer, about an hour
    python bench/cpu_vs_peers.py --precision int4 --rounds 1 --columns prefill_512 decode batch_8

Install the peers with `pip install '.[bench]'` (build llama-cpp-python on the machine itself). `LLAMA_CPP_LIB_PATH`
and `LLAMA_SERVER` name another build of llama.cpp. GCC 12 miscompiles llama.cpp's AMX code: build it there with
CXXFLAGS="-fno-tree-dse -fno-dse". Random weights: speed is real, text is not.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers import serving
from peers.engine import Files, measure, prompt, served
from weights import SHAPES, write_hf

PEERS = {
    "llama_cpp": "llama_cpp",
    "openvino": "openvino_genai",
    "onnxruntime": "onnxruntime_genai",
    "transformers": "transformers",
}
"""Our module of a peer, and the package it needs."""
COMPUTES = {
    "llama_cpp": ("int4", "int8", "bf16"),
    "openvino": ("int4", "int8"),
    "onnxruntime": ("int4",),
    "transformers": ("bf16",),
}
"""What a peer has to set against us."""
GGUF = {"int4": "q4_0", "int8": "q8_0", "bf16": "bf16"}
ENGINE = ("prefill_512", "prefill_2048", "decode", "decode_4096", "batch_8", "batch_32")
SERVER = ("server_8_output", "server_8_ttft")
START, MEMORY = "start_to_first_token", "peak_rss"
COLUMNS = (*ENGINE, *SERVER, START, MEMORY)
LOWER = {"server_8_ttft", START, MEMORY}
UNITS = {"server_8_ttft": "s", START: "s", MEMORY: "MiB"}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(json.loads(sys.argv[2]))))
        return
    args = _arguments()
    with contextlib.ExitStack() as ending:
        home = args.weights or Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="llamakit-bench-")))
        os.environ.setdefault("LLAMA_HOME", str(home / "home"))
        weights = write_weights(home, args.size, args.layers, args.precision)
        limits = measure_limits(args.threads, home)
        rows = [row for precision in args.precision for row in compare(precision, weights, args, limits)]
    if args.json:
        facts = _facts(args) | {"limits": limits}
        args.json.write_text(json.dumps({"facts": facts, "rows": rows}, indent=2) + "\n")


def compare(precision: str, weights: Path, args: argparse.Namespace, limits: dict[str, Any]) -> list[dict[str, Any]]:
    """Every side in turn, `rounds` times; the rows of one precision, printed."""
    wanted = [peer for peer in args.peers if precision in COMPUTES[peer]]
    sides = ["ours", *wanted]
    files = {"hf": str(weights / "hf"), "gguf": str(weights / f"{GGUF[precision]}.gguf"), "precision": precision}
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(args.rounds):
        for side in sides:
            print(f"{precision}, round {number + 1}: {side}", file=sys.stderr)
            runs[side].append(one_round(side, files | {"threads": args.threads}, args))
    rows = []
    for peer in wanted:
        name = _module(peer).NAME
        print(f"\n{precision}, llamakit beside {name} {_module(peer).version()}, {args.threads} threads")
        print(f"{'':24}{'llamakit':>12}{name:>14}{'ratio':>8}")
        for column in args.columns:
            ours, theirs = _median(runs["ours"], column), _median(runs[peer], column)
            if ours is None or theirs is None:
                continue
            row = {"column": column, "quant": precision, "peer": name, "ours": ours, "theirs": theirs}
            row |= {"ratio": ours / theirs, "runs": [[run.get(column) for run in runs[s]] for s in ("ours", peer)]}
            row |= _share(column, ours, precision, args, limits)
            rows.append(row)
            share = f"{row['share']:6.0%} of {row['of']}" if "share" in row else ""
            better = "(lower is better)" if column in LOWER else ""
            unit = UNITS.get(column, "tok/s")
            print(f"{column + ' [' + unit + ']':32}{ours:10.2f}{theirs:10.2f}{row['ratio']:8.2f}  {share}{better}")
    return rows


def one_round(side: str, files: dict[str, Any], args: argparse.Namespace) -> dict[str, float]:
    """All columns of one side."""
    order = {"side": side, "files": files, "tokens": args.tokens}
    found: dict[str, float] = {}
    if START in args.columns:
        # The first start packs, converts or fills the page cache; the second is measured.
        run_child(order | {"do": "start"}, args)
        found |= run_child(order | {"do": "start"}, args)
    engine = [column for column in ENGINE if column in args.columns]
    if engine or MEMORY in args.columns:
        found |= run_child(order | {"do": "engine", "columns": engine}, args)
    if any(column in args.columns for column in SERVER):
        if side in ("ours", "llama_cpp"):
            found |= serve_round(side, files)
        elif side == "openvino":
            found |= run_child(order | {"do": "serve"}, args)
    return found


def serve_round(side: str, given: dict[str, Any]) -> dict[str, float]:
    files, port = _files(given), serving.free_port()
    command = serving.our_command if side == "ours" else serving.llama_server_command
    model = str(files.hf) if side == "ours" else files.gguf.name
    return serving.measure_server(command(files, port), port, model)


def child(order: dict[str, Any]) -> dict[str, float]:
    """One engine's part of a round, in this process."""
    module, files = _module(order["side"]), _files(order["files"])
    engine = module.open_engine(files)
    if order["do"] == "start":
        engine.run([prompt(16, 3)], 1)
        return {START: time.monotonic() - order["spawned"]}
    if order["do"] == "serve":
        prompts = [prompt(serving.PROMPT_TOKENS, 1000 + i) for i in range(serving.CLIENTS)]
        engine.run([prompt(serving.PROMPT_TOKENS, 7)], 4)
        return {"server_8_output": served(engine.run(prompts, serving.NEW_TOKENS))["server_8_output"]}
    found = measure(engine, order["columns"], order["tokens"])
    found[MEMORY] = peak_mib()
    return found


def peak_mib() -> float:
    """Of this program alone: the resource usage of a child also counts what it was forked from."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell a process its peak memory")


def run_child(order: dict[str, Any], args: argparse.Namespace) -> dict[str, float]:
    """The same in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    text = json.dumps(order | {"spawned": time.monotonic()})
    done = subprocess.run([sys.executable, __file__, "--child", text], capture_output=True, text=True, env=env)
    if done.returncode == -11 and order["side"] == "llama_cpp" and "LLAMAKIT_BENCH_NO_REPACK" not in os.environ:
        print("llama.cpp crashed with its repacked weights; going on without them", file=sys.stderr)
        os.environ["LLAMAKIT_BENCH_NO_REPACK"] = "1"
        return run_child(order, args)
    if done.returncode:
        sys.exit(f"{order['side']} failed ({done.returncode}):\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_weights(home: Path, size: str, layers: int | None, precisions: list[str]) -> Path:
    """The checkpoint and its GGUF files; those that are there are taken as they are."""
    place = home / (size if layers is None else f"{size}-{layers}-layers")
    if not (place / "hf" / "config.json").exists():
        print("writing random weights ...", file=sys.stderr)
        shape = SHAPES[size] | ({} if layers is None else {"num_layers": layers})
        write_hf(place / "hf", shape, with_tokenizer=True)
    from llamakit.checkpoints.convert import convert

    for precision in precisions:
        target = place / f"{GGUF[precision]}.gguf"
        if not target.exists():
            print(f"writing {target.name} ...", file=sys.stderr)
            convert(place / "hf", target, quantization=GGUF[precision])  # type: ignore[arg-type]
    return place


def measure_limits(threads: int, home: Path) -> dict[str, Any]:
    """Bandwidth and 8-bit arithmetic of this machine; empty where no compiler is at hand."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return {}
    program = home / "limits"
    source = Path(__file__).with_name("limits.cpp")
    subprocess.run([compiler, "-O2", "-march=native", str(source), "-o", str(program), "-pthread"], check=True)
    done = subprocess.run([str(program), str(threads)], capture_output=True, text=True, check=True)
    limits = json.loads(done.stdout)
    reads, computes = limits["read_bytes_per_s"] / 1e9, limits["int8_ops_per_s"] / 1e9
    print(
        f"limits: reads {reads:.1f} GB/s, computes {computes:,.0f} int8 GOPS ({limits['int8_by']}), {threads} threads"
    )
    return limits


def _share(
    column: str, speed: float, precision: str, args: argparse.Namespace, limits: dict[str, Any]
) -> dict[str, Any]:
    """Of the limit that binds: bytes of weights a token, or multiply-adds of a prompt."""
    if not limits:
        return {}
    shape = SHAPES[args.size] | ({} if args.layers is None else {"num_layers": args.layers})
    attention = shape["dim"] * (2 * shape["num_heads"] + 2 * 8) * shape["head_dim"]
    body = shape["num_layers"] * (attention + 3 * shape["dim"] * shape["ffn_dim"])
    if column == "decode":
        bits = {"int4": 4.25, "int8": 8.0, "bf16": 16.0}[precision]
        head = shape["dim"] * 128256 * bits / 8  # the bytes that int4's second pass reads are few
        return {"share": speed * (body * bits / 8 + head) / limits["read_bytes_per_s"], "of": "bandwidth"}
    if column.startswith("prefill") and precision != "bf16":
        return {"share": speed * 2 * body / limits["int8_ops_per_s"], "of": "int8 arithmetic"}
    return {}


def _median(runs: list[dict[str, float]], column: str) -> float | None:
    values = [run[column] for run in runs if column in run]
    return statistics.median(values) if values else None


def _files(given: dict[str, Any]) -> Files:
    return Files(Path(given["hf"]), Path(given["gguf"]), given["precision"], given["threads"])


def _module(side: str) -> Any:
    return importlib.import_module(f"peers.{side}")


def _facts(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    versions = {_module(peer).NAME: _module(peer).version() for peer in ["ours", *args.peers]}
    facts = {"machine": name, "threads": args.threads, "torch": torch.__version__, "versions": versions}
    return facts | {"command": _told(sys.argv[1:]), "server": serving.server_kind(), "rounds": args.rounds}


def _told(arguments: list[str]) -> list[str]:
    """The command line without places on this machine."""
    places = {i + j for i, word in enumerate(arguments) if word in ("--weights", "--json") for j in (0, 1)}
    return [word for i, word in enumerate(arguments) if i not in places]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found = [peer for peer, package in PEERS.items() if importlib.util.find_spec(package)]
    parser.add_argument("--precision", nargs="+", choices=tuple(GGUF), default=["int4", "int8"])
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS), metavar="COLUMN")
    parser.add_argument("--peers", nargs="+", choices=tuple(PEERS), default=found, help=f"installed: {found}")
    parser.add_argument("--size", choices=tuple(SHAPES), default="1b")
    parser.add_argument("--layers", type=int, help="fewer layers, for a quick look")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32, help="tokens decoded in a measurement")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--weights", type=Path, help="directory to keep the weights in for the next run")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
