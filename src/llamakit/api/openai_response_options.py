"""Options of OpenAI's Responses on the wire: what the answer's text is like, prompts, caches, moderation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llamakit.api.openai_messages import OBJECT, WORD_OR_OBJECT
from llamakit.api.openai_response_content import InputFile, InputImage, InputText
from llamakit.api.openai_sampling import (
    ResponseFormatChoice,
    ResponseFormatGrammar,
    ResponseFormatJsonObject,
    ResponseFormatRegex,
    ResponseFormatText,
)
from llamakit.api.wire import TEXT, ModelName, Wire

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class TextFormatJsonSchema(Wire):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    name: Annotated[str, Field(max_length=64)]
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: bool | None = None
    """Accepted; output always follows the schema exactly."""


TextFormat = Annotated[
    ResponseFormatText
    | TextFormatJsonSchema
    | ResponseFormatJsonObject
    | ResponseFormatRegex
    | ResponseFormatGrammar
    | ResponseFormatChoice,
    Field(discriminator="type"),
]


class TextConfig(Wire):
    """What the answer's text is like."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Wire):
    """How a model is to reason; passed on and shown, without effect on models that do not."""

    effort: ReasoningEffort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    mode: str | None = None


PromptVariable = Annotated[
    Annotated[str, TEXT]
    | Annotated[Annotated[InputText | InputImage | InputFile, Field(discriminator="type")], OBJECT],
    WORD_OR_OBJECT,
]


class PromptReference(Wire):
    """A stored prompt with values for its variables."""

    id: str
    variables: dict[str, PromptVariable] | None = None
    version: str | None = None
    """A number; the default version when left out."""


class ConversationReference(Wire):
    """A stored conversation."""

    id: str


class AccessPrograms(Wire):
    """Programs of OpenAI's own; a hint, set aside."""

    cyber: Literal["standard", "daybreak_blue", "daybreak_red"] | None = None


class ContextManagement(Wire):
    """When a conversation is made short by itself."""

    type: Literal["compaction"]
    compact_threshold: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """Tokens of a prompt from which on the conversation is made short first; never, where it is left out."""


class ImageOptions(Wire):
    """How images of old turns are treated; a hint, set aside: they are shown as they are."""

    context_compression: Literal["auto", "enabled", "disabled"] | None = None


class ModerationMode(Wire):
    """What happens to words that are flagged."""

    mode: Literal["score", "block"]
    """`score` tells of it; `block` ends the response there."""


class ModerationPolicy(Wire):
    """What is done about the input and about the output; `score` where nothing is said."""

    input: ModerationMode | None = None
    output: ModerationMode | None = None


class ModerationOptions(Wire):
    """Judge the input and the output of a response."""

    model: ModelName
    """A shield, or a served guard model; one of OpenAI's names is the server's first shield."""
    policy: ModerationPolicy | None = None


class PromptCacheOptions(Wire):
    """How prefixes are cached; a hint, set aside, but for the response to compare with."""

    comparison_response_id: str | None = None
    mode: Literal["implicit", "explicit"] | None = None
    prewarm: bool | None = None
    ttl: Literal["30m", "12h"] | None = None
