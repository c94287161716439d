"""The catalog: exact parameter counts, unique names, every model reachable by every way to say it."""

from __future__ import annotations

import re

import pytest

from llamakit.hub import catalog, ids, releases, sources
from llamakit.hub.hashes import LLAMA_2_TOKENIZER, LLAMA_3_TOKENIZER, SHA256
from llamakit.hub.licences import LICENCES
from llamakit.hub.shapes import SHAPES

# model_facts: exact counts derived from the published shapes.
PARAMETERS = {
    "llama1-7b": 6_738_415_616,
    "llama1-13b": 13_015_864_320,
    "llama1-30b": 32_528_943_616,
    "llama1-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "code-7b": 6_738_546_688,
    "code-13b": 13_016_028_160,
    "code-34b": 33_743_970_304,
    "code-70b": 68_976_910_336,
    "code-70b-short": 68_976_910_336,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "guard3-1b-int4": 1_123_076_096,
}
KV_KIB = {"llama1-65b": 2560, "llama2-70b": 320, "code-34b": 192, "llama3.1-405b": 504, "llama3.2-1b": 32}


@pytest.mark.parametrize(("shape", "count"), PARAMETERS.items())
def test_shapes_have_the_published_number_of_parameters(shape: str, count: int) -> None:
    assert SHAPES[shape].num_parameters == count


@pytest.mark.parametrize(("shape", "kib"), KV_KIB.items())
def test_shapes_have_the_published_cache_size(shape: str, kib: int) -> None:
    assert SHAPES[shape].kv_bytes_per_token() == kib * 1024


def test_the_small_models_scale_by_32_and_the_rest_by_8() -> None:
    factors = {name: shape.rope_scaling.factor for name, shape in SHAPES.items() if shape.rope_scaling}
    assert {name for name, factor in factors.items() if factor == 32} == {
        "llama3.2-1b", "llama3.2-3b", "llama3.2-1b-int4", "llama3.2-3b-int4", "guard3-1b-int4",
    }  # fmt: skip
    assert set(factors.values()) == {8, 32}
    assert [name for name in factors if name.startswith(("llama1", "llama2", "code", "llama3-"))] == []


def test_no_name_means_two_models() -> None:
    owners: dict[str, str] = {}
    for model in catalog.models():
        for name in catalog.spellings(model):
            assert owners.setdefault(name.lower(), model.name) == model.name, name
    assert len({model.name for model in catalog.models()}) == len(catalog.models()) == len(releases.MODELS)


def test_every_row_of_the_side_tables_belongs_to_a_model() -> None:
    names = {model.name for model in catalog.models()}
    tables = (sources.DESCRIPTORS, sources.OFFICIAL, sources.FORMER, sources.MIRRORS, sources.GGUF)
    for table in (*tables, releases.NOT_YET, releases.PARAMETERS, releases.RELEASED, SHA256):
        assert set(table) <= names, set(table) - names


def test_every_model_can_be_found_and_is_described() -> None:
    for model in catalog.models():
        assert model.repos, model.name
        assert all(ids.is_repo(repo) for repo in model.repos)
        assert model.licence.tag in LICENCES
        assert model.languages and model.context_length > 0 and model.capabilities
        if model.not_yet is None:
            assert model.config is not None and model.prompt_format is not None
            assert model.num_parameters == model.config.num_parameters
        for name in catalog.spellings(model):
            assert catalog.find(name.upper()) is model


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("llama3.2", "llama3.2:3b-instruct"),
        ("llama3.2:latest", "llama3.2:3b-instruct"),
        ("llama3.2:1b", "llama3.2:1b-instruct"),
        ("Llama3.2-1B-Instruct", "llama3.2:1b-instruct"),
        ("Llama-3.2-1B-Instruct", "llama3.2:1b-instruct"),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama3.2:1b-instruct"),
        ("unsloth/Llama-3.2-1B-Instruct", "llama3.2:1b-instruct"),
        ("Llama3.2-1B", "llama3.2:1b-base"),
        ("llama3.2:1b-text", "llama3.2:1b-base"),
        ("llama2", "llama2:7b-chat"),
        ("llama2:13b", "llama2:13b-chat"),
        ("Llama-2-7b-chat", "llama2:7b-chat"),
        ("codellama", "codellama:7b-instruct"),
        ("codellama:7b-code", "codellama:7b-base"),
        ("codellama:70b", "codellama:70b-instruct"),
        ("meta-llama/CodeLlama-7b-hf", "codellama:7b-base"),
        ("llama3", "llama3:8b-instruct"),
        ("llama3.1:70b", "llama3.1:70b-instruct"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama3.1:8b-instruct"),
        ("Llama3.1-405B-Instruct", "llama3.1:405b-instruct-fp8"),
        ("Llama3.1-405B-Instruct:bf16-mp16", "llama3.1:405b-instruct"),
        ("Llama3.2-1B-Instruct:int4-spinquant-eo8", "llama3.2:1b-instruct-spinquant"),
        ("llama3.3", "llama3.3:70b-instruct"),
        ("llama-guard3", "llama-guard3:8b"),
        ("llama-guard3:1b", "llama-guard3:1b"),
        ("LlamaGuard-7b", "llama-guard:7b"),
        ("llama3.2-vision", "llama3.2-vision:11b-instruct"),
        ("llama1", "llama1:7b-base"),
    ],
)
def test_people_say_models_in_many_ways(said: str, meant: str) -> None:
    model = catalog.find(said)
    assert model is not None and model.name == meant


def test_facts_that_are_easily_wrong() -> None:
    def get(name: str) -> catalog.Model:
        model = catalog.find(name)
        assert model is not None
        return model

    assert get("codellama:70b-instruct").context_length == 4096
    assert get("codellama:7b-python").config.vocab_size == 32000  # pyright: ignore[reportOptionalMemberAccess]
    assert get("codellama:7b-base").config.vocab_size == 32016  # pyright: ignore[reportOptionalMemberAccess]
    assert get("llama3.2:1b-instruct-qlora").context_length == 8192
    assert get("llama-guard3:1b").licence.tag == "llama3.2"
    assert get("llama-guard3:8b").licence.tag == "llama3.1"
    assert get("codellama").licence.tag == "llama2"
    assert get("llama3.1:8b-instruct").sha256("original/tokenizer.model") == LLAMA_3_TOKENIZER
    assert get("llama2:7b-chat").sha256("tokenizer.model") == LLAMA_2_TOKENIZER
    assert get("codellama:7b-base").sha256("tokenizer.model") is None
    assert get("llama2:7b-chat").original_repo == "meta-llama/Llama-2-7b-chat"
    assert "infill" in get("codellama:7b-base").capabilities
    assert "infill" not in get("codellama:34b-base").capabilities
    assert "infill" not in get("codellama:7b-python").capabilities


def test_hashes_are_sha256() -> None:
    digests = [digest for files in SHA256.values() for digest in files.values()]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in [*digests, LLAMA_2_TOKENIZER, LLAMA_3_TOKENIZER])
    assert len(set(digests)) == len(digests)


def test_licences_carry_their_duties() -> None:
    assert LICENCES["llama3.2"].notice.startswith("Llama 3.2 is licensed under the Llama 3.2 Community License,")
    assert LICENCES["llama3"].credit == "Built with Meta Llama 3"
    assert not LICENCES["llama1"].is_commercial
