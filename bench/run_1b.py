"""How fast is a model of the true Llama-3.2-1B shape, here and in transformers?

Writes random weights once, then runs each side in a process of its own, in turn (A B A B), on the same
work: load, a 512-token prompt to the first token, prefill and decode rates, peak resident memory. Prints
medians and ratios, and writes JSON with `--json FILE`. Random weights: speed is real, text is not.

    python bench/run_1b.py                    # bfloat16, the default shape
    python bench/run_1b.py --layers 4         # a quarter of the depth, for a quick look
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from weights import SHAPES, write_hf

SIDES = ("llamakit", "transformers")
COLUMNS = {
    "load_s": "load [s]",
    "ttft_s": "time to first token [s]",
    "prefill_tok_s": "prefill [tok/s]",
    "decode_tok_s": "decode [tok/s]",
    "peak_rss_mib": "peak memory [MiB]",
}
LOWER_IS_BETTER = {"load_s", "ttft_s", "peak_rss_mib"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512, help="prompt tokens")
    parser.add_argument("--decode", type=int, default=32, help="tokens to generate")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--model", type=Path, help="an existing Hugging Face directory instead of random weights")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)))
        return
    with tempfile.TemporaryDirectory(prefix="llamakit-bench-") as scratch:
        if args.model is None:
            args.model = Path(scratch) / "model"
            print(f"writing random weights, {args.layers} layers ...", file=sys.stderr)
            write_hf(args.model, SHAPES["1b"] | {"num_layers": args.layers})
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for number in range(args.rounds):
            for side in SIDES:
                print(f"round {number + 1}: {side}", file=sys.stderr)
                runs[side].append(run_side(side, args))
    report(runs, args)


def run_side(side: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--model", str(args.model)]
    command += ["--prompt", str(args.prompt), "--decode", str(args.decode), "--threads", str(args.threads)]
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace) -> dict[str, float]:
    prompt = [1 + (7919 * i) % 128_000 for i in range(args.prompt)]
    start = time.perf_counter()
    generate = open_llamakit(args) if args.side == "llamakit" else open_transformers(args)
    load_s = time.perf_counter() - start
    generate(prompt[:32], 2)  # warm-up: thread pools, lazily packed weights
    start = time.perf_counter()
    generate(prompt[1:] + prompt[:1], 1)  # not a prefix of anything seen
    ttft_s = time.perf_counter() - start
    start = time.perf_counter()
    generate(prompt[2:] + prompt[:2], 1 + args.decode)
    decode_s = time.perf_counter() - start - ttft_s
    return {
        "load_s": load_s,
        "ttft_s": ttft_s,
        "prefill_tok_s": args.prompt / ttft_s,
        "decode_tok_s": args.decode / max(decode_s, 1e-9),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def open_llamakit(args: argparse.Namespace):
    import torch

    from llamakit.checkpoints.load import load_model
    from llamakit.core.sampling import SamplingParams
    from llamakit.engine.config import EngineConfig, SpeculationConfig
    from llamakit.engine.engine import Engine
    from llamakit.engine.request import Request

    torch.set_num_threads(args.threads)
    model = load_model(args.model, dtype=torch.bfloat16).model
    config = EngineConfig(
        max_context=args.prompt + args.decode + 64, speculation=SpeculationConfig(max_tokens=0), cache_bytes=256 << 20
    )
    engine = Engine(model, config)

    def generate(prompt: list[int], count: int) -> None:
        sampling = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
        engine.submit(Request(id="bench", prompt_ids=tuple(prompt), sampling=sampling))
        while engine.has_work:
            engine.step()

    return generate


def open_transformers(args: argparse.Namespace):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()

    def generate(prompt: list[int], count: int) -> None:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=count,
                max_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )

    return generate


def report(runs: dict[str, list[dict[str, float]]], args: argparse.Namespace) -> None:
    medians = {side: {key: statistics.median(run[key] for run in runs[side]) for key in COLUMNS} for side in SIDES}
    rows = []
    print(f"{'':26}{'llamakit':>12}{'transformers':>14}{'ratio':>8}")
    for key, title in COLUMNS.items():
        ours, theirs = medians["llamakit"][key], medians["transformers"][key]
        ratio = ours / theirs
        rows.append({"column": key, "ours": ours, "theirs": theirs, "ratio": ratio})
        better = "lower is better" if key in LOWER_IS_BETTER else ""
        print(f"{title:26}{ours:12.2f}{theirs:14.2f}{ratio:8.2f}  {better}")
    if args.json:
        import torch

        machine = platform.processor() or platform.machine()
        facts = {"machine": machine, "threads": args.threads, "torch": torch.__version__}
        args.json.write_text(json.dumps({"facts": facts, "rows": rows, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
