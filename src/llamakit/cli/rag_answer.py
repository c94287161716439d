"""A question and passages to an answer that names them, within the context of whatever model is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from llamakit.api.ids import new_id
from llamakit.api.inference import ChatRequest, Inference, RequestContext, TokenizeRequest
from llamakit.core.errors import PromptTooLong
from llamakit.core.messages import AnswerFold, Message, TextDelta, user
from llamakit.stack.vector_search import Found

ANSWER_TOKENS = 256
"""Room that is kept for the answer, and its limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """An answer and what it rests on."""

    text: str
    cited: Sequence[Found]
    """The passages the model was given, in the order of their numbers."""
    left_out: Sequence[Found]
    """Those there was no room for."""


async def answer(
    inference: Inference, model: str, question: str, found: Sequence[Found], show: Callable[[str], None] | None
) -> Answered:
    """Ask `model`, with as many passages as it holds; raises `PromptTooLong` where it holds not even one."""
    context = (await inference.load(model)).context_length
    given = list(found)
    while True:
        messages = _messages(question, given)
        tokens = await inference.tokenize(TokenizeRequest(model=model, messages=messages))
        if len(tokens.ids) + ANSWER_TOKENS <= context:
            break
        if len(given) == 1:
            raise PromptTooLong(
                f"the best passage and the question have {len(tokens.ids)} tokens, {model} holds {context} with "
                f"{ANSWER_TOKENS} for the answer; name a larger model"
            )
        given.pop()
    request = ChatRequest(
        model=model,
        messages=messages,
        context=RequestContext(id=new_id("rag")),
        sampling={"temperature": 0.0, "max_tokens": ANSWER_TOKENS},
    )
    folded = AnswerFold()
    async with aclosing(inference.chat(request)) as events:
        async for event in events:
            folded.add(event)
            if show is not None and isinstance(event, TextDelta):
                show(event.text)
    return Answered(text=folded.answer().text, cited=given, left_out=found[len(given) :])


def _messages(question: str, passages: Sequence[Found]) -> tuple[Message, ...]:
    shown = "\n\n".join(f"[{number}] {passage.filename}\n{passage.text}" for number, passage in enumerate(passages, 1))
    # The question goes first: what a small model reads last it takes for what to answer.
    asked = f"{question}\n\nAnswer from these passages alone and name them by number, such as [1]."
    return (user(f"{asked}\n\n{shown}"),)
