"""Claims about the one decoding loop: filters keep what they say, seeds are each row's own."""

import pytest
import torch

from multimodal.cli import UserError
from multimodal.sampling import Sampling, choose, decode, filter_logits, generators, guide


def kept(logits, **settings):
    return torch.isfinite(filter_logits(logits, Sampling(**settings))).sum(-1).tolist()


def test_top_k_keeps_k_and_top_p_keeps_the_least_that_reach_p():
    logits = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    assert kept(logits, top_k=2) == [3]  # the second and third are equally likely: both stay
    assert kept(logits, top_k=1) == [1]
    assert kept(logits, top_p=0.5) == [1]
    assert kept(logits, top_p=0.51) == [2]
    assert kept(logits, top_p=1e-9) == [1]
    assert kept(logits, top_k=0, top_p=1.0) == [4]


def test_temperature_zero_takes_the_likeliest_and_needs_no_seed():
    assert choose(torch.tensor([[0.0, 2.0, 1.0]]), Sampling(temperature=0.0), []).tolist() == [1]


def test_a_row_is_drawn_by_its_own_seed_whatever_stands_beside_it():
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    alone = [choose(logits, Sampling(), generators([seed])).item() for seed in range(20)]
    together = choose(logits.expand(20, -1), Sampling(), generators(list(range(20)))).tolist()
    assert alone == together
    assert len(set(alone)) > 5


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.6, 0.3, 0.1, 0.0])
    rows = probabilities.log().expand(4000, -1)
    drawn = torch.bincount(choose(rows, Sampling(), generators(list(range(4000)))), minlength=4) / 4000
    torch.testing.assert_close(drawn, probabilities, atol=0.03, rtol=0)
    assert drawn[3] == 0


def test_guidance_one_is_the_conditional_and_zero_the_unconditional():
    c, u = torch.randn(2, 5), torch.randn(2, 5)
    torch.testing.assert_close(guide(c, u, 1.0), c)
    torch.testing.assert_close(guide(c, u, 0.0), u)


def test_the_model_is_asked_only_for_tokens_that_are_wanted():
    calls = []

    def step(tokens):
        calls.append(tokens)
        return torch.zeros(1, 3)

    tokens = list(decode(torch.zeros(1, 3), step, 4, Sampling(temperature=0.0), generators([0])))
    assert len(tokens) == 4 and len(calls) == 3


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1.0}, {"top_k": -2}, {"top_p": 0.0}, {"top_p": 1.5}, {"temperature": float("nan")}],
)
def test_impossible_sampling_gets_a_sentence(bad):
    with pytest.raises(UserError, match="out of range"):
        Sampling(**bad)
