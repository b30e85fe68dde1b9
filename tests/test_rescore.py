"""Claims about rescoring n-best lists: what is read, how words are counted, that tuning finds the weights, what comes out."""

import json
import math
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt import model as gpt
from gpt import nbest, rescore
from gpt.nbest import Hypothesis, read_lists, read_references
from gpt.presets import GPTConfig
from gpt.rescoring import (
    ACOUSTIC,
    Weights,
    WordErrors,
    cased,
    choose,
    errors_of,
    fewest_on_line,
    language_scores,
    total,
    tune,
    word_errors,
    words_of,
)
from multimodal.cli import UserError
from multimodal.config import gpt2
from multimodal.tokenizer import Tokenizer

TEXT = "To be, or not to be, that is the question. In the beginning God created the heaven and the earth. "

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "gpt" / "examples"


@pytest.fixture(scope="module")
def directory(models) -> Path:
    return models / "gpt"


@pytest.fixture(scope="module")
def loaded(directory):
    return gpt.load(directory, "cpu")


# --- word errors


def by_trying(reference: tuple, hypothesis: tuple) -> tuple[int, int, int, int]:
    """(errors, substitutions, insertions, deletions) of the best of all alignments."""

    @cache
    def best(i: int, j: int) -> tuple[int, int, int, int]:
        ways = []
        if i and j:
            e, s, n, d = best(i - 1, j - 1)
            wrong = reference[i - 1] != hypothesis[j - 1]
            ways.append((e + wrong, s + wrong, n, d))
        if j:
            e, s, n, d = best(i, j - 1)
            ways.append((e + 1, s, n + 1, d))
        if i:
            e, s, n, d = best(i - 1, j)
            ways.append((e + 1, s, n, d + 1))
        return min(ways) if ways else (0, 0, 0, 0)

    return best(len(reference), len(hypothesis))


def test_word_errors_are_those_of_the_best_of_all_alignments():
    chance = random.Random(0)
    for _ in range(500):
        reference, hypothesis = (tuple(chance.choices("abc", k=chance.randrange(9))) for _ in range(2))
        found = word_errors(reference, hypothesis)
        kinds = (found.errors, found.substitutions, found.insertions, found.deletions)
        assert kinds == by_trying(reference, hypothesis), (reference, hypothesis)
        assert found.words == len(reference)
        back = word_errors(hypothesis, reference)  # what one has too much the other lacks
        assert (back.substitutions, back.insertions, back.deletions) == (kinds[1], kinds[3], kinds[2])


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("the cat sat", "the cat sat", (0, 0, 0)),
        ("the cat sat", "the bat sat", (1, 0, 0)),
        ("the cat sat", "the cat", (0, 0, 1)),
        ("the cat sat", "the the cat sat down", (0, 2, 0)),
        ("the cat sat on the mat", "a cat on the map now", (2, 1, 1)),
        ("", "anything at all", (0, 3, 0)),
        ("anything at all", "", (0, 0, 3)),
        ("", "", (0, 0, 0)),
    ],
)
def test_word_errors_of_known_cases(reference, hypothesis, expected):
    found = word_errors(reference.split(), hypothesis.split())
    assert (found.substitutions, found.insertions, found.deletions) == expected


def test_word_error_rate_is_of_all_words_together():
    """A mean over utterances would count a short one as much as a long one."""
    errors = WordErrors(1, 0, 0, 1) + WordErrors(0, 0, 0, 9)
    assert (errors.errors, errors.words, errors.rate) == (1, 10, 0.1)


def test_folded_words_differ_only_in_what_is_said():
    assert words_of("“Don't!” he said -- twice, O.K.", fold=True) == ["don't", "he", "said", "twice", "o.k"]
    assert words_of("Don't! he", fold=False) == ["Don't!", "he"]
    assert words_of("STRASSE", fold=True) == words_of("Straße.", fold=True)


# --- files

EQUAL = {
    "tabs": "a\t-1.5\tone two\na\t-2\tone too\nb\t3\tthree\n",
    "windows": "\ufeffa\t-1.5\tone two\r\na\t-2\tone too\r\n\r\nb\t3\tthree\r\n",
    "header": "id\tscore\thyp\na\t-1.5\tone two\na\t-2\tone too\nb\t3\tthree\n",
    "mixed up": "a\t-1.5\tone two\nb\t3\tthree\na\t-2\t one  too \n",
    "objects": "\n".join(
        json.dumps({"utterance": u, "score": s, "text": t})
        for u, s, t in (("a", -1.5, "one two"), ("a", -2, "one too"), ("b", 3, "three"))
    ),
    "lists": json.dumps({"id": "a", "nbest": [{"score": -1.5, "text": "one two"}, {"score": -2, "text": "one too"}]})
    + "\n"
    + json.dumps({"id": "b", "nbest": [{"score": 3, "text": "three"}]}),
    "other names": json.dumps({"utt_id": "a", "hyps": [{"am_score": "-1.5", "hyp": "one two"}]})
    + '\n{"key": "a", "acoustic_score": -2, "hypothesis": "one\\ttoo"}\n{"utt": "b", "acoustic": 3, "hyp": "three"}',
}


@pytest.mark.parametrize("form", EQUAL)
def test_every_form_of_a_list_reads_alike(form, tmp_path):
    (tmp_path / "lists").write_text(EQUAL[form], encoding="utf-8")
    lists, problems = read_lists(tmp_path / "lists")
    assert problems == []
    assert lists == {
        "a": [Hypothesis("one two", -1.5), Hypothesis("one too", -2.0)],
        "b": [Hypothesis("three", 3.0)],
    }


def test_costs_are_scores_turned_round(tmp_path):
    (tmp_path / "lists").write_text("a\t12.5\tworse\na\t3\tbetter\na\t-1\t\n")
    lists, _ = read_lists(tmp_path / "lists", costs=True)
    assert lists["a"] == [Hypothesis("worse", -12.5), Hypothesis("better", -3.0), Hypothesis("", 1.0)]


BAD_LINES = {
    b"a\t-1": "2 columns",
    b"a -1 text": "1 columns",
    b"a\t-1\tone\ttwo": "4 columns",
    b"a\tx\ttext": "not a number: 'x'",
    b"a\tnan\ttext": "score is nan",
    b"a\t-inf\ttext": "score is -inf",
    b"a\t1e999\ttext": "score is inf",
    b"\t-1\ttext": "no name",
    b"a\t-1\tcaf\xe9": "UTF-8",
    b"a\t-1\tte\0xt": "zero bytes",
    b'{"id": "a", "score": -1': "JSON",
    b'{"id": "a", "text": "t"}': "no 'score'",
    b'{"score": -1, "text": "t"}': "no 'utterance'",
    b'{"id": "a", "score": -1}': "no 'text'",
    b'{"id": "a", "score": NaN, "text": "t"}': "score is nan",
    b'{"id": "a", "score": -1, "text": 7}': "not a string: 7",
    b'{"id": "a", "score": [1], "text": "t"}': "not a number: [1]",
    b'{"id": {}, "score": -1, "text": "t"}': "no name: {}",
    b'{"id": "a", "nbest": {}}': "not a list",
    b'{"id": "a", "nbest": []}': "is empty",
    b'{"id": "a", "nbest": [7]}': "hypothesis 1: it is not an object: 7",
    b"[" * 100_000: "JSON list",
    b'{"a":' * 100_000: "JSON",
    b"a\t-1\t" + b"x" * 100_001: "100,001 characters",
    b"a\t-1\t" + b"x" * 3_000_000: "longer than 2,000,000 bytes",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_named_by_its_number_and_the_rest_is_read(line, tmp_path, monkeypatch):
    monkeypatch.setattr(nbest, "MAX_LINE_BYTES", 2_000_000)
    path = tmp_path / "lists"
    path.write_bytes(b"a\t-1\tgood\n" + line + b"\nb\t-2\talso good\n")
    lists, problems = read_lists(path)
    assert lists == {"a": [Hypothesis("good", -1.0)], "b": [Hypothesis("also good", -2.0)]}
    assert len(problems) == 1 and f"{path}:2" in problems[0] and BAD_LINES[line] in problems[0]
    assert len(problems[0]) < 300


def test_of_a_list_with_a_bad_hypothesis_the_others_are_used(tmp_path):
    entries = [{"score": -1, "text": "good"}, {"score": None, "text": "bad"}, {"score": -3, "text": "fair"}]
    (tmp_path / "lists").write_text(json.dumps({"id": 7, "nbest": entries}))
    lists, problems = read_lists(tmp_path / "lists")
    assert lists == {"7": [Hypothesis("good", -1.0), Hypothesis("fair", -3.0)]}
    assert len(problems) == 1 and ":1, hypothesis 2: its score is not a number: None" in problems[0]


@pytest.mark.parametrize("how", [read_lists, read_references])
@pytest.mark.parametrize("name", ["empty", "missing", "folder", "blank", "random"])
def test_a_file_without_anything_in_it_gets_a_sentence(how, name, tmp_path):
    path = tmp_path / name
    chance = random.Random(0).randbytes(300_000)
    if name in ("empty", "blank", "random"):
        path.write_bytes({"empty": b"", "blank": b"\n \n", "random": chance}[name])
    if name == "folder":
        path.mkdir()
    with pytest.raises(UserError) as caught:
        how(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 300


def test_sizes_that_a_stranger_controls_are_bounded(tmp_path, monkeypatch):
    (tmp_path / "lists").write_text("a\t1\tx\n" * 5 + "b\t1\tx\n" * 6)
    monkeypatch.setattr(nbest, "MAX_LIST", 5)
    lists, problems = read_lists(tmp_path / "lists")
    assert len(lists["a"]) == len(lists["b"]) == 5 and len(problems) == 1 and ":11" in problems[0]
    monkeypatch.setattr(nbest, "MAX_ROWS", 8)
    with pytest.raises(UserError, match="more than 8 hypotheses"):
        read_lists(tmp_path / "lists")
    (tmp_path / "references").write_text("".join(f"{i} x\n" for i in range(9)))
    with pytest.raises(UserError, match="more than 8 references"):
        read_references(tmp_path / "references")


@pytest.mark.parametrize(
    "text",
    [
        "a\tone two\nb\t\nc 1\tthree\n",
        'a one  two\r\nb\r\n{"utterance": "c 1", "reference": "three"}\r\n',
        '{"id": "a", "text": "one two"}\n{"id": "b", "ref": ""}\nc 1\tthree',
    ],
)
def test_references_are_read_in_every_form(text, tmp_path):
    (tmp_path / "references").write_text(text, encoding="utf-8")
    assert read_references(tmp_path / "references") == ({"a": "one two", "b": "", "c 1": "three"}, [])


def test_of_two_references_of_an_utterance_the_first_is_kept_and_the_other_named(tmp_path):
    (tmp_path / "references").write_text("a one\nb two\na three\nb two\n")
    references, problems = read_references(tmp_path / "references")
    assert references == {"a": "one", "b": "two"}
    assert len(problems) == 1 and ":3: 'a' has another text" in problems[0]


# --- what the language model thinks

SAID = (
    "to be or not to be",
    "to be or not to bee",
    "in the beginning",
    "",
    "the",
    "a<|endoftext|>b",
    "god " * 90,
    "ñ😀",
)


@pytest.mark.parametrize("context", ["", "In the beginning", "he said \n"])
@pytest.mark.parametrize("end", ["nothing", "line", "document"])
def test_hypotheses_scored_together_score_as_each_alone(context, end, loaded, monkeypatch):
    together = language_scores(*loaded, SAID, context, end)
    for text in SAID:
        assert language_scores(*loaded, [text], context, end)[text] == pytest.approx(together[text], abs=1e-3)
    monkeypatch.setattr("gpt.rescoring.TOGETHER", 3)
    assert language_scores(*loaded, SAID, context, end) == pytest.approx(together, abs=1e-3)


def by_hand(model, ids: list[int], first: int) -> float:
    logprobs = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1).double()
    return sum(logprobs[place - 1, ids[place]].item() for place in range(first, len(ids)))


def test_a_hypothesis_scores_what_the_model_gives_its_tokens_and_its_end(loaded):
    model, tokenizer = loaded
    start, text = [tokenizer.end], "to be or not"
    ids = tokenizer.encode(text)
    found = {end: language_scores(model, tokenizer, [text], "", end)[text] for end in ("nothing", "line", "document")}
    assert found["nothing"] == pytest.approx(by_hand(model, start + ids, 1), abs=1e-4)
    assert found["line"] == pytest.approx(by_hand(model, start + tokenizer.encode(text + "\n"), 1), abs=1e-4)
    assert found["document"] == pytest.approx(by_hand(model, start + ids + start, 1), abs=1e-4)
    before = tokenizer.encode("He said,")  # a space comes between a context and what follows
    after = language_scores(model, tokenizer, [text], "He said,")[text]
    assert after == pytest.approx(by_hand(model, before + tokenizer.encode(" " + text), len(before)), abs=1e-4)


def test_a_model_may_read_hypotheses_in_another_case(loaded):
    assert [cased("TO BE Or", case) for case in ("keep", "lower", "sentence")] == ["TO BE Or", "to be or", "To be or"]
    assert cased("", "sentence") == ""
    lower = language_scores(*loaded, ["to be"])["to be"]
    assert language_scores(*loaded, ["TO BE"], case="lower")["TO BE"] == pytest.approx(lower, abs=1e-5)
    assert abs(language_scores(*loaded, ["TO BE"])["TO BE"] - lower) > 0.1


# --- weights


def test_a_score_is_the_weighted_sum_and_the_highest_is_chosen():
    lists = {"u": [Hypothesis("a b", -3.0), Hypothesis("a b c", -5.0), Hypothesis("d", -4.0)]}
    logprobs = {"a b": -10.0, "a b c": -6.0, "d": -9.0}
    assert Weights(0.5, 2.0).score(lists["u"][1], -6.0) == -5 + 0.5 * -6 + 2 * 3
    assert choose(lists, logprobs, ACOUSTIC) == {"u": 0}
    assert choose(lists, logprobs, Weights(1.0, 0.0)) == {"u": 1}
    assert choose(lists, logprobs, Weights(0.1, -3.0)) == {"u": 2}
    assert choose({"u": lists["u"][:1] * 3}, logprobs, Weights()) == {"u": 0}  # of equals the first


def synthetic(seed: int, utterances: int, weights: Weights | None, size: int = 12, scale: float = 1.0):
    """Lists whose hypotheses are right just when `weights` rank them first, or (None) by chance."""
    chance = random.Random(seed)
    lists, logprobs, errors = {}, {}, {}
    for u in range(utterances):
        hypotheses = []
        for k in range(size):
            count = chance.randint(3, 9)
            text = " ".join([f"{u}.{k}", *["word"] * (count - 1)])
            logprobs[text] = chance.gauss(-3.0 * count, 4)
            hypotheses.append(Hypothesis(text, scale * chance.gauss(0, 4)))
        lists[f"u{u}"] = hypotheses
        if weights is None:
            errors[f"u{u}"] = [WordErrors(chance.randint(0, 3), 0, 0, 5) for _ in hypotheses]
        else:
            order = sorted(hypotheses, key=lambda h: -weights.score(h, logprobs[h.text]))
            errors[f"u{u}"] = [WordErrors(min(order.index(h), 4), 0, 0, 5) for h in hypotheses]
    return lists, logprobs, errors


@pytest.mark.parametrize(
    "right",
    [Weights(0.7, 1.5), Weights(0.2, -0.5), Weights(3.0, 8.0), Weights(1.0, 0.0), Weights(5.0, -4.0)],
    ids=["usual", "penalty", "heavy", "bayes", "heavy penalty"],
)
def test_tuning_finds_the_weights_by_which_the_lists_were_made(right):
    for seed in range(5):
        lists, logprobs, errors = synthetic(seed, 150, right)
        found = tune(lists, logprobs, errors)
        assert total(errors, choose(lists, logprobs, found)).errors == 0  # of 600 that are possible
        assert found.lm_weight == pytest.approx(right.lm_weight, rel=0.2)
        assert found.word_insertion == pytest.approx(right.word_insertion, abs=0.6 * right.lm_weight)


def test_tuned_weights_are_as_good_as_the_best_of_a_fine_grid():
    for seed in range(3):
        lists, logprobs, errors = synthetic(seed, 60, Weights(0.8, 1.0))
        by_chance = synthetic(seed, 60, None)[2]
        errors = {u: by_chance[u] if i % 2 else errors[u] for i, u in enumerate(errors)}
        parts = ([h.acoustic, logprobs[h.text], len(h.text.split())] for u in lists for h in lists[u])
        acoustic, lm, words = np.array(list(parts)).T.reshape(3, 60, -1)
        wrong = np.array([[each.errors for each in errors[u]] for u in lists])
        grid = [
            wrong[np.arange(60), (acoustic + a * lm + b * words).argmax(1)].sum()
            for a in np.arange(0, 3, 0.05)
            for b in np.arange(-3, 6, 0.1)
        ]
        assert total(errors, choose(lists, logprobs, tune(lists, logprobs, errors))).errors <= min(grid) * 1.03


def test_on_the_development_list_tuning_never_does_harm():
    for seed in range(20):
        lists, logprobs, errors = synthetic(seed, 8, None, size=5)
        found = total(errors, choose(lists, logprobs, tune(lists, logprobs, errors))).errors
        assert found <= total(errors, choose(lists, logprobs, ACOUSTIC)).errors
        assert found <= min(
            total(errors, choose(lists, logprobs, Weights(a, 0.0))).errors for a in np.arange(0, 5, 0.05)
        )


@pytest.mark.parametrize("scale", [1e-6, 1000.0])
def test_the_unit_of_acoustic_scores_does_not_matter(scale):
    lists, logprobs, errors = synthetic(1, 60, Weights(0.7, 1.0))
    found = tune(lists, logprobs, errors)
    scaled = {u: [Hypothesis(h.text, scale * h.acoustic) for h in hypotheses] for u, hypotheses in lists.items()}
    other = tune(scaled, logprobs, errors)
    assert other.lm_weight == pytest.approx(scale * found.lm_weight, rel=1e-6)
    assert choose(scaled, logprobs, other) == choose(lists, logprobs, found)


def test_what_all_hypotheses_of_an_utterance_have_in_common_does_not_matter():
    lists, logprobs, errors = synthetic(2, 60, Weights(0.7, 1.0))
    moved = {u: [Hypothesis(h.text, h.acoustic - 64.0 * i) for h in lists[u]] for i, u in enumerate(lists)}
    assert tune(moved, logprobs, errors).lm_weight == pytest.approx(tune(lists, logprobs, errors).lm_weight, rel=1e-6)


def test_where_nothing_can_be_gained_the_recogniser_is_left_alone():
    lists = {"u": [Hypothesis("a b", -1.0)], "v": [Hypothesis("c", 0.0), Hypothesis("c", -1.0)]}
    errors = errors_of(lists, {"u": "a x", "v": "c"})
    assert tune(lists, {"a b": -5.0, "c": -2.0}, errors) == ACOUSTIC


def test_the_errors_counted_along_a_line_are_those_of_the_choice_there_and_the_fewest():
    chance = np.random.default_rng(0)
    for low in (-math.inf, 0.0, -1.5) * 10:
        owner = np.repeat(np.arange(6), chance.integers(1, 7, 6))
        # whole numbers, so that scores and crossings coincide
        start, slope = chance.integers(-5, 6, (2, len(owner))).astype(float)
        errors = chance.integers(0, 4, len(owner))

        def count(t: float) -> int:
            each = [np.flatnonzero(owner == u) for u in range(6)]  # noqa: B023
            return sum(int(errors[rows[(start + t * slope)[rows].argmax()]]) for rows in each)  # noqa: B023

        fewest, t = fewest_on_line(owner, start, slope, errors, low)
        assert t >= low and count(t) == fewest
        assert fewest == min(count(x) for x in np.arange(max(low, -12), 12, 1 / 128) + 1 / 1000)


# --- the command


@pytest.fixture
def files(tmp_path):
    """A list, one to tune on, and what was said."""
    (tmp_path / "nbest.tsv").write_text(
        "t1\t-1\tto be or not to bee\nt1\t-2\tto be or not to be\nt2\t-1\tin the begin\nt2\t-9\tin the beginning\n"
        "t3\t-1\talone\n"
    )
    (tmp_path / "dev.tsv").write_text("d1\t-1\tgod the earth\nd1\t-3\tand the earth\nd2\t0\tthat is\nd2\t-1\tthat\n")
    (tmp_path / "refs.tsv").write_text("t1\tto be or not to be\nt2\tin the beginning\nd1 and the earth\nd2 that is\n")
    return tmp_path


@pytest.fixture
def run(directory, files, capsys):
    """The command on the tiny model and nbest.tsv: (exit status, stdout, stderr)."""

    def call(*arguments, lists: str = "nbest.tsv"):
        arguments = [str(files / lists), *map(str, arguments), "--model", str(directory), "--device", "cpu"]
        return rescore.main(arguments), *capsys.readouterr()

    return call


def test_with_no_weight_the_recognisers_best_come_out(run):
    status, out, err = run("--lm-weight", "0")
    assert status == 0
    assert out == "t1\tto be or not to bee\nt2\tin the begin\nt3\talone\n"
    assert "0 of 3 utterances have another text" in err and "error rate" not in err


def test_a_word_that_is_rewarded_enough_is_put_in(run, files):
    (files / "nbest.tsv").write_text("a\t0\tone\na\t-5\tone more\na\t-9\tone and more\n")
    chosen = [run("--lm-weight", "0", "--word-insertion", reward)[1] for reward in ("4", "4.6", "5.1")]
    assert chosen == ["a\tone\n", "a\tone and more\n", "a\tone and more\n"]
    assert run("--lm-weight", "0", "--costs")[1] == "a\tone and more\n"


def test_records_hold_the_parts_of_the_score_and_the_last_one_the_rates(run, loaded, files):
    status, out, _ = run("--json", "--lm-weight", "0.5", "--word-insertion", "0.25", "--references", files / "refs.tsv")
    *records, summary = map(json.loads, out.splitlines())
    assert status == 0
    lists, _ = read_lists(files / "nbest.tsv")
    logprobs = language_scores(*loaded, [h.text for hypotheses in lists.values() for h in hypotheses])
    weights = Weights(0.5, 0.25)
    chosen = choose(lists, logprobs, weights)
    assert [record["utterance"] for record in records] == list(lists)
    for record in records:
        best = lists[record["utterance"]][chosen[record["utterance"]]]
        assert (record["text"], record["acoustic"], record["words"]) == (
            best.text,
            best.acoustic,
            len(best.text.split()),
        )
        assert record["lm_logprob"] == pytest.approx(logprobs[best.text], abs=1e-4)
        assert record["score"] == pytest.approx(weights.score(best, logprobs[best.text]), abs=1e-4)
        assert record["rank"] == chosen[record["utterance"]] + 1  # the lists are in the recogniser's order
    assert [("errors" in record) for record in records] == [True, True, False]
    assert summary["words"] == 9 and summary["utterances"] == 3
    assert summary["before"] == {
        "word_error_rate": round(2 / 9, 6),
        "substitutions": 2,
        "insertions": 0,
        "deletions": 0,
    }
    assert summary["after"]["word_error_rate"] == round(sum(r.get("errors", 0) for r in records) / 9, 6)
    assert summary["oracle"]["word_error_rate"] == 0


def test_the_weights_are_tuned_on_the_development_list_alone(run, files, loaded):
    status, out, err = run("--dev", files / "dev.tsv", "--references", files / "refs.tsv", "--json")
    summary = json.loads(out.splitlines()[-1])
    assert status == 0
    assert summary["dev"]["before"]["word_error_rate"] == 0.2  # one of five words
    assert summary["dev"]["after"]["word_error_rate"] <= 0.2
    dev, _ = read_lists(files / "dev.tsv")
    logprobs = language_scores(*loaded, [h.text for hypotheses in dev.values() for h in hypotheses])
    wanted = tune(dev, logprobs, errors_of(dev, read_references(files / "refs.tsv")[0]))
    assert (summary["lm_weight"], summary["word_insertion"]) == pytest.approx(
        (wanted.lm_weight, wanted.word_insertion), rel=1e-3
    )
    assert "tuned on 2 utterances" in err and "on so few" in err
    # the same weights, given by hand, choose the same
    weights = ["--lm-weight", summary["lm_weight"], f"--word-insertion={summary['word_insertion']}"]
    assert run(*weights, "--json")[1].splitlines()[:3] == [
        json.dumps({k: v for k, v in json.loads(line).items() if k != "errors"}) for line in out.splitlines()[:3]
    ]


def test_references_of_the_development_list_may_be_a_file_of_their_own(run, files):
    (files / "test-refs.tsv").write_text("t1\tto be or not to be\n")
    arguments = ["--dev", files / "dev.tsv", "--dev-references", files / "refs.tsv"]
    status, out, err = run(*arguments, "--references", files / "test-refs.tsv")
    assert status == 0 and "2 of 3 utterances have no reference" in err and "6 words" in err
    assert run(*arguments)[1] == out


def test_without_references_no_rate_is_told_and_bayes_rule_weighs(run):
    status, out, err = run("--json")
    summary = json.loads(out.splitlines()[-1])
    assert status == 0
    assert summary["lm_weight"] == 1 and summary["word_insertion"] == 0
    assert "before" not in summary and "--dev tunes them" in err


def test_bad_lines_are_named_and_the_rest_is_chosen_from(run, files):
    with open(files / "nbest.tsv", "a") as file:
        file.write("t4\tnan\ttext\n" + "t5\n" * 30)
    status, out, err = run("--lm-weight", "0")
    assert status == 1
    assert out.count("\n") == 3
    assert "nbest.tsv:6: its score is nan" in err and "11 more of" in err
    assert err.count("not used:") == rescore.SHOWN + 1


def test_utterances_in_both_lists_and_references_of_none_are_told(run, files):
    with open(files / "dev.tsv", "a") as file:
        file.write("t1\t-1\tto be or not to be\n")
    with open(files / "refs.tsv", "a") as file:
        file.write("nobody said this\n")
    _, _, err = run("--dev", files / "dev.tsv", "--references", files / "refs.tsv")
    assert "1 utterances are in both lists" in err
    assert "1 references are of no utterance" in err and "nobody" in err


def test_capitals_that_the_model_may_not_know_are_told(run, files):
    (files / "nbest.tsv").write_text("t1\t-1\tTO BE\nt1\t-2\tTO BEE\n")
    assert "--case sentence" in run()[2]
    assert "capitals" not in run("--case", "lower")[2]
    (files / "nbest.tsv").write_text("t1\t-1\t祇園精舎\nt1\t-2\t1 2 3\n")
    assert "capitals" not in run()[2]


def test_folding_counts_what_was_said_and_not_how_it_is_written(run, files):
    (files / "refs.tsv").write_text("t1\tTo be, or not to bee.\nt2\tIn the begin...\nt3\tAlone!\n")
    arguments = ["--lm-weight", "0", "--references", files / "refs.tsv", "--json"]
    _, out, err = run(*arguments)
    assert json.loads(out.splitlines()[-1])["after"]["word_error_rate"] == 0.6
    assert "6 of the errors of the recogniser's best are capitals or punctuation" in err
    _, out, err = run(*arguments, "--fold")
    assert json.loads(out.splitlines()[-1])["after"]["word_error_rate"] == 0
    assert "capitals" not in err


def test_a_list_that_shares_no_utterance_with_the_references_is_still_chosen_from(run, files):
    (files / "refs.tsv").write_text("x something\n")
    status, out, err = run("--references", files / "refs.tsv", "--json")
    assert status == 0 and "before" not in json.loads(out.splitlines()[-1])
    assert "3 of 3 utterances have no reference" in err and "1 references are of no utterance" in err


def test_the_order_of_the_texts_does_not_touch_a_bit(loaded):
    assert language_scores(*loaded, SAID) == language_scores(*loaded, reversed(SAID))


def test_the_same_command_says_the_same_twice(run, files):
    arguments = ["--dev", files / "dev.tsv", "--references", files / "refs.tsv", "--json"]
    assert run(*arguments) == run(*arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--lm-weight", "-1"], "--lm-weight -1"),
        (["--lm-weight", "nan"], "--lm-weight nan"),
        (["--word-insertion", "inf"], "--word-insertion inf"),
        (["--dev", "dev.tsv"], "--dev needs"),
        (["--dev", "dev.tsv", "--references", "refs.tsv", "--lm-weight", "1"], "--dev tunes"),
        (["--dev-references", "refs.tsv"], "--dev, which is missing"),
        (["--dev", "dev.tsv", "--references", "others.tsv"], "no utterance of --dev"),
        (["--references", "missing.tsv"], "missing.tsv could not be read"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_wrong_use_gets_a_sentence_and_status_2(arguments, sentence, directory, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    (files / "others.tsv").write_text("x1 something else\n")
    given = [] if "--model" in arguments else ["--model", str(directory)]
    assert rescore.main(["nbest.tsv", *arguments, *given]) == 2
    out, err = capsys.readouterr()
    assert out == "" and sentence in err and len(err.strip().splitlines()) == 1


@pytest.mark.skipif(not (ROOT / "gpt" / "pretrained" / "bundled").is_dir(), reason="no model is bundled")
def test_the_bundled_model_makes_fewer_errors_on_the_examples_than_their_recogniser(capsys):
    names = {"dev": "--dev", "references": "--references"}
    arguments = [part for name, flag in names.items() for part in (flag, str(EXAMPLES / f"{name}.tsv"))]
    assert (
        rescore.main([str(EXAMPLES / "nbest.tsv"), *arguments, "--case", "sentence", "--device", "cpu", "--json"]) == 0
    )
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["oracle"]["word_error_rate"] < summary["after"]["word_error_rate"]
    assert summary["after"]["word_error_rate"] < 0.8 * summary["before"]["word_error_rate"]


def test_the_examples_are_whole():
    references, problems = read_references(EXAMPLES / "references.tsv")
    for name, count in (("nbest", 40), ("dev", 100)):
        lists, more = read_lists(EXAMPLES / f"{name}.tsv")
        problems += more
        assert len(lists) == count and lists.keys() <= references.keys()
        assert {len(hypotheses) for hypotheses in lists.values()} == {6}
    assert problems == []


def test_a_tokenizer_of_characters_rescores_too(files, tmp_path, capsys):
    tokenizer = Tokenizer.characters(["to be or not in the beginning"])
    gpt.save(gpt.GPT(GPTConfig(tokenizer.vocab_size, 16, gpt2(32, 1, 2))), tokenizer, tmp_path / "model")
    assert rescore.main([str(files / "nbest.tsv"), "--model", str(tmp_path / "model"), "--device", "cpu"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
