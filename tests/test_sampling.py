"""Claims about the one decoding loop: filters and penalties do what they say, seeds are each row's own."""

import itertools
import math

import pytest
import torch

from multimodal.cli import UserError
from multimodal.sampling import Chooser, Sampling, choose, decode, filter_logits, generators, guide, penalise


def kept(logits, **settings):
    return torch.isfinite(filter_logits(logits, Sampling(**settings))).sum(-1).tolist()


def test_top_k_keeps_k_and_top_p_keeps_the_least_that_reach_p():
    logits = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    assert kept(logits, top_k=2) == [3]  # the second and third are equally likely: both stay
    assert kept(logits, top_k=1) == [1]
    assert kept(logits, top_p=0.5) == [1]
    assert kept(logits, top_p=0.51) == [3]
    assert kept(logits, top_p=0.91) == [4]
    assert kept(logits, top_p=1e-9) == [1]
    assert kept(logits, top_k=0, top_p=1.0) == [4]


def test_min_p_keeps_what_has_a_share_of_the_likeliest():
    logits = torch.tensor([[0.5, 0.26, 0.2, 0.04]]).log()
    assert kept(logits, min_p=0.5) == [2]
    assert kept(logits, min_p=0.05) == [4]
    assert kept(logits, min_p=0.1) == [3]
    assert kept(logits, min_p=1.0) == [1]


def by_hand(logits: list[float], sampling: Sampling) -> list[bool]:
    """Which tokens may be chosen, token by token from the definition."""
    scaled = [value / sampling.temperature for value in logits]
    may = [sum(other > value for other in scaled) < (sampling.top_k or len(scaled)) for value in scaled]
    total = math.fsum(math.exp(value) for value, stays in zip(scaled, may, strict=True) if stays)
    shares = [math.exp(value) / total if stays else 0.0 for value, stays in zip(scaled, may, strict=True)]
    # the share of all that is likelier: while it is below p, a token is needed to reach p
    order, before, least = sorted(shares, reverse=True), 0.0, 0.0
    for share in order:
        if before < sampling.top_p and share:
            least = share
        before += share
    may = [share >= least > 0 for share in shares]
    return [stays and share >= sampling.min_p * order[0] for stays, share in zip(may, shares, strict=True)]


def test_top_k_top_p_and_min_p_together_are_what_their_definition_says_ties_included():
    generator = torch.Generator().manual_seed(0)
    for top_k, top_p, min_p in itertools.product((0, 1, 4, 9), (0.3, 0.83, 1.0), (0.0, 0.07, 0.4)):
        sampling = Sampling(0.7, top_k, top_p, min_p)
        # few different values: most tokens have an equal
        logits = torch.randint(-4, 4, (20, 12), generator=generator) * 0.37
        found = filter_logits(logits, sampling)
        assert torch.isfinite(found).tolist() == [by_hand(row, sampling) for row in logits.tolist()]
        shuffle = torch.randperm(12, generator=generator)
        assert torch.equal(filter_logits(logits[:, shuffle], sampling), found[:, shuffle])


def test_top_p_finds_its_tokens_also_where_very_many_share_the_probability():
    logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.01], [1.0], [9.0]])
    found = torch.isfinite(filter_logits(logits, Sampling(top_p=0.9)))
    for row, stays in zip(logits.double().softmax(-1), found, strict=True):
        assert row[stays].sum() == pytest.approx(0.9, abs=2e-3 if stays.sum() > 10 else 0.1)
        assert row[stays].sum() >= 0.9 - 1e-6 > row[stays].sum() - row[stays].min() - 1e-6
        assert row[stays].min() > row[~stays].max()


def test_filters_and_the_repetition_penalty_equal_those_of_transformers():
    process = pytest.importorskip("transformers.generation.logits_process", reason="transformers is the reference")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 300, generator=generator) * 3
    seen = torch.randint(300, (16, 40), generator=generator)
    for temperature, top_k, top_p, min_p in (
        (1.0, 7, 1.0, 0.0),
        (0.7, 0, 0.8, 0.0),
        (1.0, 0, 1.0, 0.1),
        (1.3, 40, 0.9, 0.02),
    ):
        theirs = process.TemperatureLogitsWarper(temperature)(seen, logits) if temperature != 1 else logits
        theirs = process.TopKLogitsWarper(top_k)(seen, theirs) if top_k else theirs
        theirs = process.TopPLogitsWarper(top_p)(seen, theirs)
        theirs = process.MinPLogitsWarper(min_p)(seen, theirs)
        torch.testing.assert_close(filter_logits(logits, Sampling(temperature, top_k, top_p, min_p)), theirs)
    for penalty in (0.8, 1.2, 5.0):
        theirs = process.RepetitionPenaltyLogitsProcessor(penalty)(seen, logits.clone())
        written = torch.zeros(16, 300, dtype=torch.long).scatter_add_(
            1, seen[:, 20:], torch.ones(16, 20, dtype=torch.long)
        )
        prompted = torch.zeros(16, 300, dtype=torch.bool).scatter_(1, seen[:, :20], True)
        ours = penalise(logits, Sampling(repetition_penalty=penalty), prompted, written)
        torch.testing.assert_close(ours, theirs)


def test_presence_is_taken_once_and_frequency_each_time_from_what_was_written_only():
    written = torch.tensor([[0, 1, 3, 0]])
    prompted = torch.tensor([[False, False, True, True]])
    found = penalise(torch.zeros(1, 4), Sampling(presence_penalty=0.5, frequency_penalty=0.25), prompted, written)
    assert found.tolist() == [[0.0, -0.75, -1.25, 0.0]]


def steady(count: int, sampling: Sampling, row: list[float]) -> list[int]:
    """What is chosen when the model always says the same."""
    logits = torch.tensor([row])
    return [t.item() for t in decode(logits, lambda tokens: logits, count, sampling, generators([0]))]


def test_a_loop_is_left_once_the_penalties_outweigh_the_lead():
    lead = [1.0, 0.7, -1.0]
    assert steady(4, Sampling(0.0), lead) == [0, 0, 0, 0]
    assert steady(5, Sampling(0.0, presence_penalty=0.5), lead) == [0, 1, 0, 0, 0]
    assert steady(5, Sampling(0.0, frequency_penalty=0.2), lead) == [0, 0, 1, 0, 1]
    assert steady(3, Sampling(0.0, repetition_penalty=2.0), lead) == [0, 1, 0]
    assert steady(3, Sampling(0.0, logit_bias={2: 2.5}), lead) == [2, 2, 2]


def test_the_repetition_penalty_counts_the_prompt_and_the_others_do_not():
    logits = torch.tensor([[1.0, 0.7], [1.0, 0.7]])

    def first(**settings):
        return Chooser(Sampling(0.0, **settings), generators([0, 0]), logits, [[0, 0], [1]])(logits).tolist()

    assert first(repetition_penalty=2.0) == [1, 0]
    assert first(presence_penalty=2.0, frequency_penalty=2.0) == [0, 0]


def test_a_bias_of_100_forces_and_of_minus_100_forbids():
    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(0))
    assert set(steady(50, Sampling(2.0, logit_bias={4: 100.0}), logits[0].tolist())) == {4}
    drawn = steady(300, Sampling(2.0, logit_bias={4: -100.0}), logits[0].tolist())
    assert set(drawn) == set(range(9)) - {4}


def test_rows_that_go_on_choose_as_if_the_others_had_never_been():
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(1.0, repetition_penalty=1.5, frequency_penalty=0.5, presence_penalty=0.3)
    together = Chooser(sampling, generators([1, 2, 3]), logits.expand(3, -1), [[0], [1], [2]])
    found = [together(logits.expand(3, -1)).tolist() for _ in range(4)]
    together.select([2, 0])
    found += [together(logits.expand(2, -1)).tolist() for _ in range(8)]
    for first, then, seed, prompt in ((0, 1, 1, [0]), (2, 0, 3, [2])):
        alone = Chooser(sampling, generators([seed]), logits, [prompt])
        expected = [alone(logits).item() for _ in range(12)]
        assert [row[first] for row in found[:4]] + [row[then] for row in found[4:]] == expected


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


NAN = float("nan")


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1.0},
        {"temperature": NAN},
        {"top_k": -2},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_p": NAN},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"min_p": NAN},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": -1.0},
        {"repetition_penalty": math.inf},
        {"repetition_penalty": NAN},
        {"presence_penalty": 2.5},
        {"presence_penalty": NAN},
        {"frequency_penalty": -3.0},
        {"frequency_penalty": NAN},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {1: 101.0}},
        {"logit_bias": {1: NAN}},
    ],
)
def test_impossible_sampling_gets_a_sentence(bad):
    (name,) = bad
    with pytest.raises(UserError, match=f"^{name} .*is out of range"):
        Sampling(**bad)


def test_a_bias_for_a_token_outside_the_vocabulary_gets_a_sentence():
    with pytest.raises(UserError, match="logit_bias 7=1.0: the vocabulary has the tokens 0 to 6"):
        steady(1, Sampling(logit_bias={7: 1.0}), [0.0] * 7)
