"""Claims about writing: what streams out is what was sampled, whole, wherever token borders fall."""

import math

import pytest
import torch

from gpt.model import GPT
from gpt.presets import GPTConfig
from gpt.writing import Continuation, write, write_batch
from multimodal.cli import UserError
from multimodal.config import gpt2, modern
from multimodal.sampling import Sampling
from multimodal.tokenizer import Tokenizer

FAMILIES = {"gpt2": gpt2(32, 2, 2), "modern": modern(32, 2, 2)}
families = pytest.mark.parametrize("family", FAMILIES)
TOKENIZER = Tokenizer.bytes()
PLAIN = Sampling()
PROMPTS = ["one", "a much longer prompt", "", "zwölf"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request) -> GPT:
    """Random weights large enough that the next token depends on all that came before it."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(TOKENIZER.vocab_size, 24, FAMILIES[request.param]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def finished(model, prompts, count, seeds, sampling=PLAIN, stop=()):
    rows, texts = [], [""] * len(prompts)
    for turn in write_batch(model, TOKENIZER, prompts, count, sampling, seeds, stop):
        rows = [row for row, _ in turn]
        texts = [text + new for text, (_, new) in zip(texts, turn, strict=True)]
    assert texts == [row.text for row in rows]  # what streamed is what is kept
    return rows


def naive(model: GPT, prompt: str, count: int) -> tuple[list[int], list[float]]:
    """The likeliest token again and again, everything computed anew; past the context, the newest half."""
    seen = TOKENIZER.encode(prompt) or [TOKENIZER.end]
    tokens, logprobs = [], []
    for _ in range(count):
        if len(seen) > model.config.context:
            seen = seen[-(model.config.context // 2) :]
        found = model(torch.tensor([seen]))[0, -1].log_softmax(-1)
        tokens.append(found.argmax().item())
        logprobs.append(found.max().item())
        seen.append(tokens[-1])
    return tokens, logprobs


@torch.no_grad()
def test_greedy_writing_equals_computing_everything_anew_also_past_the_context(model):
    tokens, logprobs = naive(model, "hello", 70)
    until = tokens.index(TOKENIZER.end) if TOKENIZER.end in tokens else 70
    (row,) = finished(model, ["hello"], 70, [0], Sampling(temperature=0.0))
    assert row.tokens == tokens[:until]
    assert torch.allclose(torch.tensor(row.token_logprobs), torch.tensor(logprobs[:until]), atol=1e-4)


def test_a_batch_of_ragged_prompts_equals_each_alone(model):
    seeds = [11, 12, 13, 14]
    together = finished(model, PROMPTS, 50, seeds)
    for prompt, seed, row in zip(PROMPTS, seeds, together, strict=True):
        (alone,) = finished(model, [prompt], 50, [seed])
        assert (alone.tokens, alone.text, alone.finish_reason) == (row.tokens, row.text, row.finish_reason)
        assert torch.allclose(torch.tensor(alone.token_logprobs), torch.tensor(row.token_logprobs), atol=1e-4)


def test_samples_of_one_prompt_depend_on_their_own_seed_only(model):
    together = finished(model, ["abc"] * 3, 30, [5, 6, 5])
    assert together[0].tokens == together[2].tokens != together[1].tokens
    assert finished(model, ["abc"], 30, [6])[0].tokens == together[1].tokens


def test_logprobs_are_the_models_own_whatever_the_sampling(model):
    (row,) = finished(model, ["abc"], 10, [3], Sampling(temperature=0.3, top_k=5))
    seen = torch.tensor([TOKENIZER.encode("abc") + row.tokens])
    expected = model(seen)[0].log_softmax(-1)[2:-1].gather(1, seen[0, 3:, None])[:, 0]
    assert torch.allclose(torch.tensor(row.token_logprobs), expected, atol=1e-4)


def test_a_prompt_longer_than_the_context_is_read_from_its_end(model):
    long = "x" * 100 + "0123456789abcdefghijklmn"
    assert finished(model, [long], 5, [1])[0].tokens == finished(model, [long[-24:]], 5, [1])[0].tokens


def test_text_is_the_decoding_of_its_tokens(model):
    for seed in range(5):
        (row,) = finished(model, [""], 40, [seed])
        assert row.text == TOKENIZER.decode(row.tokens)


def test_write_streams_what_a_batch_of_one_writes(model):
    assert "".join(write(model, TOKENIZER, "abc", 20, Sampling(), seed=4)) == finished(model, ["abc"], 20, [4])[0].text


def test_length_ends_a_row_at_its_last_token(model):
    (row,) = finished(model, ["abc"], 7, [2], Sampling(temperature=0.5))
    assert row.finish_reason in ("length", "stop")
    assert len(row.tokens) == 7 if row.finish_reason == "length" else len(row.tokens) < 7


def typed(tokenizer: Tokenizer, ids: list[int], stop: list[str]) -> tuple[Continuation, list[str]]:
    """A row to which the tokens are given one by one, and what came out at each."""
    row, pieces = Continuation(tokenizer, stop), []
    for number, token in enumerate(ids):
        if row.finish_reason is None:
            pieces.append(row.push(token, -float(number)))
    if row.finish_reason is None:
        pieces.append(row.finish("length"))
    return row, pieces


@pytest.mark.parametrize(
    ("text", "stop", "expected", "reason"),
    [
        ("one two three", ["two"], "one ", "stop"),
        ("112 and more", ["12"], "1", "stop"),  # a matcher that starts again at the second 1 misses it
        ("aabaabaac", ["aabaac"], "aab", "stop"),
        ("never", ["never ever"], "never", "length"),  # held back to the end, then let go
        ("abcabd", ["abd"], "abc", "stop"),
        ("x STOP y HALT", ["HALT", "STOP"], "x ", "stop"),  # the order of the list means nothing
        ("straight", [], "straight", "length"),
        ("end", ["d"], "en", "stop"),  # on the last token, stop wins over length
        ("naïve 😀 yes", ["😀"], "naïve ", "stop"),
        ("é", ["è"], "é", "length"),  # the same first byte
    ],
)
@pytest.mark.parametrize("merged", [False, True])
def test_a_stop_string_is_found_wherever_token_borders_fall(text, stop, expected, reason, merged):
    tokenizer = Tokenizer.bpe([(text + " ") * 9], 330) if merged else TOKENIZER
    row, pieces = typed(tokenizer, tokenizer.encode(text), stop)
    assert (row.text, row.finish_reason) == (expected, reason)
    assert "".join(pieces) == expected


def test_no_beginning_of_a_stop_string_leaks_while_streaming():
    _, pieces = typed(TOKENIZER, TOKENIZER.encode("ab##ab###cd"), ["###"])
    assert pieces[:6] == ["a", "b", "", "", "##a", "b"]
    assert "".join(pieces) == "ab##ab"


def test_tokens_that_lie_in_the_stop_string_are_left_out_with_their_logprobs():
    row, _ = typed(TOKENIZER, TOKENIZER.encode("abXYc"), ["XY"])
    assert row.tokens == TOKENIZER.encode("ab")
    assert row.token_logprobs == [0.0, -1.0]


def test_half_a_character_never_leaves():
    _, pieces = typed(TOKENIZER, TOKENIZER.encode("a😀b"), [])
    assert pieces == ["a", "", "", "", "😀", "b", ""]


def test_the_end_of_a_document_ends_a_row_and_lets_go_what_was_held():
    row, pieces = typed(TOKENIZER, [*TOKENIZER.encode("ab#"), TOKENIZER.end], ["##"])
    assert (row.text, row.finish_reason, pieces) == ("ab#", "stop", ["a", "b", "", "#"])


def test_a_stop_string_in_the_prompt_does_not_count(model):
    (row,) = finished(model, ["abc#"], 3, [0], stop=["c#"])
    assert len(row.tokens) == 3 or row.text == ""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"max_tokens": 0}, "max_tokens 0"), ({"stop": [""]}, "stop string"), ({"seeds": [1, 2]}, "2 seeds")],
)
def test_what_cannot_be_written_gets_a_sentence(model, settings, sentence):
    arguments = {"prompts": ["a"], "max_tokens": 3, "sampling": Sampling(), "seeds": [0], **settings}
    with pytest.raises(UserError, match=sentence):
        next(write_batch(model, TOKENIZER, **arguments))


def test_probabilities_of_all_tokens_sum_to_one(model):
    total = 0.0
    for token in range(TOKENIZER.vocab_size):
        logits = model(torch.tensor([TOKENIZER.encode("abc")]))[0, -1]
        total += math.exp(logits.log_softmax(-1)[token].item())
    assert total == pytest.approx(1, abs=1e-4)
