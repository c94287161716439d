"""The rows of the catalog: which models were released, in which shape, speaking which prompt format.

Facts only, from the model cards; `catalog.py` gives them meaning. `sources.py` says where each one lives.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

Kind = Literal["base", "instruct", "guard", "vision", "classifier"]

ENGLISH = ("English",)
EIGHT = ("English", "German", "French", "Italian", "Portuguese", "Hindi", "Spanish", "Thai")

# A family row holds for every model whose name begins with its prefix; the longest prefix wins.
# fmt: off
FAMILIES = (
    # prefix                    title                   licence     released            languages  size of the bare name
    ("llama1",                  "LLaMA",                "llama1",   date(2023,  2, 24), ENGLISH,   "7b"),
    ("llama2",                  "Llama 2",              "llama2",   date(2023,  7, 18), ENGLISH,   "7b"),
    ("codellama",               "Code Llama",           "llama2",   date(2023,  8, 24), ENGLISH,   "7b"),
    ("codellama:70b",           "Code Llama",           "llama2",   date(2024,  1, 29), ENGLISH,   "7b"),
    ("llama3",                  "Llama 3",              "llama3",   date(2024,  4, 18), ENGLISH,   "8b"),
    ("llama3.1",                "Llama 3.1",            "llama3.1", date(2024,  7, 23), EIGHT,     "8b"),
    ("llama3.2",                "Llama 3.2",            "llama3.2", date(2024,  9, 25), EIGHT,     "3b"),
    ("llama3.2-vision",         "Llama 3.2 Vision",     "llama3.2", date(2024,  9, 25), EIGHT,     "11b"),
    ("llama3.3",                "Llama 3.3",            "llama3.3", date(2024, 12,  6), EIGHT,     "70b"),
    ("llama-guard",             "Llama Guard",          "llama2",   date(2023, 12,  7), ENGLISH,   "7b"),
    ("llama-guard2",            "Llama Guard 2",        "llama3",   date(2024,  4, 18), ENGLISH,   "8b"),
    ("llama-guard3",            "Llama Guard 3",        "llama3.1", date(2024,  7, 23), EIGHT,     "8b"),
    ("llama-guard3:1b",         "Llama Guard 3",        "llama3.2", date(2024,  9, 25), EIGHT,     "8b"),
    ("llama-guard3:11b-vision", "Llama Guard 3",        "llama3.2", date(2024,  9, 25), ENGLISH,   "8b"),
    ("prompt-guard",            "Prompt Guard",         "llama3.1", date(2024,  7, 23), EIGHT,     "86m"),
    ("prompt-guard2",           "Llama Prompt Guard 2", "llama4",   date(2025,  4, 29), EIGHT,     "86m"),
)

MODELS: tuple[tuple[str, Kind, str | None, str | None], ...] = (
    # name                              kind          shape               prompt format
    ("llama1:7b-base",                  "base",       "llama1-7b",        "base"),
    ("llama1:13b-base",                 "base",       "llama1-13b",       "base"),
    ("llama1:30b-base",                 "base",       "llama1-30b",       "base"),
    ("llama1:65b-base",                 "base",       "llama1-65b",       "base"),

    ("llama2:7b-base",                  "base",       "llama2-7b",        "base"),
    ("llama2:13b-base",                 "base",       "llama2-13b",       "base"),
    ("llama2:70b-base",                 "base",       "llama2-70b",       "base"),
    ("llama2:7b-chat",                  "instruct",   "llama2-7b",        "llama2"),
    ("llama2:13b-chat",                 "instruct",   "llama2-13b",       "llama2"),
    ("llama2:70b-chat",                 "instruct",   "llama2-70b",       "llama2"),

    ("codellama:7b-base",               "base",       "code-7b",          "base"),
    ("codellama:13b-base",              "base",       "code-13b",         "base"),
    ("codellama:34b-base",              "base",       "code-34b",         "base"),
    ("codellama:70b-base",              "base",       "code-70b",         "base"),
    ("codellama:7b-python",             "base",       "code-7b-python",   "base"),
    ("codellama:13b-python",            "base",       "code-13b-python",  "base"),
    ("codellama:34b-python",            "base",       "code-34b",         "base"),
    ("codellama:70b-python",            "base",       "code-70b-short",   "base"),
    ("codellama:7b-instruct",           "instruct",   "code-7b",          "llama2"),
    ("codellama:13b-instruct",          "instruct",   "code-13b",         "llama2"),
    ("codellama:34b-instruct",          "instruct",   "code-34b",         "llama2"),
    ("codellama:70b-instruct",          "instruct",   "code-70b-short",   "codellama70b"),

    ("llama3:8b-base",                  "base",       "llama3-8b",        "base"),
    ("llama3:70b-base",                 "base",       "llama3-70b",       "base"),
    ("llama3:8b-instruct",              "instruct",   "llama3-8b",        "llama3"),
    ("llama3:70b-instruct",             "instruct",   "llama3-70b",       "llama3"),

    ("llama3.1:8b-base",                "base",       "llama3.1-8b",      "base"),
    ("llama3.1:70b-base",               "base",       "llama3.1-70b",     "base"),
    ("llama3.1:405b-base",              "base",       "llama3.1-405b",    "base"),
    ("llama3.1:405b-base-fp8",          "base",       "llama3.1-405b",    "base"),
    ("llama3.1:8b-instruct",            "instruct",   "llama3.1-8b",      "llama3.1"),
    ("llama3.1:70b-instruct",           "instruct",   "llama3.1-70b",     "llama3.1"),
    ("llama3.1:405b-instruct",          "instruct",   "llama3.1-405b",    "llama3.1"),
    ("llama3.1:405b-instruct-fp8",      "instruct",   "llama3.1-405b",    "llama3.1"),

    ("llama3.2:1b-base",                "base",       "llama3.2-1b",      "base"),
    ("llama3.2:3b-base",                "base",       "llama3.2-3b",      "base"),
    ("llama3.2:1b-instruct",            "instruct",   "llama3.2-1b",      "llama3.2"),
    ("llama3.2:3b-instruct",            "instruct",   "llama3.2-3b",      "llama3.2"),
    ("llama3.2:1b-instruct-qlora",      "instruct",   "llama3.2-1b-int4", "llama3.2"),
    ("llama3.2:3b-instruct-qlora",      "instruct",   "llama3.2-3b-int4", "llama3.2"),
    ("llama3.2:1b-instruct-spinquant",  "instruct",   "llama3.2-1b-int4", "llama3.2"),
    ("llama3.2:3b-instruct-spinquant",  "instruct",   "llama3.2-3b-int4", "llama3.2"),

    ("llama3.2-vision:11b-base",        "vision",     None,               None),
    ("llama3.2-vision:90b-base",        "vision",     None,               None),
    ("llama3.2-vision:11b-instruct",    "vision",     None,               None),
    ("llama3.2-vision:90b-instruct",    "vision",     None,               None),

    ("llama3.3:70b-instruct",           "instruct",   "llama3.1-70b",     "llama3.3"),

    ("llama-guard:7b",                  "guard",      "llama2-7b",        "guard1"),
    ("llama-guard2:8b",                 "guard",      "llama3-8b",        "guard2"),
    ("llama-guard3:8b",                 "guard",      "llama3.1-8b",      "guard3"),
    ("llama-guard3:8b-int8",            "guard",      "llama3.1-8b",      "guard3"),
    ("llama-guard3:1b",                 "guard",      "llama3.2-1b",      "guard3-1b"),
    ("llama-guard3:1b-int4",            "guard",      "guard3-1b-int4",   "guard3-1b"),
    ("llama-guard3:11b-vision",         "vision",     None,               None),

    ("prompt-guard:86m",                "classifier", None,               None),
    ("prompt-guard2:86m",               "classifier", None,               None),
    ("prompt-guard2:22m",               "classifier", None,               None),
)

# The quantised 1B and 3B came a month after their family.
RELEASED = {
    "llama3.2:1b-instruct-qlora":       date(2024, 10, 24),
    "llama3.2:3b-instruct-qlora":       date(2024, 10, 24),
    "llama3.2:1b-instruct-spinquant":   date(2024, 10, 24),
    "llama3.2:3b-instruct-spinquant":   date(2024, 10, 24),
}

# Exact counts of models whose shape is not one of ours (the vision tower and cross-attention included).
PARAMETERS = {
    "llama3.2-vision:11b-base":         10_642_941_475,
    "llama3.2-vision:90b-base":         88_593_355_323,
    "llama3.2-vision:11b-instruct":     10_670_220_835,
    "llama3.2-vision:90b-instruct":     88_593_355_323,
}

# Why a known model does not run yet; shown instead of a download.
_INT4 = "the int4 layout of this release (groups of 32, int8 activations) is not read yet"
_FP8 = "fbgemm fp8 weights are not read yet"
_VISION = "image input is not built yet"
_CLASSIFIER = "DeBERTa classifiers are not built yet"
NOT_YET = {
    "llama3.1:405b-base-fp8":           _FP8,
    "llama3.1:405b-instruct-fp8":       _FP8,
    "llama3.2:1b-instruct-qlora":       _INT4,
    "llama3.2:3b-instruct-qlora":       _INT4,
    "llama3.2:1b-instruct-spinquant":   _INT4,
    "llama3.2:3b-instruct-spinquant":   _INT4,
    "llama3.2-vision:11b-base":         _VISION,
    "llama3.2-vision:90b-base":         _VISION,
    "llama3.2-vision:11b-instruct":     _VISION,
    "llama3.2-vision:90b-instruct":     _VISION,
    "llama-guard3:8b-int8":             "bitsandbytes LLM.int8 weights are not read yet",
    "llama-guard3:1b-int4":             "it is shipped only as an ExecuTorch program (.pte)",
    "llama-guard3:11b-vision":          _VISION,
    "prompt-guard:86m":                 _CLASSIFIER,
    "prompt-guard2:86m":                _CLASSIFIER,
    "prompt-guard2:22m":                _CLASSIFIER,
}
# fmt: on
