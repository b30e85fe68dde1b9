"""Claims about beam search: exact where it can be, the reference's results, and nothing that the cache changes."""

import itertools
import math

import pytest
import torch

from gpt.beam import beam_search, score
from gpt.model import GPT
from gpt.presets import GPTConfig
from gpt.published import to_ours
from gpt.writing import write_batch
from multimodal.cli import UserError
from multimodal.config import gpt2, modern
from multimodal.sampling import Sampling
from multimodal.tokenizer import Tokenizer

FAMILIES = {"gpt2": gpt2(32, 2, 2), "modern": modern(32, 2, 2)}
LETTERS = Tokenizer.characters(["ab"])  # 4 tokens: the end, any other character, a and b
BYTES = Tokenizer.bytes()


def make(family: str, vocabulary: int, context: int = 24) -> GPT:
    """Random weights large enough that the next token depends on all that came before it."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocabulary, context, FAMILIES[family]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture(scope="module", params=FAMILIES)
def small(request) -> GPT:
    return make(request.param, LETTERS.vocab_size)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request) -> GPT:
    return make(request.param, BYTES.vocab_size)


@torch.no_grad()
def exhaustive(model: GPT, prompt: str, longest: int, length_penalty: float, stop: str) -> list[tuple[float, str]]:
    """(score, text) of every text that can be written, each computed by itself, the best first."""
    before, end = LETTERS.encode(prompt), LETTERS.end
    found = {}
    for tokens in itertools.product(range(LETTERS.vocab_size), repeat=longest):
        length = next(
            (n for n in range(1, longest + 1) if tokens[n - 1] == end or (stop and stop in LETTERS.decode(tokens[:n]))),
            longest,
        )
        found[tokens[:length]] = None
    for tokens in found:
        logprobs = model(torch.tensor([[*before, *tokens]]))[0].log_softmax(-1)[len(before) - 1 : -1]
        total = sum(logprobs[place, token].item() for place, token in enumerate(tokens))
        found[tokens] = total / ((5 + len(tokens)) / 6) ** length_penalty
    ordered = sorted(found.items(), key=lambda item: -item[1])
    texts = [(value, LETTERS.decode([t for t in tokens if t != end])) for tokens, value in ordered]
    return [(value, text.split(stop)[0] if stop else text) for value, text in texts]


@pytest.mark.parametrize(("length_penalty", "stop"), [(0.0, ""), (0.6, ""), (3.0, ""), (0.6, "ab"), (0.6, "a")])
def test_with_as_many_beams_as_texts_the_search_is_exhaustive(small, length_penalty, stop):
    expected = exhaustive(small, "abba", 4, length_penalty, stop)
    found = beam_search(small, LETTERS, "abba", 4, 100, length_penalty, [stop] if stop else [], n=8)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected[:8]], abs=1e-5)
    assert [row.text for _, row in found] == [text for _, text in expected[:8]]
    assert {row.finish_reason for _, row in found} <= {"stop", "length"}


@torch.no_grad()
def anew(model: GPT, prompt: str, longest: int, beams: int) -> list[tuple[float, list[int]]]:
    """(log-probability, tokens) by a search where no document ends and all is computed anew; past the context, the
    newest half."""
    before, begin = BYTES.encode(prompt), 0
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    for length in range(len(before), len(before) + longest):
        if length - begin > model.config.context:
            begin = length - model.config.context // 2
        rows = torch.tensor([[*before, *tokens][begin:] for _, tokens in running])
        logprobs = model(rows)[:, -1].log_softmax(-1).double()
        logprobs[:, BYTES.end] = -math.inf
        totals = (logprobs + torch.tensor([[total] for total, _ in running])).flatten()
        best = totals.topk(beams)
        running = [
            (value, [*running[place // logprobs.shape[1]][1], place % logprobs.shape[1]])
            for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
    return running


@pytest.mark.parametrize("beams", [2, 5])
def test_a_cache_that_follows_the_beams_equals_computing_everything_anew_also_past_the_context(model, beams):
    found = beam_search(model, BYTES, "hello", 50, beams, 0.0, n=beams)
    expected = anew(model, "hello", 50, beams)
    assert all(row.finish_reason == "length" for _, row in found)
    assert [row.tokens for _, row in found] == [tokens for _, tokens in expected]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-3)
    for value, row in found:
        assert value == pytest.approx(sum(row.token_logprobs))


def test_one_beam_takes_the_likeliest_token_each_time(model):
    for prompt in ("hello", "", "zwölf", "x" * 40):
        *_, last = write_batch(model, BYTES, [prompt], 40, Sampling(0.0), [0])
        ((_, row),) = beam_search(model, BYTES, prompt, 40, beams=1)
        assert (row.text, row.finish_reason) == (last[0][0].text, last[0][0].finish_reason)


def test_the_beams_of_a_random_gpt2_are_those_of_transformers():
    transformers = pytest.importorskip("transformers", reason="transformers is the reference; it is not installed")
    torch.manual_seed(0)
    sizes = {"vocab_size": BYTES.vocab_size, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
    ends = {"bos_token_id": BYTES.end, "eos_token_id": BYTES.end, "pad_token_id": BYTES.end}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        end = theirs.transformer.wte.weight[BYTES.end]
        theirs.transformer.ln_f.bias += 3 * end / end.norm() ** 2  # so that some texts end
    config = GPTConfig(BYTES.vocab_size, 32, gpt2(32, 2, 2))
    ours = GPT(config).eval()
    plain = {name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(to_ours(plain, config, in_out=True))
    reasons = set()
    for prompt in ("hello", "ab", "The end", "12345"):
        ids = torch.tensor([BYTES.encode(prompt)])
        expected = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, num_beams=4, num_return_sequences=4,
            do_sample=False, length_penalty=0.0, early_stopping="never", output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
        found = beam_search(ours, BYTES, prompt, 14, 4, 0.0, n=4)
        assert [value for value, _ in found] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-3)
        written = [[t for t in row[ids.shape[1] :].tolist() if t != BYTES.end] for row in expected.sequences]
        assert [row.tokens for _, row in found] == written
        reasons |= {row.finish_reason for _, row in found}
    assert reasons == {"stop", "length"}


def test_a_search_among_more_beams_finds_no_less_likely_text_here_and_is_the_same_each_time(model):
    totals = []
    for beams in (1, 4, 16):
        found = beam_search(model, BYTES, "hello", 12, beams, 0.0)
        assert found[0][0] == beam_search(model, BYTES, "hello", 12, beams, 0.0)[0][0]
        totals.append(found[0][0])
    assert totals == sorted(totals)


def test_scores_of_texts_are_compared_by_the_formula_of_the_paper():
    assert score(-6.0, 1, 0.6) == -6.0
    assert score(-6.0, 7, 1.0) == pytest.approx(-3.0)
    assert score(-6.0, 100, 0.0) == -6.0
    assert score(-6.0, 19, 0.5) == pytest.approx(-3.0)


def test_every_continuation_may_end_at_once():
    """Where each token completes a stop string, one step is all there is."""
    model = make("gpt2", LETTERS.vocab_size)
    found = beam_search(model, LETTERS, "ab", 9, 20, stop=["a", "b", "\ufffd"], n=20)
    assert [row.text for _, row in found] == [""] * 4
    assert math.fsum(math.exp(row.mean_logprob) for _, row in found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"beams": 0}, "beams 0"),
        ({"beams": 101}, "beams 101"),
        ({"n": 5}, "n 5 is out of range: 1 to the number of beams, which is 4"),
        ({"n": 0}, "n 0"),
        ({"length_penalty": -1.0}, "length_penalty -1.0"),
        ({"length_penalty": math.nan}, "length_penalty nan"),
        ({"stop": [""]}, "stop string is empty"),
        ({"prompt": [999]}, "the token 999"),
    ],
)
def test_an_impossible_search_gets_a_sentence(settings, sentence):
    model = make("gpt2", LETTERS.vocab_size)
    with pytest.raises(UserError, match=sentence):
        beam_search(model, LETTERS, **{"prompt": "a", "max_tokens": 3, **settings})
