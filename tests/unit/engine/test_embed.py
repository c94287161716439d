from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_llama

from llamakit.core.errors import InvalidRequest, PromptTooLong
from llamakit.engine.embed import embed
from llamakit.models.llama import Llama


@pytest.fixture(scope="module")
def model() -> Llama:
    return tiny_llama()


PROMPTS = [[1, 2, 3], [7], list(range(300)) + list(range(300)), list(range(20))]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_vectors_are_those_of_the_plain_forward_pass(model: Llama, pooling):
    vectors = embed(model, PROMPTS, pooling=pooling)
    assert vectors.shape == (4, 64) and vectors.dtype == torch.float32
    for prompt, vector in zip(PROMPTS, vectors, strict=True):
        with torch.inference_mode():
            states = model.states(torch.tensor([prompt]))[0]
        expected = states.mean(0) if pooling == "mean" else states[-1]
        torch.testing.assert_close(vector, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vector_depends_on_its_prompt_alone(dtype: torch.dtype):
    model = tiny_llama(dtype=dtype)
    together = embed(model, PROMPTS)
    crowded = embed(model, PROMPTS, max_batch_tokens=10)
    alone = torch.cat([embed(model, [prompt]) for prompt in PROMPTS])
    assert torch.equal(together, alone) and torch.equal(crowded, alone)


def test_no_prompts_no_vectors(model: Llama):
    assert embed(model, []).shape == (0, 64)


@pytest.mark.parametrize("prompt", [[], [320], [-1]])
def test_bad_inputs_are_refused(model: Llama, prompt: list[int]):
    with pytest.raises(InvalidRequest) as caught:
        embed(model, [[1], prompt])
    assert caught.value.param == "input"


def test_too_long_an_input_is_refused_with_both_numbers(model: Llama):
    with pytest.raises(PromptTooLong, match=r"1025.*1024"):
        embed(model, [[1] * 1025])
