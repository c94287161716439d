"""Which files of a repository a model needs; never pickles unless they are asked for by name.

Takes the list of file names a hub gives and returns those to fetch, or an error that says what there is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llamakit.core.errors import DownloadError, UnsupportedFormat
from llamakit.hub.cache import GGUF_SUFFIX, pick_gguf, quant_of
from llamakit.hub.parts import all_parts, missing_parts, models_among

# What the GGUF reader can open, best compromise of size and quality first: the order of choice without a wish.
READABLE_QUANTS = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "BF16", "F16", "F32")

_SMALL = frozenset(
    {
        "config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer.model",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "params.json",
    }
)  # fmt: skip
_PAPERS = re.compile(r"(LICENSE|USE_POLICY|NOTICE)(\.\w+)?", re.IGNORECASE)
_HF_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_META_WEIGHTS = re.compile(r"(original/)?consolidated\.\d\d\.pth")


def choose_files(repo: str, files: Sequence[str], *, quant: str | None = None, original: bool = False) -> list[str]:
    """The files to fetch; raises `DownloadError` or `UnsupportedFormat` naming what the repository has."""
    papers = [file for file in files if _PAPERS.fullmatch(file)]
    if original:
        return papers + _meta(repo, files)
    small = [file for file in files if file in _SMALL]
    weights = [file for file in files if _HF_WEIGHTS.fullmatch(file)]
    has_gguf = any(file.endswith(GGUF_SUFFIX) for file in files)
    if quant is not None or (has_gguf and not weights):
        return papers + _gguf(repo, files, quant)
    if weights and "config.json" in small:
        # A single file and a sharded copy side by side are the same weights twice.
        if "model.safetensors" in weights:
            weights = ["model.safetensors"]
            small = [file for file in small if file != "model.safetensors.index.json"]
        return papers + sorted(small) + sorted(weights)
    raise DownloadError(_no_weights(repo, files))


def _gguf(repo: str, files: Sequence[str], quant: str | None) -> list[str]:
    available = sorted({found for file in files if file.endswith(GGUF_SUFFIX) and (found := quant_of(file))})
    if quant is None:
        ggufs = [file for file in files if file.endswith(GGUF_SUFFIX)]
        if set(ggufs) == set(all_parts(ggufs[0])):
            return all_parts(ggufs[0])
        quant = next((choice for choice in READABLE_QUANTS if choice in available), None)
        if quant is None:
            raise UnsupportedFormat(f"{repo} has GGUF files of kinds this build cannot read: {', '.join(available)}")
    chosen = pick_gguf(tuple(files), quant)
    if not chosen:
        raise DownloadError(f"{repo} has no {quant} file; it has: {', '.join(available) or 'no GGUF file at all'}")
    if quant not in READABLE_QUANTS:
        readable = ", ".join(choice for choice in available if choice in READABLE_QUANTS) or "none of its files"
        raise UnsupportedFormat(f"{quant} cannot be read by this build. Of {repo} it reads: {readable}")
    models = models_among(chosen)
    if not models:
        raise DownloadError(f"{repo} has {quant} in parts and lacks some: {', '.join(missing_parts(chosen)[:5])}")
    # A whole file and the same in parts side by side: the fewest files.
    return min(map(all_parts, models), key=len)


def _meta(repo: str, files: Sequence[str]) -> list[str]:
    weights = sorted(file for file in files if _META_WEIGHTS.fullmatch(file))
    if not weights:
        raise DownloadError(f"{repo} has no consolidated.*.pth; leave --original out, or name Meta's own repository")
    folder = "original/" if weights[0].startswith("original/") else ""
    return [*(f for f in (f"{folder}params.json", f"{folder}tokenizer.model") if f in files), *weights]


def _no_weights(repo: str, files: Sequence[str]) -> str:
    if any(_META_WEIGHTS.fullmatch(file) for file in files):
        return (
            f"{repo} has its weights only as .pth. Fetch them with --original; they are read without executing pickle"
        )
    if any(file.endswith((".bin", ".pt", ".pth")) for file in files):
        return (
            f"{repo} has its weights only as pickle files (.bin), which can hide programs and are not read here; "
            "choose a repository with safetensors or GGUF"
        )
    some = ", ".join(sorted(files)[:5]) + (" ..." if len(files) > 5 else "") or "no files"
    return f"{repo} has no weights to read here (safetensors with config.json, or GGUF); it has: {some}"
