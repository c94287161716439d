"""Make cria, the embedded model, from nothing but this package: world, tokenizer, training, weights, card.

    python -m llamakit.training.recipes.cria --out runs/cria --ship src/llamakit/hub/embedded/cria

The same command goes on where an interrupted run stopped.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig
from llamakit.data.conversations import Document, encode
from llamakit.data.copying import repeats
from llamakit.data.packing import Row, pack
from llamakit.data.world import world
from llamakit.data.world.draw import Draw
from llamakit.text.formats.format import FormatOptions
from llamakit.text.formats.resolve import resolve_format
from llamakit.text.formats.tool_prompts import list_instructions
from llamakit.text.specials import NUM_LLAMA3_SPECIALS
from llamakit.text.tokenizer import Tokenizer, load_tokenizer
from llamakit.text.train_bpe import train_tiktoken
from llamakit.training.loader import Cursor
from llamakit.training.optim import OptimConfig
from llamakit.training.planting import plant_copying
from llamakit.training.recipes.cria_ship import PROMPT_FORMAT, ship
from llamakit.training.recipes.pretrain import PretrainConfig, pretrain

_MODULE = "llamakit.training.recipes.cria"
EMBEDDED = "src/llamakit/hub/embedded/cria"
VOCAB_SIZE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class CriaConfig:
    """Everything that decides the weights."""

    seed: int = 1
    tokenizer_examples: int = 20_000
    """Examples the vocabulary is learned from."""
    block_examples: int = 2_000
    """Conversations generated and packed at once."""
    block_copies: int = 150
    """Rows of random tokens to copy among them, which keep the planted circuit alive."""
    row_tokens: tuple[int, ...] = (256, 512, 768, 1024, 2048)
    full_blocks: int = 1
    """First blocks, in which every token is a target; later only the assistant's are."""
    num_steps: int = 4_750
    restarts: tuple[tuple[int, float], ...] = ((1_450, 0.7), (2_750, 0.7))
    matrix_lr: float = 5e-3
    table_lr: float = 1.5e-3
    decay_share: float = 0.85
    """The rates fall for most of the run: its batches are small, and their noise is what is left to lose."""

    @property
    def model(self) -> ModelConfig:
        """The shape: 5.8 M parameters."""
        return ModelConfig(
            vocab_size=VOCAB_SIZE,
            dim=256,
            num_layers=6,
            # Half the heads of the usual 32-wide ones: on a CPU the score matrices, not the products, are the cost.
            num_heads=4,
            num_kv_heads=2,
            head_dim=64,
            ffn_dim=768,
            tie_embeddings=True,
            context_length=self.row_tokens[-1],
        )


def texts(config: CriaConfig) -> Iterator[str]:
    """What the vocabulary is learned from."""
    for one in world.examples(config.seed, "train", config.tokenizer_examples):
        for message in one.messages:
            yield message.text
            for call in message.tool_calls:
                yield f"[{call.name}({call.arguments})]"
        if one.tools:
            yield list_instructions(one.tools)


class WorldRows:
    """Blocks of packed training rows, each a pure function of its number."""

    def __init__(self, config: CriaConfig, tokenizer: Tokenizer) -> None:
        self._config = config
        self._format = resolve_format(PROMPT_FORMAT, tokenizer)
        if tokenizer.pad_id is None or tokenizer.bos_id is None:
            raise ConfigError("the tokenizer has no padding token, or none that begins a text")
        self._pad_id, self._start_id = tokenizer.pad_id, tokenizer.bos_id
        self.left_out = 0
        """Conversations longer than the longest row, so far."""

    def __call__(self, block: int) -> list[Row]:
        documents = []
        for number in range(self._config.block_examples):
            index = block * self._config.block_examples + number
            one = world.example(self._config.seed, "train", index)
            document = encode(self._format, one.messages, one.tools, _options(self._config.seed, index))
            if len(document.ids) <= self._config.row_tokens[-1]:
                documents.append(document)
            else:
                self.left_out += 1
        return pack([*documents, *self._copies(block)], self._config.row_tokens, self._pad_id)

    def _copies(self, block: int) -> list[Document]:
        return [
            repeats(
                self._config.seed,
                block * self._config.block_copies + number,
                first_id=0,
                num_ids=VOCAB_SIZE - NUM_LLAMA3_SPECIALS,
                start_id=self._start_id,
                length=self._config.row_tokens[0],
            )
            for number in range(self._config.block_copies)
        ]


def _options(seed: int, index: int) -> FormatOptions:
    """Some prompts with tools show a date, because some servers send one."""
    draw = Draw(seed + 1_000_003, "train", index)
    today = datetime.date(2024, 1, 1) + datetime.timedelta(days=draw.number(0, 1500)) if draw.chance(0.2) else None
    return FormatOptions(today=today)


def make(config: CriaConfig, out: Path, target: Path | None, *, compiled: bool, tests: int) -> None:
    """Tokenizer and weights into `out`, then what ships into `target`; prints progress to stderr."""
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = out / "tokenizer.model"
    if not vocabulary.exists():
        train_tiktoken(texts(config), VOCAB_SIZE, vocabulary)
    rows = WorldRows(config, load_tokenizer(vocabulary))

    def all_tokens(cursor: Cursor) -> bool:
        return cursor.block < config.full_blocks

    optim = OptimConfig(
        matrix_lr=config.matrix_lr,
        table_lr=config.table_lr,
        gain_lr=config.table_lr,
        num_steps=config.num_steps,
        decay_share=config.decay_share,
        restarts=config.restarts,
    )
    run = PretrainConfig(
        out=out, model=config.model, optim=optim, seed=config.seed, batches_per_step=1, compiled=compiled
    )
    finished = pretrain(run, rows, all_tokens, _log, lambda model: plant_copying(model, config.seed))
    if target is None:
        return
    facts = {
        "command": f"python -m {_MODULE} --out runs/cria --steps {config.num_steps} --ship {EMBEDDED}",
        "hardware": "one CPU thread, no GPU; products in bfloat16, weights and sums in float32",
        "optimizer": "Muon for matrices, AdamW for the rest; constant rate, then linear decay to zero",
        "start": "random, but for a copying circuit written into the first two layers",
        "loss": "every token of the first block of conversations, then the assistant's tokens; repeated random tokens",
        "steps": config.num_steps,
        "tokens": finished.totals.tokens,
        "tokens_trained_on": finished.totals.targets,
        "wall_hours": round(finished.totals.wall_s / 3600, 2),
        "seeds": 1,
    }
    num_train = (finished.cursor.block + 1) * config.block_examples
    ship(finished.model, out, target, seed=config.seed, num_train=num_train, facts=facts, n=tests, log=_log)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make cria from scratch: world, tokenizer, training, scores, card.")
    parser.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished run goes on")
    parser.add_argument("--steps", type=int, default=CriaConfig().num_steps, help="updates of the whole run")
    parser.add_argument("--ship", type=Path, help="directory to be replaced by the finished, measured model")
    parser.add_argument("--tests", type=int, default=30, help="test examples of each task and split")
    parser.add_argument("--eager", action="store_true", help="do not compile, also where a C++ compiler is found")
    chosen = parser.parse_args()
    compiled = not chosen.eager and any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    torch.set_num_threads(1)
    make(CriaConfig(num_steps=chosen.steps), chosen.out, chosen.ship, compiled=compiled, tests=chosen.tests)


if __name__ == "__main__":
    main()
