"""The page without a browser: what it answers, what it shows, and what it says where it cannot."""

import base64
import io
import json
import math
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from apps import answers, demo, markup
from gpt.prompting import Item, Prompt
from gpt.score import Totals
from gpt.writing import write
from multimodal.cli import UserError
from multimodal.sampling import Sampling

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Image.new("RGB", (40, 30), (200, 30, 30))


@pytest.fixture(scope="module")
def parts(models):
    settings = demo.Demo(gpt=str(models / "gpt"), dalle=str(models / "dalle"), clip=str(models / "clip"))
    return demo.load(settings)


def row(text: str, logprob: float = -1.0) -> answers.Row:
    """A continuation of one token, beside which another was likely."""
    others = (answers.Likely(text, logprob, True, text), answers.Likely(f"{text}2", -3.0, False, f"{text}2"))
    return answers.Row((answers.Token(text, text, logprob, others),), logprob)


class Seen(HTMLParser):
    """What a browser makes of HTML: `tags`, `text`, and the attributes of every token."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text, self.tokens = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if "data-token" in dict(attrs):
            self.tokens.append(dict(attrs))

    def handle_data(self, data):
        self.text += data


def call(address: str, name: str, *data) -> tuple[str, list]:
    """What an HTTP client gets from the page's API: the last event and its data."""
    body = json.dumps({"data": list(data)}).encode()
    request = urllib.request.Request(f"{address}/gradio_api/call/{name}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        event = json.load(reply)["event_id"]
    with urllib.request.urlopen(f"{address}/gradio_api/call/{name}/{event}", timeout=60) as reply:
        lines = reply.read().decode().strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


# what it answers


def test_the_same_seed_writes_the_same_and_another_seed_something_else(parts):
    def text(seed):
        *_, last = answers.written(parts["gpt"].model, "To be", 20, Sampling(), seed)
        return last

    assert text(3) == text(3) != text(4)


def test_a_model_whose_files_are_broken_leaves_a_sentence_and_the_others_work(models, tmp_path, capsys):
    shutil.copytree(models / "gpt", tmp_path / "gpt")
    settings = demo.Demo(gpt=str(tmp_path / "gpt"), dalle=str(models / "dalle"), clip=str(models / "clip"))
    (tmp_path / "gpt" / "tokenizer.json").write_text('{"decoder": {"type": "ByteLevel"}}')
    parts = demo.load(settings)
    assert parts["gpt"].model is None and "tokenizer.json" in parts["gpt"].problem
    assert parts["dalle"].model is not None and parts["clip"].model is not None
    import gpt.model

    def failing(directory, device):
        raise RuntimeError("out of\nmemory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpt.model, "load", failing)
        assert demo.load(settings)["gpt"].problem.endswith("could not be loaded: out of memory")


def test_an_image_of_any_length_is_refused_before_it_is_decoded():
    with pytest.raises(UserError, match="letters of base64"):
        answers.file_of("A" * (answers.images.MAX_BYTES * 3 // 2 + 1))


def test_a_prompt_longer_than_the_drawer_reads_is_told(parts):
    artist = parts["dalle"].model
    assert answers.unseen_words(artist, "a cat") == ""
    assert f"only the first {artist.model.config.text_length - 1} tokens" in answers.unseen_words(artist, "a cat " * 50)


def test_text_comes_in_pieces_each_longer_than_the_one_before(parts):
    turns = list(answers.written(parts["gpt"].model, "To be", 20, Sampling(), 0))
    assert len(turns) > 5
    assert all(later.startswith(earlier) and later > earlier for earlier, later in zip(turns, turns[1:], strict=False))


def last_rows(parts, *asked) -> list[answers.Row]:
    *_, rows = answers.candidates(parts["gpt"].model, *asked)
    return [answers.row_of(parts["gpt"].model[1], found) for found in rows]


def test_a_candidate_is_what_its_seed_writes_alone(parts):
    several = last_rows(parts, "To be", 3, 20, Sampling(), 7)
    for i, found in enumerate(several):
        *_, alone = answers.written(parts["gpt"].model, "To be", 20, Sampling(), 7 + i)
        assert found.text == alone
    assert len({found.text for found in several}) == 3


def test_every_token_tells_its_probability_and_the_likeliest_beside_it(parts):
    (found,) = last_rows(parts, "To be", 1, 12, Sampling(), 3)
    judged = answers.scored(parts["gpt"].model, "To be, or not to be")
    for token in (*found.tokens, *judged.tokens):
        (chosen,) = [each for each in token.likeliest if each.chosen]
        assert chosen.shown == token.shown and chosen.logprob == token.logprob
        others = [each.logprob for each in token.likeliest[: answers.ALTERNATIVES]]
        assert others == sorted(others, reverse=True) and len(others) == answers.ALTERNATIVES


def test_writing_goes_on_from_a_candidate_or_from_what_else_was_likely(parts):
    rows = last_rows(parts, "To be", 2, 12, Sampling(), 3)
    assert answers.taken("To be", rows, 1) == "To be" + rows[1].text
    before = "To be" + "".join(token.text for token in rows[0].tokens[:5])
    whole = [i for i, each in enumerate(rows[0].tokens[5].likeliest) if each.text is not None]
    assert whole
    for i in whole:
        assert answers.taken("To be", rows, 0, 5, i) == before + rows[0].tokens[5].likeliest[i].text
    broken = answers.Token("", "bytes:\\xf0", -1.0, (answers.Likely("bytes:\\xf0", -1.0, True, None),))
    for asked, words in (((2,), "the candidate is 2"), (("missing",), "the candidate is missing"), ((0, 12, 0), "the position"),
                         ((0, 5, 6), "the alternative"), ((0, True, 0), "the position is True")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            answers.taken("To be", rows, *asked)
    with pytest.raises(UserError, match="press Write again"):
        answers.taken("To be", [], 0)
    with pytest.raises(UserError, match="cannot be written on from"):
        answers.taken("To be", [answers.Row((broken,), -1.0)], 0, 0, 0)


def test_a_score_is_that_of_the_command(parts, models, capsys):
    from gpt import score

    text = "To be, or not to be: that is the question. 😀\n" * 8  # longer than the context
    assert score.main(["--text", text, "--json", "--model", str(models / "gpt")]) == 0
    told = json.loads(capsys.readouterr().out)
    judged = answers.scored(parts["gpt"].model, text)
    assert [token.shown for token in judged.tokens] == told["tokens"]
    assert [token.logprob for token in judged.tokens] == pytest.approx(told["token_logprobs"], abs=1e-4)
    assert judged.totals.perplexity == pytest.approx(told["perplexity"], rel=1e-4)
    assert judged.totals.bits_per_byte == pytest.approx(told["bits_per_byte"], rel=1e-4)


def fewshot(
    query="d", examples=(("a", "x"), ("b", "y")), description="Say:", choices=(), template="{input} => {output}"
):
    return answers.task_of(query, [list(pair) for pair in examples], description, list(choices), template, "\n")


def test_a_few_shot_prompt_is_the_description_the_table_in_its_order_and_the_query(parts):
    made = answers.told(parts["gpt"].model, fewshot())
    assert made.prompt.text == "Say:\na => x\nb => y\nd =>"
    assert (made.prompt.shots, made.left_out, made.context) == (2, 0, 64)
    assert made.tokens == len(parts["gpt"].model[1].encode(made.prompt.text))
    empty_rows = (("", ""), ("a", "x"), (None, None), ("b", "y"))
    assert answers.told(parts["gpt"].model, fewshot(examples=empty_rows)).prompt.text == made.prompt.text


@pytest.mark.parametrize("choices", [(), ("yes", "no, never")])
def test_examples_that_do_not_fit_are_left_out_from_the_top_and_the_answer_has_room(parts, choices):
    model, tokenizer = parts["gpt"].model
    examples = [(f"{i}", "x") for i in range(40)]
    made = answers.told(parts["gpt"].model, fewshot(examples=examples, choices=choices))
    assert made.left_out > 0 and made.prompt.shots == 40 - made.left_out
    assert made.prompt.text.splitlines()[:2] == ["Say:", f"{made.left_out} => x"]
    room = max((len(tokenizer.encode(f" {choice}")) for choice in choices), default=answers.answer_room(model))
    assert made.tokens + room <= 64 < made.tokens + room + len(tokenizer.encode(f"{made.left_out - 1} => x\n"))
    with pytest.raises(UserError, match="the model reads 64: shorten it"):
        answers.told(parts["gpt"].model, fewshot("word " * 50))


def test_choices_share_the_probability_that_the_model_gives_them(parts):
    from gpt.scoring import continuations, encode_pair

    model, tokenizer = parts["gpt"].model
    task = fewshot(choices=["x", "yes", "no"])
    made = answers.told(parts["gpt"].model, task)
    ranked = answers.chosen(parts["gpt"].model, task, made.prompt, "none")
    pairs = [encode_pair(tokenizer, made.prompt.text, f" {choice}") for choice, _ in ranked]
    probabilities = [math.exp(found.logprob) for found in continuations(model, tokenizer.end, pairs)]
    shares = [share for _, share in ranked]
    assert shares == pytest.approx([each / sum(probabilities) for each in probabilities], rel=1e-3)
    assert shares == sorted(shares, reverse=True)


def test_a_written_answer_is_the_likeliest_text_up_to_the_end_of_the_line(parts):
    task = fewshot()
    made = answers.told(parts["gpt"].model, task)
    *_, found = answers.answered(parts["gpt"].model, task, made.prompt)
    expected = "".join(write(*parts["gpt"].model, made.prompt.text, 16, Sampling(0.0), 0, ["\n"]))
    assert found.text == expected and "\n" not in found.text


def test_half_a_surrogate_pair_of_a_visitor_does_not_break_a_reply(parts):
    (found,) = answers.task_of("\ud83d", [], "", [], "{input} => {output}", "\n").queries
    assert found.input == "?"
    assert list(answers.written(parts["gpt"].model, "\ud83d", 3, Sampling(), 0))


def test_drawings_fill_in_row_by_row_and_keep_their_seeds(parts):
    turns = list(answers.drawn(parts["dalle"].model, "a cat", 3, 2, Sampling(), 7))
    assert [done for done, _ in turns] == [0.25, 0.5, 0.75, 1.0]
    assert all([each.seed for each in drawings] == [7, 8, 9] for _, drawings in turns)
    *_, (_, alone) = answers.drawn(parts["dalle"].model, "a cat", 1, 2.0, Sampling(), 8)
    assert (
        alone[0].picture.tobytes() == turns[-1][1][1].picture.tobytes()
    )  # the second drawing, whatever was drawn beside it


@pytest.mark.parametrize("given", [
    answers.Given(PICTURE, "rows", 1), answers.Given(PICTURE, "mask", painted=Image.new("RGB", PICTURE.size, "black")),
    answers.Given(PICTURE, "half"),
])  # fmt: skip
def test_drawings_begin_with_a_part_of_a_picture_and_need_no_words_then(parts, given):
    turns = list(answers.drawn(parts["dalle"].model, "", 2, 2, Sampling(), 7, given))
    shares = [done for done, _ in turns]
    assert shares == sorted(shares) and shares[-1] == 1 and [each.seed for each in turns[-1][1]] == [7, 8]


def test_a_score_orders_the_finished_drawings_and_is_shown(parts):
    def score(pictures, text):
        assert text == "a cat" and pictures.shape[0] == 3
        return torch.tensor([0.1, 0.3, 0.2])

    *before, (_, best) = answers.drawn(parts["dalle"].model, "a cat", 3, 2, Sampling(), 7, None, score)
    assert [(each.seed, each.score) for each in best] == [(8, 0.3), (9, 0.2), (7, 0.1)]
    assert all(each.score is None for _, drawings in before for each in drawings)


def test_a_ranking_names_every_label_once_the_likeliest_first(parts):
    ranked = answers.ranked(parts["clip"].model, PICTURE, ["cat", "dog", "pizza"], ["a {}"])
    assert sorted(label for label, _ in ranked) == ["cat", "dog", "pizza"]
    assert sum(share for _, share in ranked) == pytest.approx(1)
    assert [share for _, share in ranked] == sorted((share for _, share in ranked), reverse=True)


def test_by_sigmoid_each_label_is_judged_by_itself(parts):
    few, many = (
        dict(answers.ranked(parts["clip"].model, PICTURE, labels, ["a {}"], "sigmoid"))
        for labels in (["cat", "dog"], ["cat", "dog", "pizza"])
    )
    assert few["cat"] == pytest.approx(many["cat"]) and few["dog"] == pytest.approx(many["dog"])


def test_what_a_label_depends_on_is_shown_on_the_picture(parts):
    spotted = PICTURE.copy()
    spotted.paste((255, 255, 255), (12, 8, 24, 20))
    shown = answers.depends_on(parts["clip"].model, spotted, ["cat", "dog"], ["a {}"], "dog")
    assert shown.size == (256, 256) and len(shown.getcolors(2**16)) > 10


@pytest.fixture
def shelf(models, tmp_path):
    for name, colour in (("red", (220, 20, 20)), ("green", (20, 200, 20)), ("blue", (20, 20, 220))):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    settings = demo.Demo(gpt="none", dalle="none", clip=str(models / "clip"), search=tmp_path)
    return demo.load(settings)["search"].model


def test_a_search_finds_the_picture_that_is_asked_with_first(shelf):
    (score, first), *rest = answers.found(shelf, "", "", Image.open(shelf.folder / "green.png").convert("RGB"), 3)
    assert first.name == "green.png" and score == pytest.approx(1, abs=1e-4)
    assert len(rest) == 2 and all(other <= score for other, _ in rest)


def test_a_search_adds_words_and_takes_others_away(shelf):
    together = answers.found(shelf, "red", "blue", None, 3)
    difference = (shelf.encoder.embed_texts(["red"]) - shelf.encoder.embed_texts(["blue"]))[0]
    difference = difference / difference.norm()
    for score, file in together:
        (vector,) = shelf.encoder.embed_images(shelf.encoder.prepare(Image.open(file).convert("RGB"))[None])
        assert score == pytest.approx(float(vector @ difference), abs=1e-4)


@pytest.mark.parametrize(("text", "minus", "count", "sentence"), [
    ("", "", 3, "nothing to look for"), ("", "red", 3, "nothing to look for"), ("red", "red", 3, "cancel each other"),
    ("red", "", 0, "the number of pictures"), (7, "", 3, "must be a text"),
])  # fmt: skip
def test_a_search_for_nothing_gets_a_sentence(shelf, text, minus, count, sentence):
    with pytest.raises(UserError, match=sentence):
        answers.found(shelf, text, minus, None, count)


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda path: path, "holds no pictures"), (lambda path: path / "nowhere", "does not exist"),
    (lambda path: None, "--search FOLDER"),
])  # fmt: skip
def test_a_page_without_a_folder_to_search_says_why(models, tmp_path, make, sentence):
    settings = demo.Demo(gpt="none", dalle="none", clip=str(models / "clip"), search=make(tmp_path))
    assert sentence in demo.load(settings)["search"].problem


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda p: answers.ranked(p["clip"].model, PICTURE, ["cat", "dog"], [], "best"), "softmax and sigmoid"),
        (lambda p: answers.written(p["gpt"].model, "x" * 20_001, 5, Sampling(), 0), "at most 20,000"),
        (lambda p: answers.written(p["gpt"].model, 5, 5, Sampling(), 0), "must be a text"),
        (lambda p: answers.written(p["gpt"].model, "x", "many", Sampling(), 0), "the length is many"),
        (lambda p: answers.written(p["gpt"].model, "x", float("nan"), Sampling(), 0), "allowed is 1 to 1,000"),
        (lambda p: answers.written(p["gpt"].model, "x", 10**9, Sampling(), 0), "allowed is 1 to 1,000"),
        (lambda p: answers.candidates(p["gpt"].model, "x", 5, 5, Sampling(), 0), "allowed is 1 to 4"),
        (lambda p: answers.candidates(p["gpt"].model, "x", 2, 1_001, Sampling(), 0), "allowed is 1 to 1,000"),
        (lambda p: answers.scored(p["gpt"].model, ""), "the text is empty"),
        (lambda p: answers.scored(p["gpt"].model, None), "must be a text"),
        (lambda p: answers.scored(p["gpt"].model, "é" * 2_000), "at most 3,000 are scored"),
        (lambda p: fewshot(query=" "), "the query is empty"),
        (lambda p: fewshot(examples=[("a", "x"), ("b", "")]), "example 2 has no output"),
        (lambda p: fewshot(examples=[(" ", "x")]), "example 1 has no input"),
        (lambda p: fewshot(examples=[("a", "b", "c")]), "example 1 is no pair"),
        (lambda p: fewshot(examples=[("a", 5)]), "example 1 must be a text"),
        (lambda p: fewshot(examples=[("a", "b")] * 101), "at most 100 pairs"),
        (lambda p: answers.task_of("q", "ab", "", [], "{input} {output}", "\n"), "must be a list"),
        (lambda p: fewshot(examples=[("a", "b" * 15_000), ("c", "d" * 15_000)]), "more than 20,000 characters"),
        (
            lambda p: fewshot(template="{input}" + "=" * 300 + "{output}", examples=[("a", "b")] * 99),
            "more than 20,000",
        ),
        (lambda p: fewshot(template="{input}:"), "must hold {input} once"),
        (lambda p: fewshot(choices=["one"]), "two or more choices"),
        (lambda p: fewshot(choices=["one", " "]), "two or more choices"),
        (lambda p: fewshot(choices=[str(i) for i in range(51)]), "at most 50"),
        (lambda p: answers.chosen(p["gpt"].model, fewshot(), Prompt(Item("a", "b"), "a =>", 0), "luck"), "not by luck"),
        (lambda p: answers.drawn(p["dalle"].model, "a cat", 10**6, 3, Sampling(), 0), "allowed is 1 to 9"),
        (lambda p: answers.drawn(p["dalle"].model, " ", 1, 3, Sampling(), 0), "empty"),
        (
            lambda p: answers.drawn(p["dalle"].model, "a", 1, 3, Sampling(), 0, answers.Given(PICTURE, "rows", 4)),
            "allowed is 1 to 3",
        ),
        (
            lambda p: answers.drawn(
                p["dalle"].model,
                "a",
                1,
                3,
                Sampling(),
                0,
                answers.Given(PICTURE, "mask", None, Image.new("RGB", (9, 9))),
            ),
            "mask is 9x9, the picture 40x30",
        ),
        (lambda p: answers.described(p["dalle"].model, PICTURE), "draws only"),
        (lambda p: answers.ranked(p["clip"].model, PICTURE, ["cat"], []), "2 to 1,000"),
        (lambda p: answers.ranked(p["clip"].model, PICTURE, "cat", []), "lists of texts"),
        (lambda p: answers.ranked(p["clip"].model, PICTURE, ["cat", "dog"], ["a photo"]), "{}"),
    ],
)
def test_what_is_out_of_bounds_gets_a_sentence(parts, ask, words):
    with pytest.raises(UserError, match=words.replace("{", r"\{")):
        list(ask(parts))


# what it shows


def test_words_of_visitors_and_models_are_never_markup():
    rude = '<img src=x onerror="alert(1)">&"'
    for shown in (
        markup.papers(rude, [row(rude)], 0, writing=True, coloured=False),
        markup.card_of(PICTURE, rude, [(rude, 0.5)], rude),
        markup.unreadable(rude, rude),
        markup.found_card(PICTURE, rude, 0.5),
        markup.map_of(PICTURE, rude),
        markup.papers(rude, [row(rude), row(rude)], 0, writing=False, coloured=True),
        markup.answer(row(rude), writing=False),
        markup.scores([answers.Judged(row(rude).tokens, Totals(1, 1, -1.0), 0)] * 2),
        markup.prompt(answers.Told(Prompt(Item("a", "b"), rude, 1), 5, 64, 0)),
        markup.sheet(rude, [answers.Drawing(0, PICTURE)], done=True),
        markup.ranking([(rude, 0.7), ("b", 0.3)], f"{rude} {{}}", rude),
        markup.hint(rude),
        markup.note(rude),
    ):
        assert "<img src=x" not in shown and 'onerror="' not in shown
        assert "&lt;img src=x" in shown or "img-src-x" in shown


def test_a_token_is_shown_as_it_is_whatever_it_holds():
    odd = "</span><script>alert(1)</script> \"it's\" & \n 'so'"
    seen = Seen(markup.tokens(row(odd).tokens, 0))
    assert seen.text == odd and "script" not in seen.tags
    shown, logprob, likely = json.loads(seen.tokens[0]["data-token"])
    assert shown == markup.visible(odd) and logprob == -1.0
    assert likely == [[markup.visible(odd), -1.0, 1, 1], [markup.visible(odd + "2"), -3.0, 0, 1]]


def test_a_character_of_several_tokens_is_shown_once_and_its_parts_as_bytes(parts):
    judged = answers.scored(parts["gpt"].model, "a😀b")
    assert [token.text for token in judged.tokens] == ["a", "", "", "", "😀", "b"]
    seen = Seen(markup.tokens(judged.tokens))
    assert seen.text == "a😀b"
    assert [token["class"].endswith(" part") for token in seen.tokens] == [False, True, True, True, False, False]
    assert json.loads(seen.tokens[1]["data-token"])[0] == "bytes:\\xf0"
    for token in judged.tokens:  # nobody goes on from half a character
        assert all((each.text is None) == each.shown.startswith(("bytes:", "<|")) for each in token.likeliest)


def test_the_colour_of_a_token_is_that_of_its_probability_in_the_legend():
    shades = {0.6: "p0", 0.5: "p0", 0.2: "p1", 0.02: "p2", 0.002: "p3", 0.0001: "p4", 1e-300: "p4"}
    for probability, shade in shades.items():
        seen = Seen(markup.tokens(row("x", math.log(probability)).tokens))
        assert seen.tokens[0]["class"] == f"token {shade}"
    names = Seen(markup.legend())
    assert names.text == "Probability of a token:≥ 50%≥ 10%≥ 1%≥ 0.1%less"


def test_the_end_of_a_text_is_shown_and_what_may_be_a_stop_is_not():
    end = answers.Token("", "<|endoftext|>", -0.1, ())
    held = answers.Token("", "Q", -0.1, ())
    assert Seen(markup.tokens([held, *row("x").tokens, end])).tokens[1]["class"] == "token p0 end"
    assert len(Seen(markup.tokens([held, *row("x").tokens, end])).tokens) == 2


def test_the_likelier_of_two_texts_is_named_with_the_bits_between_them():
    def judged(bits):
        return answers.Judged(row("x").tokens, Totals(1, 1, -bits * math.log(2)), 0)

    assert "The first is the likelier, by 3.0 bits (8 times" in Seen(markup.scores([judged(2), judged(5)])).text
    assert "The second is the likelier, by 3.0 bits" in Seen(markup.scores([judged(5), judged(2)])).text
    assert "by 100.0 bits (2100 times" in Seen(markup.scores([judged(0), judged(100)])).text
    assert "Both are as likely" in Seen(markup.scores([judged(5), judged(5)])).text
    assert "likelier" not in markup.scores([judged(5)])


def test_of_candidates_the_one_with_the_lowest_perplexity_is_marked():
    shown = markup.papers("To be", [row("a", -2.0), row("b", -1.0), row("c", -3.0)], 5, writing=False, coloured=False)
    assert "perplexity 2.7 · <b>lowest</b>" in shown and shown.count("lowest") == 1
    assert shown.count("data-take") == 3 and "Candidate 3, seed 7" in shown
    writing = markup.papers("To be", [row("a"), row("b")], 5, writing=True, coloured=True)
    assert "lowest" not in writing and "data-take" not in writing


def test_a_page_is_sent_no_more_than_it_can_take(monkeypatch):
    from apps import text_tabs

    now = [0.0]
    monkeypatch.setattr(text_tabs.time, "monotonic", lambda: now[0])
    pace, sent = text_tabs.Pace(), 0
    for _ in range(1000):
        now[0] += 0.01
        if pace.due():
            sent += len(pace.sent("x" * 500_000))
    assert 0.9 * text_tabs.RATE < sent / 10 <= 1.1 * text_tabs.RATE


def test_the_right_label_is_marked_and_its_rank_told_even_below_the_bars():
    ranked = [(f"label {i}", 0.3 - i / 100) for i in range(10)]
    shown = markup.ranking(ranked, "a {}", "label 8")
    assert "ranked 9 out of 10 labels" in shown
    assert shown.count("✓") == 1 and shown.count("✗") == markup.SHOWN
    assert "✓" not in markup.ranking(ranked, "a {}", None)


def test_only_a_finished_drawing_can_be_downloaded():
    assert "download" not in markup.sheet("a cat", [answers.Drawing(5, PICTURE)], done=False)
    done = markup.sheet("a cat?", [answers.Drawing(5, PICTURE, 0.25)], done=True)
    assert 'download="a-cat-5.png"' in done and "0.250" in done
    raw = base64.b64decode(done.partition("base64,")[2].partition('"')[0])
    assert Image.open(io.BytesIO(raw)).tobytes() == PICTURE.tobytes()


def test_class_names_are_lines_or_parts_between_commas():
    from apps.wiring import names_in

    assert names_in("cat, dog ,,cat") == ["cat", "dog"]
    assert names_in("a cat, sleeping\na dog\n\n") == ["a cat, sleeping", "a dog"]
    assert names_in(" \n ") == []


def test_the_example_pictures_exist_and_are_attributed():
    from apps.classify_tab import HERE, PICTURES
    from apps.wiring import names_in

    attribution = (HERE / "examples" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    files = {path.name for path in (HERE / "examples").glob("*.png")}
    assert files == {file for file, *_ in PICTURES}
    assert all(f"`{file}`" in attribution for file in files)
    assert all(right in names_in(names) and "{}" in template for _, names, right, template in PICTURES)
    assert sum(path.stat().st_size for path in (HERE / "examples").iterdir()) < 100_000


# what it says where it cannot


def test_a_missing_model_leaves_a_sentence_and_the_others_work(models, tmp_path):
    # in a process of its own, with stale settings of gradio as errors: building a page opens event loops
    code = f"""
import json, warnings
from apps import demo
warnings.simplefilter("error", UserWarning)
settings = demo.Demo(gpt={str(tmp_path / "nowhere")!r}, dalle={str(models / "dalle")!r}, clip={str(models / "clip")!r})
parts = demo.load(settings)
from apps.page import build, theme
theme()
print(json.dumps([parts["gpt"].problem, build(parts).get_config_file()]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    problem, config = json.loads(done.stdout)
    assert "--gpt" in problem and "nowhere" in problem
    shown = json.dumps(config)
    assert all(f"{tab} has no model" in shown for tab in ("Write", "Few-shot", "Score"))
    assert not any(f"{tab}-go" in shown for tab in ("write", "fewshot", "score"))
    assert "draw-go" in shown and "classify-go" in shown
    assert not (ROOT / "apps" / "page.pyi").exists()  # gradio writes one beside a component of one's own


def test_errors_become_sentences_and_surprises_do_not_show_their_insides(capsys):
    import gradio as gr

    from apps.wiring import spoken

    def asked_too_much():
        yield 1
        raise UserError("the prompt is empty: say what to draw.")

    def broken():
        yield 1
        raise RuntimeError("secret /path")

    with pytest.raises(gr.Error, match="The prompt is empty: say what to draw."):
        list(spoken(asked_too_much)())
    with pytest.raises(gr.Error) as found:
        list(spoken(broken)())
    assert "secret" not in str(found.value)
    assert "secret" in capsys.readouterr().err  # whoever runs the page finds it in the terminal


def test_a_port_in_use_is_said_before_any_model_is_loaded(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert demo.main(["--port", str(taken.getsockname()[1])]) == 2
    said = capsys.readouterr().err
    assert "--port" in said and "loading" not in said


# the running page, by HTTP


def test_the_pages_api_writes_draws_and_classifies(page_url):
    event, (text,) = call(page_url, "write", "To be", 10, 0.8, 0, 0.95, 3)
    assert event == "complete" and text
    event, (several,) = call(page_url, "candidates", "To be", 2, 10, 0.8, 0, 0.95, 3)
    assert event == "complete" and len(several) == 2 and several[0]["text"] == text
    assert len(several[0]["tokens"]) == len(several[0]["token_logprobs"])
    sampling = (2, 3.0, 1.0, 100, 5)
    event, (drawings,) = call(page_url, "draw", "a cat", *sampling, None, "rows", None, None, False)
    assert event == "complete" and [drawing["seed"] for drawing in drawings] == [5, 6]
    assert [drawing["score"] for drawing in drawings] == [None, None]
    event, (ranked,) = call(page_url, "draw", "a cat", *sampling, drawings[0]["image"], "half", None, None, True)
    assert event == "complete" and {drawing["seed"] for drawing in ranked} == {5, 6}
    assert ranked[0]["score"] >= ranked[1]["score"]
    assert drawings[0]["image"].startswith("data:image/png;base64,")
    event, (shares,) = call(page_url, "classify", drawings[0]["image"], ["cat", "dog"], ["a {}"])
    assert event == "complete" and set(shares) == {"cat", "dog"} and sum(shares.values()) == pytest.approx(1)


def test_the_pages_api_answers_by_examples_and_scores(page_url):
    pairs, form = [["bee", "abeille"], ["sea", "mer"]], ["{input} => {output}", "\n", "token"]
    event, (told,) = call(page_url, "fewshot", "bread", pairs, "French:", ["pain", "poire"], *form)
    assert event == "complete" and told["shots"] == 2
    assert told["prompt"] == "French:\nbee => abeille\nsea => mer\nbread =>"
    assert told["answer"] == max(told["choices"], key=told["choices"].get)
    event, (told,) = call(page_url, "fewshot", "bread", pairs, "", None, *form)
    assert event == "complete" and told["choices"] is None and isinstance(told["answer"], str)
    event, (told,) = call(page_url, "score", "To be")
    assert event == "complete" and told["logprob"] == pytest.approx(sum(told["token_logprobs"]))
    for name, data, words in (
        ("score", ["x" * 20_001], "at most 20,000"),
        ("candidates", ["x", 1000, 5, 0.8, 0, 0.95, 0], "allowed is 1 to 4"),
        ("fewshot", ["x", [["a"]], "", None, *form], "is no pair"),
    ):
        event, said = call(page_url, name, *data)
        assert event == "error" and words in str(said)


def test_a_file_that_is_no_picture_gets_a_sentence_over_http(page_url):
    for image in ("not base64!", base64.b64encode(b"no picture").decode()):
        event, told = call(page_url, "classify", image, ["cat", "dog"], None)
        assert event == "error"
        assert "base64" in str(told) or "not a picture" in str(told)


def test_the_page_hands_out_no_files_of_the_machine(page_url):
    for path in ("/etc/hostname", str(demo.__file__)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{page_url}/gradio_api/file={path}", timeout=30)
        with refused.value as reply:
            assert reply.code in (403, 404)


def test_prompts_of_a_stranger_are_bounded_before_they_are_made(parts):
    for labels, templates in (
        (["a" * 20_000, "b"], ["{}" * 10_000]),
        ([f"{i}" * 5_000 for i in range(2)], ["{}"] * 5_000),
    ):
        with pytest.raises(UserError, match="too long together"):
            answers.ranked(parts["clip"].model, PICTURE, labels, templates)
