"""Results of `cpu_vs_peers.py` as people read them: a page of tables and a picture of the ratios.

    python bench/report.py results.json --page bench/RESULTS.md --picture docs/images/cpu.svg

Nobody types a number: both are made from the JSON alone.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

TITLES = {
    "prefill_512": "prompt of 512 tokens",
    "prefill_2048": "prompt of 2048 tokens",
    "decode": "decoding, one sequence",
    "decode_4096": "decoding behind 4096 tokens",
    "batch_8": "8 sequences together",
    "batch_32": "32 sequences together",
    "server_8_output": "server, 8 clients: output",
    "server_8_ttft": "server, 8 clients: first token",
    "start_to_first_token": "second start to first token",
    "peak_rss": "peak memory",
}
LOWER = {"server_8_ttft", "start_to_first_token", "peak_rss"}
UNITS = {"server_8_ttft": "s", "start_to_first_token": "s", "peak_rss": "MiB"}
HEAD = (
    "# Speed on a CPU beside its peers",
    "",
    "Made by `bench/report.py` from the JSON in `bench/results`; do not edit. Random weights of the Llama-3.2-1B",
    "shape (or 3B, where it says so): speed is real, text is not. Ratios are of medians of one run in which the",
    "engines took turns.",
    "",
)
WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 860, 250, 150, 13, 3, 64
COLOURS = ("#2f6f9f", "#d1813a", "#5b8c5a", "#8a5a8c", "#9a9a3a", "#b05050")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in args.results]
    if args.page:
        args.page.write_text("\n".join([*HEAD, *(section(run) for run in runs)]))
    if args.picture:
        rows = [row for run in runs if size_of(run) == "1B" for row in run["rows"] if row["quant"] != "bf16"]
        args.picture.write_text(picture({"facts": runs[0]["facts"], "rows": rows}))


def section(run: dict[str, Any]) -> str:
    """One run: its facts, and a table for each precision and peer."""
    facts = run["facts"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines = [
        f"## {', '.join(dict.fromkeys(row['quant'] for row in run['rows']))}, {size_of(run)}",
        "",
        f"- command: `python bench/cpu_vs_peers.py {' '.join(facts['command'])}`",
        f"- machine: {facts['machine']}, {facts['threads']} threads",
        f"- versions: {versions}, torch {facts['torch']}",
        f"- medians of {facts['rounds']} rounds; llama.cpp's server: {facts['server']}",
    ]
    if facts.get("limits"):
        reads, ops = facts["limits"]["read_bytes_per_s"] / 1e9, facts["limits"]["int8_ops_per_s"] / 1e12
        lines.append(
            f"- limits in the same run: reads {reads:.1f} GB/s, {ops:.2f} int8 TOPS ({facts['limits']['int8_by']})"
        )
    for precision, peer in groups(run):
        lines += [
            "",
            f"### {precision}, beside {peer}",
            "",
            "| | llamakit | " + peer + " | ratio | share of the limit |",
        ]
        lines += ["|---|---|---|---|---|"]
        for row in rows_of(run, precision, peer):
            unit = UNITS.get(row["column"], "tok/s")
            share = f"{row['share']:.0%} of {row['of']}" if "share" in row else ""
            better = " (lower is better)" if row["column"] in LOWER else ""
            lines.append(
                f"| {TITLES[row['column']]}, {unit}{better} | {row['ours']:.4g} | {row['theirs']:.4g} "
                f"| {row['ratio']:.2f} | {share} |"
            )
    return "\n".join(lines) + "\n"


def size_of(run: dict[str, Any]) -> str:
    """Parameters of the shape."""
    command = run["facts"]["command"]
    return command[command.index("--size") + 1].upper() if "--size" in command else "1B"


def groups(run: dict[str, Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["quant"], row["peer"]) for row in run["rows"]))


def rows_of(run: dict[str, Any], precision: str, peer: str) -> list[dict[str, Any]]:
    return [row for row in run["rows"] if (row["quant"], row["peer"]) == (precision, peer)]


def picture(run: dict[str, Any]) -> str:
    """How many times better than each peer, on a scale of doublings; 1 is even."""
    series = groups(run)
    columns = [column for column in TITLES if any(row["column"] == column for row in run["rows"])]
    found = {
        (row["column"], row["quant"], row["peer"]): 1 / row["ratio"] if row["column"] in LOWER else row["ratio"]
        for row in run["rows"]
    }
    most = max(2.0, *found.values())
    least = min(0.5, *found.values())
    low, high = math.floor(math.log2(least)), math.ceil(math.log2(most))
    scale = (WIDTH - LEFT - RIGHT) / (high - low)
    block = len(series) * (BAR + GAP) + 14
    height = TOP + block * len(columns) + 40

    def x(value: float) -> float:
        return LEFT + (math.log2(value) - low) * scale

    facts = run["facts"]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="17" font-weight="600" fill="#222">llamakit beside its peers, '
        f"{facts['threads']} CPU threads</text>",
        '<text x="16" y="46" font-size="12" fill="#555">times better (1x is even, to the right is llamakit); '
        "Llama-3.2-1B shape, same weights, same run</text>",
    ]
    for power in range(low, high + 1):
        at = x(2.0**power)
        label = f"{2**power}x" if power >= 0 else f"1/{2**-power}x"
        stroke = "#444" if power == 0 else "#ddd"
        out.append(f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{height - 32}" stroke="{stroke}"/>')
        out.append(
            f'<text x="{at:.1f}" y="{height - 16}" font-size="11" fill="#555" text-anchor="middle">{label}</text>'
        )
    for place, column in enumerate(columns):
        top = TOP + place * block
        middle = top + (block - 14) / 2 + 4
        out.append(f'<text x="16" y="{middle:.1f}" font-size="13" fill="#222">{TITLES[column]}</text>')
        for index, (precision, peer) in enumerate(series):
            value = found.get((column, precision, peer))
            if value is None:
                continue
            start, end = sorted((x(1.0), x(value)))
            y = top + index * (BAR + GAP)
            out.append(
                f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{BAR}" rx="2" '
                f'fill="{COLOURS[index % len(COLOURS)]}"/>'
            )
            out.append(
                f'<text x="{max(x(value), x(1.0)) + 5:.1f}" y="{y + BAR - 3}" font-size="11" fill="#333">'
                f"{value:.2g}x {precision} / {peer}</text>"
            )
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
