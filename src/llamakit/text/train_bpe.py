"""Train a byte-level BPE and write it as a Llama 3 `tokenizer.model`.

The same texts give the same file: pairs are counted over all texts and ties fall by token id.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as Steps
from tokenizers.trainers import BpeTrainer

from llamakit.core.errors import ConfigError, TokenizerError
from llamakit.text.byte_bpe import LLAMA3_SPLIT, unspell, well_formed
from llamakit.text.specials import NUM_LLAMA3_SPECIALS
from llamakit.text.tiktoken_file import write_ranks
from llamakit.text.tokenizer_files import MAX_ENTRIES, MAX_TOKEN_BYTES


def train_tiktoken(texts: Iterable[str], vocab_size: int, path: str | Path) -> None:
    """Learn `vocab_size` - 256 byte-level tokens from `texts` and write them to `path`.

    `vocab_size` counts the whole table, with Llama 3's 256 control tokens; the 256 single bytes are always
    among the learned. TokenizerError where the texts are too few to fill the table.
    """
    base_size = vocab_size - NUM_LLAMA3_SPECIALS
    if not 256 <= base_size <= MAX_ENTRIES:
        raise ConfigError(
            f"vocab_size counts 256 bytes and {NUM_LLAMA3_SPECIALS} control tokens: wanted "
            f"{256 + NUM_LLAMA3_SPECIALS} to {MAX_ENTRIES + NUM_LLAMA3_SPECIALS}, got {vocab_size}"
        )
    machine = Tokenizer(BPE())
    machine.pre_tokenizer = Steps(
        [Split(Regex(LLAMA3_SPLIT), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = BpeTrainer(
        vocab_size=base_size,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=False,
    )
    machine.train_from_iterator(map(well_formed, texts), trainer)
    learned = sorted(machine.get_vocab(with_added_tokens=False).items(), key=lambda entry: entry[1])
    if len(learned) != base_size:
        raise TokenizerError(
            f"the texts give {len(learned)} tokens, wanted {base_size}; add text or ask for a vocabulary of "
            f"{len(learned) + NUM_LLAMA3_SPECIALS}"
        )
    write_ranks(Path(path), [unspell(token) for token, _ in learned])
