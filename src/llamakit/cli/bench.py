"""`llama bench`: how fast a model is here, and which share of the machine's own limit that is."""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamakit.cli.options import Context, Device, Dtype, Kv, Quantize, Threads, load_llm
from llamakit.cli.terminal import put_facts, put_json, say, size, working
from llamakit.core.errors import ConfigError, EngineStopped
from llamakit.core.messages import Done
from llamakit.core.sampling import SamplingParams

if TYPE_CHECKING:
    from llamakit.kernels.machine import Limits
    from llamakit.runtime.llm import LLM


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Medians over the runs, with what they are compared to."""

    model: str
    parameters: int
    weights_bytes: int
    dtype: str
    device: str
    threads: int
    prompt_tokens: int
    generated_tokens: int
    runs: int
    load_s: float
    ttft_s: float
    """From the request to the first token, median."""
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    decode_tokens_per_s_min: float
    decode_tokens_per_s_max: float
    machine_read_bytes_per_s: float
    machine_flops_per_s: float
    decode_share_of_bandwidth: float
    """Bytes of weights and cache read per second, over what the machine can read."""
    prefill_share_of_compute: float
    """Multiplications of the prompt per second, over what the machine can do."""


def command(
    model: Annotated[str | None, typer.Argument(help="Any name of a model; by default the one of the package.")] = None,
    prompt_tokens: Annotated[int, typer.Option("--prompt", "-p", min=2, help="Tokens of the prompt.")] = 512,
    new_tokens: Annotated[int, typer.Option("--generate", "-n", min=2, help="Tokens to generate.")] = 128,
    runs: Annotated[int, typer.Option("--runs", "-r", min=1, help="Measured runs, after one to warm up.")] = 3,
    threads: Threads = None,
    device: Device = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    kv: Kv = None,
    context: Context = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """\b
    llama bench
    llama bench llama3.2:1b --prompt 1024 --generate 64 --json

    Measure time to first token and tokens per second of prompt and answer, one request at a time, and compare with the
    memory bandwidth and matrix speed of this machine, measured in the same run with the same threads and dtype. A model
    that fits into the processor's cache can read faster than memory and so exceed 100 %.
    """
    started = time.perf_counter()
    llm = load_llm(
        model, context=context, threads=threads, device=device, dtype=dtype, quantize=quantize, kv=kv, speculation=False
    )
    load_s = time.perf_counter() - started
    with llm:
        if prompt_tokens + new_tokens > llm.context:
            raise ConfigError(
                f"--prompt {prompt_tokens} and --generate {new_tokens} make {prompt_tokens + new_tokens} tokens, "
                f"{llm.name} holds {llm.context}; ask for fewer"
            )
        with working("measuring"):
            measured = measure(llm, prompt_tokens, new_tokens, runs, load_s)
    if as_json:
        put_json(asdict(measured))
    else:
        put_facts(_for_people(measured))
        say(
            "\nOne request at a time, speculation off; a server with many requests does more tokens per second.",
            "faint",
        )


def measure(llm: LLM, prompt_tokens: int, new_tokens: int, runs: int, load_s: float) -> Measured:
    """Run and compare."""
    from llamakit.kernels.machine import DEFAULT_BUFFER_BYTES, measure_limits
    from llamakit.runtime.memory import available_bytes

    dtype = llm.opened.model.dtype
    buffer_bytes = min(DEFAULT_BUFFER_BYTES, available_bytes() // 4)
    limits = measure_limits(dtype, device=llm.opened.model.device, buffer_bytes=buffer_bytes)
    seeds = iter(range(runs + 1))
    _run(llm, prompt_tokens, new_tokens, next(seeds))
    samples = [_run(llm, prompt_tokens, new_tokens, seed) for seed in seeds]
    prefill = statistics.median(prompt_tokens / sample.ttft_s for sample in samples)
    decodes = [(sample.tokens - 1) / sample.decode_s for sample in samples]
    return Measured(
        model=llm.name,
        parameters=llm.config.num_parameters,
        weights_bytes=llm.weights_bytes,
        dtype=str(dtype).removeprefix("torch."),
        device=llm.device,
        threads=limits.threads,
        prompt_tokens=prompt_tokens,
        generated_tokens=samples[0].tokens,
        runs=runs,
        load_s=load_s,
        ttft_s=statistics.median(sample.ttft_s for sample in samples),
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=statistics.median(decodes),
        decode_tokens_per_s_min=min(decodes),
        decode_tokens_per_s_max=max(decodes),
        machine_read_bytes_per_s=limits.read_bytes_per_s,
        machine_flops_per_s=limits.flops_per_s,
        **_shares(llm, limits, prefill, statistics.median(decodes), prompt_tokens + new_tokens // 2),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    ttft_s: float
    decode_s: float
    tokens: int


def _run(llm: LLM, prompt_tokens: int, new_tokens: int, seed: int) -> _Sample:
    """One request of random ids, so that no cached prefix helps; times by the engine's clock."""
    ordinary = [token for token in range(llm.tokenizer.vocab_size) if not llm.tokenizer.is_special(token)]
    ids = random.Random(seed).choices(ordinary, k=prompt_tokens)
    sampling = SamplingParams(
        max_tokens=new_tokens, min_tokens=new_tokens, ignore_eos=True, temperature=0.0, logprobs=0
    )
    for event in llm.stream_prompt(ids, sampling=sampling):
        if isinstance(event, Done):
            timings = event.timings
            return _Sample(
                ttft_s=timings.queue_s + timings.prefill_s,
                # The clock's own step bounds what can be told apart.
                decode_s=max(timings.decode_s, time.get_clock_info("monotonic").resolution),
                tokens=event.usage.completion_tokens,
            )
    raise EngineStopped(f"{llm.name} stopped before its answer was complete")


def _shares(llm: LLM, limits: Limits, prefill: float, decode: float, mean_context: int) -> dict[str, Any]:
    """What the speeds mean against the two ceilings."""
    config = llm.config
    itemsize = llm.opened.model.dtype.itemsize
    # A token needs one row of the embedding table, not the table; a tied table is the head and is read whole.
    table = 0 if config.tie_embeddings else config.vocab_size * config.dim * itemsize
    read = llm.weights_bytes - table + mean_context * llm.opened.token_bytes
    # The head runs for the last token of a prompt only.
    body = config.num_parameters - config.vocab_size * config.dim * (1 if config.tie_embeddings else 2)
    return {
        "decode_share_of_bandwidth": decode * read / limits.read_bytes_per_s,
        "prefill_share_of_compute": prefill * 2 * body / limits.flops_per_s,
    }


def _for_people(m: Measured) -> list[tuple[str, str]]:
    spread = f"{m.decode_tokens_per_s_min:.1f} to {m.decode_tokens_per_s_max:.1f} over {m.runs} runs"
    return [
        ("model", f"{m.model}, {m.parameters / 1e6:,.1f} M parameters, {size(m.weights_bytes)} in {m.dtype}"),
        ("machine", f"{m.device}, {m.threads} threads, reads {m.machine_read_bytes_per_s / 1e9:.1f} GB/s, "
                    f"multiplies {m.machine_flops_per_s / 1e9:,.0f} GFLOP/s in {m.dtype}"),
        ("load", f"{m.load_s:.2f} s"),
        ("first token", f"{m.ttft_s * 1000:.0f} ms after a prompt of {m.prompt_tokens} tokens"),
        ("prompt", f"{m.prefill_tokens_per_s:,.1f} tokens/s, {m.prefill_share_of_compute:.0%} of the compute limit"),
        ("answer", f"{m.decode_tokens_per_s:,.1f} tokens/s ({spread}), "
                   f"{m.decode_share_of_bandwidth:.0%} of the bandwidth limit"),
    ]  # fmt: skip
