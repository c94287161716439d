"""Does the server stay responsive while the engine computes?

Serves a model in this process and lets a second process hold a number of streams open. A task on the server's
event loop sleeps a millisecond at a time and records how much later it woke: that lag is what every other request
would have waited. Prints p50, p99 and the largest lag, and what the streams got; `--json FILE` writes them.

    python bench/responsive.py                       # 32 streams of the embedded model
    python bench/responsive.py --model ./my-model --streams 64
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

TICK_S = 0.001
LIMIT_MS = 50.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cria")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        print(json.dumps(asyncio.run(read_streams(args))))
        return
    asyncio.run(serve_and_measure(args))


async def read_streams(args: argparse.Namespace) -> dict[str, float]:
    """The load: every stream at once, each with a prompt of its own."""
    import httpx2

    async with httpx2.AsyncClient(base_url=args.client, timeout=600) as client:

        async def one(number: int) -> tuple[float, int]:
            body = {
                "model": args.model,
                "stream": True,
                "max_tokens": args.tokens,
                "ignore_eos": True,
                "messages": [{"role": "user", "content": f"Tell me about number {number}."}],
            }
            began, first, chunks = time.perf_counter(), 0.0, 0
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        chunks += 1
                        first = first or time.perf_counter() - began
            return first, chunks

        began = time.perf_counter()
        results = await asyncio.gather(*(one(number) for number in range(args.streams)))
        took = time.perf_counter() - began
    return {
        "first_chunk_p50_s": statistics.median(first for first, _ in results),
        "tokens_per_s": args.streams * args.tokens / took,
        "chunks": sum(chunks for _, chunks in results),
        "took_s": took,
    }


async def serve_and_measure(args: argparse.Namespace) -> None:
    from llamakit.server.listen import address_of, listen
    from llamakit.server.serve import serve_on
    from llamakit.stack.distribution import single
    from llamakit.stack.run_config import ServeConfig

    config = ServeConfig(port=0)
    bound = listen(config)
    distribution = single(models=(args.model,), server=config)
    ready, stop, lags = asyncio.Event(), asyncio.Event(), []
    server = asyncio.create_task(serve_on(bound, distribution, on_ready=lambda _: ready.set(), stop=stop))
    await ready.wait()

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            lags.append((time.perf_counter() - began - TICK_S) * 1e3)

    ticking = asyncio.create_task(tick())
    command = [sys.executable, __file__, "--client", address_of(config, bound), "--model", args.model]
    command += ["--streams", str(args.streams), "--tokens", str(args.tokens)]
    client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await client.communicate()
    ticking.cancel()
    stop.set()
    await server
    if client.returncode:
        sys.exit("the client failed")
    lags.sort()
    result = {
        "streams": args.streams,
        "lag_p50_ms": lags[len(lags) // 2],
        "lag_p99_ms": lags[int(len(lags) * 0.99)],
        "lag_max_ms": lags[-1],
        **json.loads(output),
    }
    for key, value in result.items():
        print(f"{key:20}{value:12.2f}")
    verdict = "within" if result["lag_p99_ms"] <= LIMIT_MS else "ABOVE"
    print(f"event-loop lag p99 is {verdict} {LIMIT_MS:.0f} ms")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
