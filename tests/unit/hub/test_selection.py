"""Which files of a repository are fetched, and what is said when there is nothing to read."""

from __future__ import annotations

import pytest

from llamakit.core.errors import DownloadError, UnsupportedFormat
from llamakit.hub.selection import choose_files

HF = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
META = ["original/consolidated.00.pth", "original/params.json", "original/tokenizer.model"]
OTHER = ["README.md", ".gitattributes", "pytorch_model.bin", "training_args.bin", "assets/x.png", "onnx/model.onnx"]
BARTOWSKI = [f"Llama-3.2-1B-Instruct-{quant}.gguf" for quant in ("Q4_K_M", "Q8_0", "IQ3_M", "Q3_K_L", "f16")]


def test_one_file_checkpoint() -> None:
    files = [*HF, "model.safetensors", "LICENSE.txt", "USE_POLICY.md", *META, *OTHER]
    assert choose_files("a/b", files) == ["LICENSE.txt", "USE_POLICY.md", *sorted(HF), "model.safetensors"]


def test_sharded_checkpoint_and_its_index() -> None:
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert choose_files("a/b", [*shards, *HF, "model.safetensors.index.json"])[-2:] == shards
    both = [*shards, "model.safetensors.index.json", "model.safetensors", "config.json"]
    assert choose_files("a/b", both) == ["config.json", "model.safetensors"]


def test_foreign_safetensors_are_not_taken() -> None:
    files = [*HF, "model.safetensors", "consolidated.safetensors", "adapter_model.safetensors", "x/model.safetensors"]
    assert [file for file in choose_files("a/b", files) if "safetensors" in file] == ["model.safetensors"]


def test_gguf_by_wish_and_by_default() -> None:
    assert choose_files("a/b", [*BARTOWSKI, "README.md"]) == ["Llama-3.2-1B-Instruct-Q4_K_M.gguf"]
    assert choose_files("a/b", BARTOWSKI, quant="F16") == ["Llama-3.2-1B-Instruct-f16.gguf"]
    assert choose_files("a/b", [*BARTOWSKI, *HF, "model.safetensors"])[-1] == "model.safetensors"
    assert choose_files("a/b", ["whatever.gguf"]) == ["whatever.gguf"]


def test_metas_files_only_when_asked() -> None:
    files = [*HF, "model.safetensors", *META, "LICENSE"]
    assert choose_files("a/b", files, original=True) == ["LICENSE", META[1], META[2], META[0]]
    plain = ["consolidated.00.pth", "consolidated.01.pth", "params.json", "tokenizer.model"]
    assert choose_files("a/b", plain, original=True) == ["params.json", "tokenizer.model", *plain[:2]]


@pytest.mark.parametrize(
    ("files", "wishes", "kind", "complaint"),
    [
        (BARTOWSKI, {"quant": "Q6_K"}, DownloadError, "has no Q6_K file; it has: F16, IQ3_M, Q3_K_L, Q4_K_M, Q8_0"),
        (BARTOWSKI, {"quant": "Q3_K_L"}, UnsupportedFormat, "Q3_K_L cannot be read .* reads: F16, Q4_K_M, Q8_0"),
        (["x-IQ3_M.gguf", "x-Q2_K.gguf"], {}, UnsupportedFormat, "kinds this build cannot read: IQ3_M, Q2_K"),
        (["x-Q8_0-00001-of-00002.gguf"], {}, DownloadError, "lacks some: x-Q8_0-00002-of-00002.gguf"),
        (HF, {"quant": "Q8_0"}, DownloadError, "it has: no GGUF file at all"),
        ([*HF, "pytorch_model.bin"], {}, DownloadError, "only as pickle files"),
        (["config.json", *META], {}, DownloadError, "only as .pth. Fetch them with --original"),
        (["model.safetensors"], {}, DownloadError, "it has: model.safetensors"),
        ([], {}, DownloadError, "it has: no files"),
        (HF, {"original": True}, DownloadError, "has no consolidated"),
    ],
)
def test_what_cannot_be_read_is_said(files: list[str], wishes: dict, kind: type[Exception], complaint: str) -> None:
    with pytest.raises(kind, match=complaint):
        choose_files("a/b", files, **wishes)
