"""OpenAI's moderations on the wire, and what Llama Guard's hazards are in OpenAI's words.

Llama Guard says yes or no, so a score is 1 or 0. A hazard that OpenAI has no category for, such as privacy or
elections, flags the input all the same and stands in `metadata` by its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from llamakit.api.wire import FIRST, LIST, TEXT, TEXT_OR_LIST, ModelName, Wire
from llamakit.core.errors import InvalidRequest

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
MAX_INPUTS = 256
LATEST = ("omni-moderation-latest", "text-moderation-latest", "text-moderation-stable")
"""Names of OpenAI's models, by which its clients ask for whatever there is."""

_HAZARDS: Mapping[str, tuple[str, ...]] = {
    # Llama Guard 2, 3 and 4.
    "Violent Crimes": ("violence", "illicit", "illicit/violent"),
    "Non-Violent Crimes": ("illicit",),
    "Sex Crimes": ("sexual", "illicit"),
    "Child Exploitation": ("sexual", "sexual/minors"),
    "Defamation": ("harassment",),
    "Specialized Advice": (),
    "Privacy": (),
    "Intellectual Property": (),
    "Indiscriminate Weapons": ("violence", "illicit", "illicit/violent"),
    "Hate": ("hate",),
    "Self-Harm": ("self-harm",),
    "Sexual Content": ("sexual",),
    "Elections": (),
    "Code Interpreter Abuse": ("illicit",),
    # Llama Guard 1.
    "Violence and Hate": ("violence", "hate"),
    "Criminal Planning": ("illicit",),
    "Guns and Illegal Weapons": ("illicit", "illicit/violent"),
    "Regulated or Controlled Substances": ("illicit",),
}


class ModerationText(Wire):
    """Text to be judged."""

    type: Literal["text"]
    text: str


class ModerationImageUrl(Wire):
    """Where an image is."""

    url: str


class ModerationImage(Wire):
    """An image; refused, because the shields here judge words."""

    type: Literal["image_url"]
    image_url: ModerationImageUrl


ModerationPart = Annotated[ModerationText | ModerationImage, Field(discriminator="type")]


class WireModerationRequest(Wire):
    """Body of `POST /v1/moderations`."""

    input: Annotated[
        Annotated[str, TEXT] | Annotated[list[str | ModerationPart], FIRST, Field(min_length=1), LIST], TEXT_OR_LIST
    ]
    """A text; several, each with a result of its own; or parts, which are judged as one."""
    model: ModelName | None = None
    """A shield, or a served guard model; left out, or one of OpenAI's names, it is the server's first shield."""


def _by_category(name: str, about: str, kind: Any) -> type[Wire]:
    fields: dict[str, Any] = {
        category.replace("/", "_").replace("-", "_"): (kind, Field(alias=category)) for category in CATEGORIES
    }
    return create_model(name, __base__=Wire, __doc__=about, **fields)


WireModerationCategories = _by_category("WireModerationCategories", "Which categories apply.", bool)
WireModerationScores = _by_category("WireModerationScores", "1 where a category applies, else 0.", float)
WireModerationTypes = _by_category("WireModerationTypes", "What was judged.", list[Literal["text", "image"]])


class WireModeration(Wire):
    """What was found in one input."""

    flagged: bool
    categories: WireModerationCategories  # pyright: ignore[reportInvalidTypeForm]
    category_scores: WireModerationScores  # pyright: ignore[reportInvalidTypeForm]
    category_applied_input_types: WireModerationTypes  # pyright: ignore[reportInvalidTypeForm]
    user_message: str | None
    """What the person may be told (extension, as in Llama Stack)."""
    metadata: dict[str, Any]
    """What the shield itself says, such as its codes (extension, as in Llama Stack)."""


class WireModerations(Wire):
    """The results, in the order of the inputs."""

    id: str
    model: str
    results: list[WireModeration]


def to_texts(wire: WireModerationRequest) -> list[str]:
    """The texts to be judged one by one; raises `InvalidRequest`."""
    if isinstance(wire.input, str):
        return [wire.input]
    if len(wire.input) > MAX_INPUTS:
        raise InvalidRequest(f"input holds {len(wire.input)} items, at most {MAX_INPUTS}", param="input")
    texts = [item for item in wire.input if isinstance(item, str)]
    if len(texts) == len(wire.input):
        return texts
    if texts:
        raise InvalidRequest("input is a list of texts or a list of parts, not both", param="input")
    parts = [item for item in wire.input if isinstance(item, ModerationText)]
    if len(parts) < len(wire.input):
        raise InvalidRequest(
            "input holds an image, and the shields here judge words; send the text alone", param="input"
        )
    return ["\n".join(part.text for part in parts)]


def result_body(
    categories: Sequence[str], *, is_flagged: bool, user_message: str | None, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The result of one input, from the names of the hazards that were found."""
    found = {ours for name in categories for ours in _HAZARDS.get(name, ())}
    names = {"hazards": list(categories)} if categories else {}
    return {
        "flagged": is_flagged,
        "categories": {category: category in found for category in CATEGORIES},
        "category_scores": {category: float(category in found) for category in CATEGORIES},
        "category_applied_input_types": {category: ["text"] for category in CATEGORIES},
        "user_message": user_message,
        "metadata": {**metadata, **names},
    }
