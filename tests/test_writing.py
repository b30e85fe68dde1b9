"""Claims about writing: what streams out is what was sampled, whole, wherever token borders fall."""

import io
import json
import math

import pytest
import torch

from gpt import model as gpt
from gpt import sample, writing
from gpt.model import GPT
from gpt.presets import GPTConfig
from gpt.scoring import continuations
from gpt.writing import Continuation, Request, complete, write, write_batch
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


def finished(model, prompts, count, seeds, sampling=PLAIN, stop=(), **settings):
    rows, texts = [], [""] * len(prompts)
    for turn in write_batch(model, TOKENIZER, prompts, count, sampling, seeds, stop, **settings):
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


PENALISED = Sampling(
    0.9,
    50,
    0.95,
    0.01,
    repetition_penalty=1.3,
    presence_penalty=0.4,
    frequency_penalty=0.3,
    logit_bias={101: 2.0, 0: -9.0},
)


def test_a_batch_with_penalties_equals_each_alone_also_past_the_context(model):
    seeds = [11, 12, 13, 14]
    together = finished(model, PROMPTS, 60, seeds, PENALISED)
    for prompt, seed, row in zip(PROMPTS, seeds, together, strict=True):
        (alone,) = finished(model, [prompt], 60, [seed], PENALISED)
        assert alone.tokens == row.tokens
    assert max(len(row.tokens) for row in together) > 2 * model.config.context


@torch.no_grad()
def test_penalties_and_bias_are_those_of_the_definition_all_the_way(model):
    sampling = Sampling(
        0.0, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3, logit_bias={101: 2.0, 0: -99.0}
    )
    (row,) = finished(model, ["hello"], 40, [0], sampling)
    seen, prompt, written = TOKENIZER.encode("hello"), TOKENIZER.encode("hello"), []
    while len(written) < 40:
        if len(seen) > model.config.context:
            seen = seen[-(model.config.context // 2) :]
        logits = model(torch.tensor([seen]))[0, -1]
        for token in set(prompt + written):
            logits[token] = logits[token] / 1.3 if logits[token] > 0 else logits[token] * 1.3
        for token in set(written):
            logits[token] -= 0.4 + 0.3 * written.count(token)
        logits[101] += 2.0
        logits[0] -= 99.0
        written.append(logits.argmax().item())
        seen.append(written[-1])
    assert row.tokens == written
    assert len(set(written)) > 15


def test_rows_that_end_leave_the_batch_and_the_others_do_not_notice(model, monkeypatch):
    asked, forward = [], GPT.forward
    monkeypatch.setattr(
        GPT, "forward", lambda self, t, *rest, **more: asked.append(len(t)) or forward(self, t, *rest, **more)
    )
    seeds, stop = list(range(12)), ["a", "e", "1", " ", "Q", "x"]
    prompts = [PROMPTS[i % 4] for i in range(12)]
    together = finished(model, prompts, 60, seeds, stop=stop)
    sizes = asked[1:]
    lengths = sorted(len(row.tokens) for row in together)
    assert lengths[4] < 30 < lengths[-1]  # some end early, some late
    assert sizes[0] == 12 and sizes == sorted(sizes, reverse=True)
    assert sum(sizes) < 0.8 * 12 * len(sizes)
    for prompt, seed, row in zip(prompts, seeds, together, strict=True):
        (alone,) = finished(model, [prompt], 60, [seed], stop=stop)
        assert (alone.tokens, alone.text, alone.finish_reason) == (row.tokens, row.text, row.finish_reason)


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
    [
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"max_tokens": -1, "echo": True}, "max_tokens -1"),
        ({"stop": [""]}, "stop string is empty"),
        ({"stop": ["x" * 1001]}, "too many or too long"),
        ({"stop": ["x"] * 101}, "too many or too long"),
        ({"seeds": [1, 2]}, "2 seeds"),
        ({"prompts": [], "seeds": []}, "0 prompts"),
        ({"prompts": [[3, 257]]}, "the token 257: allowed are 0 to 256"),
        ({"prompts": [[-1]]}, "the token -1"),
        ({"logprobs": -1}, "logprobs -1"),
        ({"logprobs": 101}, "logprobs 101"),
        ({"sampling": Sampling(logit_bias={257: 1.0})}, "0 to 256"),
    ],
)
def test_what_cannot_be_written_gets_a_sentence(model, settings, sentence):
    arguments = {"prompts": ["a"], "max_tokens": 3, "sampling": Sampling(), "seeds": [0], **settings}
    with pytest.raises(UserError, match=sentence):
        next(write_batch(model, TOKENIZER, **arguments))


def test_an_echo_holds_the_prompt_and_the_log_probability_of_each_token_given_those_before(model):
    (plain,) = finished(model, ["abc zwölf"], 6, [4])
    (row,) = finished(model, ["abc zwölf"], 6, [4], logprobs=3, echo=True)
    ids = TOKENIZER.encode("abc zwölf")
    assert row.tokens == ids + plain.tokens and row.text == "abc zwölf" + plain.text
    logprobs = model(torch.tensor([row.tokens]))[0].log_softmax(-1)
    assert row.token_logprobs[0] is row.top_logprobs[0] is None
    expected = logprobs[:-1].gather(1, torch.tensor(row.tokens[1:])[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(row.token_logprobs[1:]), expected, atol=1e-4, rtol=0)
    for position, top in enumerate(row.top_logprobs[1:]):
        likeliest = logprobs[position].topk(3)
        assert [token for token, _ in top[:3]] == likeliest.indices.tolist()
        assert [value for _, value in top[:3]] == pytest.approx(likeliest.values.tolist(), abs=1e-4)
        chosen = row.tokens[position + 1]
        assert dict(top)[chosen] == pytest.approx(row.token_logprobs[position + 1])
        assert len(top) == 3 + (chosen not in likeliest.indices)
    # the two bytes of the ö begin at one place
    assert row.text_offsets[:10] == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8]
    assert len(row.tokens) == len(row.token_logprobs) == len(row.top_logprobs) == len(row.text_offsets)


def test_an_echo_without_a_token_to_write_scores_the_prompt_and_asks_for_nothing_else(model, monkeypatch):
    (row,) = finished(model, ["hello"], 0, [0], logprobs=0, echo=True)
    assert (row.text, row.finish_reason) == ("hello", "length")
    assert row.tokens == TOKENIZER.encode("hello")
    assert [len(top) for top in row.top_logprobs[1:]] == [1] * 4
    (empty,) = finished(model, [""], 0, [0], logprobs=2, echo=True)
    assert (empty.text, empty.tokens, empty.finish_reason) == ("", [], "length")
    monkeypatch.setattr(GPT, "forward", None)  # and an echo alone asks for nothing at all
    (row,) = finished(model, ["hello"], 0, [0], echo=True)
    assert row.token_logprobs == [None] * 5


def test_scoring_by_echo_gives_one_entry_more_than_the_prompt_even_if_the_document_ends(model):
    """What evaluation harnesses build on: prompt tokens, one token greedily, and their log-probabilities."""
    for bias in (100.0, -100.0):
        sampling = Sampling(0.0, logit_bias={TOKENIZER.end: bias})
        (row,) = finished(model, [TOKENIZER.encode("question: answer")], 1, [0], sampling, logprobs=1, echo=True)
        assert (row.ending is not None) == (bias > 0)
        entries = [*row.token_logprobs, *([row.ending[0]] if row.ending else [])]
        assert len(entries) == len("question: answer") + 1
        tops = [*row.top_logprobs, *([row.ending[1]] if row.ending else [])]
        assert len(tops) == len(entries) and all(tops[1:])
    ended = model(torch.tensor([TOKENIZER.encode("question: answer")]))[0, -1].log_softmax(-1)[TOKENIZER.end]
    (row,) = finished(model, ["question: answer"], 1, [0], Sampling(0.0, logit_bias={TOKENIZER.end: 100.0}))
    assert row.ending[0] == pytest.approx(ended.item(), abs=1e-4)
    assert (row.tokens, row.text, row.finish_reason) == ([], "", "stop")


def test_a_prompt_longer_than_the_context_is_echoed_whole_and_scored_as_everywhere(model):
    long = "".join(chr(97 + i * i % 26) for i in range(70))
    (row,) = finished(model, [long], 2, [1], logprobs=0, echo=True)
    assert row.text.startswith(long) and row.tokens[:70] == TOKENIZER.encode(long)
    (scored,) = continuations(model, TOKENIZER.end, [(row.tokens[:1], row.tokens[1:70])])
    assert row.token_logprobs[1:70] == pytest.approx(scored.logprobs, abs=1e-4)


def test_a_stop_string_takes_away_only_what_was_written_and_never_the_echo():
    row = Continuation(TOKENIZER, ["c#"])
    row.echo(TOKENIZER.encode("abc"), [None, -1.0, -2.0], [None] * 3)
    row.push(TOKENIZER.encode("#")[0], -3.0)
    assert (row.text, row.finish_reason) == ("abc#", None)
    for token in TOKENIZER.encode("c#"):
        row.push(token, -4.0)
    assert (row.text, row.finish_reason, row.token_logprobs) == ("abc#", "stop", [None, -1.0, -2.0, -3.0])
    assert row.text_offsets == [0, 1, 2, 3]
    assert row.mean_logprob == pytest.approx(-11 / 3)


def test_a_prompt_of_tokens_equals_its_text_and_may_end_in_half_a_character(model):
    assert finished(model, [TOKENIZER.encode("zwölf")], 9, [3])[0].text == finished(model, ["zwölf"], 9, [3])[0].text
    smile = TOKENIZER.encode("😀")
    for echo, text in ((False, "😀!"), (True, "a😀!")):
        row = Continuation(TOKENIZER, (), [*TOKENIZER.encode("a"), *smile[:2]])
        if echo:
            row.echo([*TOKENIZER.encode("a"), *smile[:2]], [None] * 3, [None] * 3)
        pieces = [row.push(token, 0.0) for token in [*smile[2:], *TOKENIZER.encode("!")]]
        assert row.text == text and pieces == ["", "😀", "!"]


def test_a_special_token_that_is_spelled_as_text_stays_text(model):
    (row,) = finished(model, ["<|endoftext|>"], 0, [0], echo=True)
    assert row.text == "<|endoftext|>" and len(row.tokens) == 13 and TOKENIZER.end not in row.tokens


def test_tokens_that_the_tokenizer_does_not_have_are_never_written():
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOKENIZER.vocab_size + 47, 24, FAMILIES["gpt2"])).eval()
    with torch.no_grad():
        model.embedding.weight[TOKENIZER.vocab_size :] *= 50  # a padded vocabulary whose padding would win
        unbounded = model(torch.tensor([[5, 6]]))[0, -1].argmax().item()
    assert unbounded >= TOKENIZER.vocab_size
    rows = finished(model, ["ab", "c"], 30, [0, 1], logprobs=5, echo=True)
    assert all(token < TOKENIZER.vocab_size for row in rows for token in row.tokens)
    assert all(token < TOKENIZER.vocab_size for row in rows for top in row.top_logprobs if top for token, _ in top)


def test_best_of_keeps_the_n_with_the_highest_mean_log_probability(model, monkeypatch):
    each = Request(12, Sampling(1.0), stop=("a",), n=7)
    every = [rows for rows in complete(model, TOKENIZER, ["one", "", "three"], each, seed=5)]
    assert [len(rows) for rows in every] == [7, 7, 7]
    for prompt, rows in zip(["one", "", "three"], every, strict=True):
        for seed, row in enumerate(rows, start=5):
            assert row.tokens == finished(model, [prompt], 12, [seed], stop=["a"])[0].tokens
    monkeypatch.setattr(writing, "MAX_ROWS", 4)  # whatever fits into a batch
    best = Request(12, Sampling(1.0), stop=("a",), n=2, best_of=7)
    for rows, all_rows in zip(complete(model, TOKENIZER, ["one", "", "three"], best, seed=5), every, strict=True):
        expected = sorted(all_rows, key=lambda row: -row.mean_logprob)[:2]
        assert [row.tokens for row in rows] == [row.tokens for row in expected]
        assert rows[0].mean_logprob >= rows[1].mean_logprob


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"n": 0}, "n 0"),
        ({"n": 3, "best_of": 2}, "best_of 2"),
        ({"n": 2000}, "n 2000"),
        ({"best_of": 9999}, "best_of 9999"),
    ],
)
def test_an_impossible_request_gets_a_sentence(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Request(**settings)


def test_no_prompts_get_a_sentence(model):
    with pytest.raises(UserError, match="no prompt"):
        next(complete(model, TOKENIZER, [], Request()))


def test_probabilities_of_all_tokens_sum_to_one(model):
    total = 0.0
    for token in range(TOKENIZER.vocab_size):
        logits = model(torch.tensor([TOKENIZER.encode("abc")]))[0, -1]
        total += math.exp(logits.log_softmax(-1)[token].item())
    assert total == pytest.approx(1, abs=1e-4)


@pytest.fixture
def sampled(models, capsys):
    """A function that runs the command on the tiny model, and gives its status, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = sample.main([*arguments, "--model", str(models / "gpt"), "--device", "cpu"])
        return (status, *capsys.readouterr())

    return run


def records(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_several_prompts_are_continued_as_each_alone_by_argument_or_by_file(sampled, models, tmp_path):
    prompts = ["To be", "the earth", "God"]
    status, out, _ = sampled(*prompts, "--json", "--max-tokens", "9", "--n", "2")
    found = records(out)
    assert status == 0 and [record["prompt"] for record in found] == [p for p in prompts for _ in range(2)]
    for place, prompt in enumerate(prompts):
        alone = records(sampled(prompt, "--json", "--max-tokens", "9", "--n", "2")[1])
        for record, expected in zip(found[2 * place : 2 * place + 2], alone, strict=True):
            assert record["token_logprobs"] == pytest.approx(expected["token_logprobs"], abs=1e-4)
            assert record | {"token_logprobs": 0} == expected | {"token_logprobs": 0, "prompt": prompt}
    (tmp_path / "prompts.txt").write_bytes(b"the earth\r\n\n  \nGod\n")
    assert (
        sampled("To be", "--prompts", str(tmp_path / "prompts.txt"), "--json", "--max-tokens", "9", "--n", "2")[1]
        == out
    )
    _, text, _ = sampled(*prompts, "--max-tokens", "9")
    assert text.startswith("== To be ==\n") and "\n\n== the earth ==\n" in text
    two = sampled("To be", "God", "--max-tokens", "9", "--n", "2", "--best-of", "2", "--beside", str(models / "gpt"))[1]
    assert two.count("-- ") == 4 and two.count("-" * 20) == 4


def test_json_has_more_fields_only_where_they_are_asked_for(sampled):
    plain = {"text", "finish_reason", "tokens", "token_logprobs"}
    (record,) = records(sampled("To be", "--json", "--max-tokens", "5")[1])
    assert record.keys() == plain
    (record,) = records(sampled("To be", "--json", "--max-tokens", "5", "--logprobs", "2", "--temperature", "1")[1])
    assert record.keys() == plain | {"token_ids", "text_offset", "top_logprobs"}
    for token, logprob, top in zip(record["tokens"], record["token_logprobs"], record["top_logprobs"], strict=True):
        assert 2 <= len(top) <= 3 and top[token] == logprob
    (record,) = records(sampled("To be", "--json", "--max-tokens", "0", "--echo")[1])
    assert record["text"] == "To be" and "".join(record["tokens"]) == "To be"
    assert record["token_logprobs"][0] is None and all(value < 0 for value in record["token_logprobs"][1:])
    (record,) = records(sampled("To be", "--json", "--max-tokens", "5", "--beams", "2")[1])
    assert record.keys() == plain | {"score"}


def test_an_echo_prints_the_prompt_in_front(sampled):
    _, plain, _ = sampled("To be", "--max-tokens", "9")
    _, echoed, _ = sampled("To be", "--max-tokens", "9", "--echo")
    assert echoed == "To be" + plain


def test_a_model_beside_another_continues_the_same_prompts_in_a_part_of_its_own(sampled, models, tmp_path):
    torch.manual_seed(3)
    network = GPT(GPTConfig(TOKENIZER.vocab_size, 32, FAMILIES["gpt2"]))
    gpt.save(network, TOKENIZER, tmp_path / "style")
    beside = ("--beside", str(tmp_path / "style"), "--max-tokens", "6")
    _, first, _ = sampled("To be", "--max-tokens", "6")
    assert sample.main(["To be", "--model", str(tmp_path / "style"), "--max-tokens", "6", "--device", "cpu"]) == 0
    _, out, _ = sampled("To be", *beside)
    second, out = out.split("== To be ==\n")
    assert out == f"-- {models / 'gpt'} --\n{first}-- {tmp_path / 'style'} --\n{second}"
    found = records(sampled("To be", "God", *beside, "--json")[1])
    assert [(record["prompt"], record["model"]) for record in found] == [
        (prompt, str(model)) for prompt in ("To be", "God") for model in (models / "gpt", tmp_path / "style")
    ]


def test_the_best_of_several_is_among_them(sampled):
    several = records(sampled("To be", "--json", "--max-tokens", "6", "--n", "5", "--temperature", "1.5")[1])
    (best,) = records(sampled("To be", "--json", "--max-tokens", "6", "--best-of", "5", "--temperature", "1.5")[1])
    assert best == max(several, key=lambda record: sum(record["token_logprobs"]) / len(record["token_logprobs"]))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there is no prompt"),
        (["a", "--prompts", "no/such/file"], "no/such/file could not be read"),
        (["a", "--min-p", "2"], "min_p 2"),
        (["a", "--repetition-penalty", "nan"], "repetition_penalty nan"),
        (["a", "--presence-penalty", "3"], "presence_penalty 3"),
        (["a", "--frequency-penalty", "-3"], "frequency_penalty -3"),
        (["a", "--logit-bias", "5"], "TOKEN_ID=VALUE"),
        (["a", "--logit-bias", "a=5"], "TOKEN_ID=VALUE"),
        (["a", "--logit-bias", "5=500"], "logit_bias 5=500"),
        (["a", "--logit-bias", "5=nan"], "logit_bias 5=nan"),
        (["a", "--logit-bias", "90000=5"], "logit_bias 90000=5"),
        (["a", "--n", "3", "--best-of", "2"], "best_of 2"),
        (["a", "--beams", "0"], "beams 0"),
        (["a", "--beams", "2", "--n", "3"], "n 3"),
        (["a", "--beams", "2", "--top-k", "5", "--min-p", "0.1"], "leave out --top-k, --min-p"),
        (["a", "--beams", "2", "--temperature", "1"], "leave out --temperature"),
        (["a", "--length-penalty", "1"], "--length-penalty 1.0 is for --beams"),
        (["a", "--beams", "2", "--length-penalty", "nan"], "length_penalty nan"),
        (["a", "--logprobs", "3"], "give --json too"),
        (["a", "--logprobs", "300", "--json"], "logprobs 300"),
        (["a", "--beside", "no-such-model"], "no-such-model"),
    ],
)
def test_wrong_use_gets_a_sentence_and_status_2(arguments, sentence, sampled):
    status, out, err = sampled(*arguments)
    assert (status, out) == (2, "")
    assert sentence in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\x7fELF\xff\xfe", "not text in UTF-8 (byte 4)"),
        (b"a\0b", "zero bytes"),
        (b"x" * 10_000_001, "10,000,000 bytes"),
    ],
)
def test_a_prompt_that_is_no_text_gets_a_sentence(data, sentence, sampled, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    status, out, err = sampled("-")
    assert (status, out) == (2, "") and sentence in err and "stdin" in err and len(err.splitlines()) == 1
    (tmp_path / "prompts.txt").write_bytes(data)
    status, out, err = sampled("--prompts", str(tmp_path / "prompts.txt"))
    assert (status, out) == (2, "") and sentence in err and "prompts.txt" in err


def test_a_file_without_a_line_gets_a_sentence(sampled, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n \n")
    status, out, err = sampled("--prompts", str(tmp_path / "prompts.txt"))
    assert (status, out) == (2, "") and "no line with text" in err
