"""What the local provider answers about tokens without bringing a model into memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.tiny import tiny_checkpoint

from llamakit.api.inference import TokenizeRequest
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import user
from llamakit.providers.inline.inference import texts
from llamakit.providers.inline.inference.local import LocalInference, build

TEXT = "The llama is <|eot_id|> here"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny")


@pytest.fixture
async def provider(checkpoint: Path) -> AsyncIterator[LocalInference]:
    made = build({"models": (str(checkpoint),), "threads": 1, "cache_bytes": 64 << 20, "prompt_format": "llama3.1"}, {})
    yield made
    await made.aclose()


async def asked(provider: LocalInference) -> list[object]:
    found: list[object] = []
    for wishes in ({"prompt": TEXT}, {"prompt": TEXT, "parse_special": True}, {"messages": (user("Hello"),)}):
        tokens = await provider.tokenize(TokenizeRequest(model="tiny", **wishes))  # type: ignore[arg-type]
        found += [tokens, await provider.detokenize("tiny", tokens.ids)]
    return [*found, await provider.tokenizer_info("tiny")]


async def test_tokens_are_counted_without_the_weights(provider: LocalInference) -> None:
    alone = await asked(provider)
    assert await provider.loaded() == []
    await provider.load("tiny")
    assert await asked(provider) == alone and len(await provider.loaded()) == 1


async def test_ids_that_are_none_are_refused_without_the_weights(provider: LocalInference) -> None:
    size = (await provider.tokenizer_info("tiny")).vocab_size
    with pytest.raises(InvalidRequest, match=f"tokens holds token id {size}; tiny has ids 0 to {size - 1}"):
        await provider.detokenize("tiny", (size,))
    assert await provider.loaded() == []


async def test_files_are_read_once_until_they_change(
    provider: LocalInference, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = texts.open_text
    monkeypatch.setattr(texts, "open_text", lambda *args, **named: opened.append(1) or real(*args, **named))
    before = await provider.tokenizer_info("tiny")
    assert before == await provider.tokenizer_info("tiny") and len(opened) == 1
    values = json.loads((checkpoint / "config.json").read_text())
    values["max_position_embeddings"] //= 2
    (checkpoint / "config.json").write_text(json.dumps(values))
    (checkpoint / "new.txt").touch()
    after = await provider.tokenizer_info("tiny")
    assert len(opened) == 2 and after.context_length < before.context_length
