"""The licences of the released weights and the duties that come with each; our own code is Apache-2.0.

Facts, not advice: who downloads or passes on weights should read the agreement itself at `url`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """One agreement under which weights were released."""

    tag: str
    """The hub's licence tag."""
    title: str
    url: str
    notice: str = ""
    """Sentence that copies must carry in a text file called Notice (§1.b.iii of the agreements)."""
    credit: str = ""
    """Words to show on a product that uses the weights."""
    name_prefix: str = ""
    """How the name of a model made from the weights or, from 3.1 on, from their outputs must begin."""
    is_gated: bool = True
    """Whether the official repositories ask for the agreement to be accepted first."""
    is_commercial: bool = True


def _community(version: str, url: str, credit: str, prefix: str, meta: str = "") -> Licence:
    title = f"{meta}Llama {version} Community License"
    notice = (
        f"{meta}Llama {version} is licensed under the {title}, Copyright © Meta Platforms, Inc. All Rights Reserved."
    )
    tag = f"llama{version}"
    return Licence(tag=tag, title=title, url=url, notice=notice, credit=credit, name_prefix=prefix)


LICENCES: dict[str, Licence] = {
    licence.tag: licence
    for licence in (
        Licence(
            tag="llama1",
            title="LLaMA research licence (non-commercial)",
            url="https://github.com/meta-llama/llama/blob/llama_v1/MODEL_CARD.md",
            is_commercial=False,
        ),
        _community("2", "https://ai.meta.com/llama/license/", "", ""),
        _community("3", "https://llama.meta.com/llama3/license/", "Built with Meta Llama 3", "Llama 3", meta="Meta "),
        _community("3.1", "https://llama.meta.com/llama3_1/license/", "Built with Llama", "Llama"),
        _community("3.2", "https://www.llama.com/llama3_2/license/", "Built with Llama", "Llama"),
        _community("3.3", "https://www.llama.com/llama3_3/license/", "Built with Llama", "Llama"),
        _community("4", "https://www.llama.com/llama4/license/", "Built with Llama", "Llama"),
    )
}
