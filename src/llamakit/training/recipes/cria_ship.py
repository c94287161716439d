"""From a finished run to the directory that ships: bf16 weights, tokenizer, and a card of measured facts.

Scores are of the weights as shipped, rounded to bf16 and computed in float32. Nothing on the card is
typed by hand except what cria is and what it cannot do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from llamakit.checkpoints.reader import Generation
from llamakit.checkpoints.save import save_hf
from llamakit.core.model_config import ModelConfig
from llamakit.data.world import verify, world
from llamakit.data.world.draw import Split
from llamakit.models.llama import Llama
from llamakit.text.formats.resolve import resolve_format
from llamakit.text.specials import END_OF_MESSAGE, END_OF_TEXT, END_OF_TURN
from llamakit.text.tokenizer import Tokenizer, load_tokenizer
from llamakit.training.recipes import cria_report

PROMPT_FORMAT = "llama3.2"
_SPLITS: tuple[Split, ...] = ("seen", "held")
_ABOUT = (
    "A very small Llama, trained from scratch by this project on text that its own code generates. It comes with "
    "the package so that everything works with nothing downloaded. A cria is a baby llama."
)
_LIMITS = (
    "It knows a generated phone world and a few dozen facts, and almost nothing else.",
    "English only.",
    "It summarises, lists action items and answers questions by copying; sentences unlike those of its world are "
    "often left out, changed or said twice, and names it never saw can come out misspelled.",
    "Its sums are wrong more often than right.",
    "It calls tools whose requests look like its training requests; check arguments before acting on them.",
    "It was given a few refusals, not safety training. Do not put it in front of the public.",
    "One short training run with one seed; no preference tuning, no distillation.",
)


def ship(
    model: Llama,
    run: Path,
    target: Path,
    *,
    seed: int,
    num_train: int,
    facts: dict[str, Any],
    n: int,
    log: Callable[[str], None],
) -> None:
    """Measure `model` and write everything that ships to `target`; `facts` are the run's own figures for the card."""
    tokenizer = load_tokenizer(run / "tokenizer.model")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    model.eval()
    prompt_format = resolve_format(PROMPT_FORMAT, tokenizer)
    scores = {split: cria_report.measure(model, prompt_format, split, n, log) for split in _SPLITS}
    smoke = cria_report.measure(model, prompt_format, "seen", cria_report.SMOKE_N, log, cria_report.SMOKE_TASKS)
    save_hf(
        model,
        model.config,
        target,
        dtype=torch.bfloat16,
        generation=_generation(tokenizer),
        tokenizer=run,
        force=True,
    )
    card = {
        "name": "cria",
        "version": 1,
        "family": "cria",
        "about": _ABOUT,
        "licence": "Apache-2.0",
        "languages": ["en"],
        "prompt_format": PROMPT_FORMAT,
        "parameters": model.config.num_parameters,
        "shape": _shape(model.config),
        "training": facts,
        "data": _data(seed, num_train, n),
        "scores": {
            "how": "greedy, bf16 weights computed in float32; exact verifiers, no model judges. `seen`: fresh "
            "examples of known names and phrasings. `held`: only names, things and phrasings kept out of training, "
            "and for tools also unknown tools. `nearest` is the baseline: the answer of the training example whose "
            f"question shares most words, out of {cria_report.BASELINE_EXAMPLES}.",
            **scores,
            "smoke": smoke,
            "nearest": cria_report.baseline("held", n, seed),
        },
        "limits": list(_LIMITS),
        "files": {name: _sha256(target / name) for name in ("model.safetensors", "tokenizer.model")},
    }
    (target / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _generation(tokenizer: Tokenizer) -> Generation:
    return Generation(
        bos_id=tokenizer.bos_id,
        eos_ids=tuple(tokenizer.special[name] for name in (END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN)),
        pad_id=tokenizer.pad_id,
        # So small a model has nothing to gain from chance: the likeliest token is the default.
        temperature=0.0,
    )


def _shape(config: ModelConfig) -> dict[str, Any]:
    return {
        "layers": config.num_layers,
        "width": config.dim,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "ffn": config.ffn_dim,
        "vocabulary": config.vocab_size,
        "context": config.context_length,
        "tied_embeddings": config.tie_embeddings,
    }


def _data(seed: int, num_train: int, n: int) -> dict[str, Any]:
    def tests(split: Split) -> Iterator[world.Example]:
        for task in verify.MEASURED:
            yield from world.examples(cria_report.SEED, split, n, task)

    return {
        "generator": "llamakit.data.world",
        "seed": seed,
        "train": {"conversations": num_train, "sha256": world.digest(world.examples(seed, "train", num_train))},
        **{
            split: {
                "seed": cria_report.SEED,
                "conversations": n * len(verify.MEASURED),
                "sha256": world.digest(tests(split)),
                "also_in_train": cria_report.overlap(split, n, seed, num_train),
            }
            for split in _SPLITS
        },
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
