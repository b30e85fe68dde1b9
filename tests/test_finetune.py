"""Claims about fine-tuning: the four transformations, the loss, tables of strangers, and the commands."""

import dataclasses
import json
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gpt import classify, demonstrations, finetune, finetuning, labelled
from gpt import model as gpt
from gpt.finetuning import DELIMITER, EXTRACT, START, Classifier, ClassifierConfig, collate, sequences
from gpt.labelled import Row
from gpt.presets import GPTConfig
from multimodal.cli import UserError
from multimodal.config import gpt1, gpt2, modern
from multimodal.data.text import default_corpora
from multimodal.tokenizer import Tokenizer

FAMILIES = {"gpt1": gpt1(32, 2, 2), "gpt2": gpt2(32, 2, 2), "modern": modern(32, 2, 2)}
KINDS = ("classification", "entailment", "similarity", "multiple-choice")
TOKENIZER = Tokenizer.bytes()
V = TOKENIZER.vocab_size
START, DELIMITER, EXTRACT = V + START, V + DELIMITER, V + EXTRACT
families = pytest.mark.parametrize("family", FAMILIES)
kinds = pytest.mark.parametrize("kind", KINDS)
# a few examples of each kind, of different lengths
TEXTS = {
    "classification": [("one",), ("a longer text",), ("x",)],
    "entailment": [("a cat sleeps", "it sleeps"), ("b", "c"), ("one more premise", "h")],
    "similarity": [("a cat sleeps", "it sleeps"), ("b", "c"), ("first of them", "s")],
    "multiple-choice": [("to be or", "not", "yes", "maybe so"), ("a", "b", "c"), ("1", "22", "3")],
}


def base(family: str = "modern", context: int = 48) -> gpt.GPT:
    """A language model whose every parameter matters."""
    torch.manual_seed(0)
    model = gpt.GPT(GPTConfig(V, context, FAMILIES[family]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def config(kind: str, model: gpt.GPT, labels: tuple[str, ...] = ("no", "yes", "unknown")) -> ClassifierConfig:
    return ClassifierConfig(model.config, kind, () if kind == "multiple-choice" else labels, dropout=0.0)


def classifier(kind: str, family: str = "modern") -> Classifier:
    model = base(family)
    torch.manual_seed(1)
    found = finetuning.attach(model, config(kind, model)).eval()
    torch.nn.init.normal_(found.head.weight)
    return found


def encoded(model: Classifier, texts) -> list[list[list[int]]]:
    return [sequences(TOKENIZER, model.config, each)[0] for each in texts]


def test_the_four_transformations_are_those_of_the_paper():
    model = base()
    a, b, c = (TOKENIZER.encode(text) for text in ("ab", "c", "def"))
    expected = {
        "classification": (("ab",), [[START, *a, EXTRACT]]),
        "entailment": (("ab", "c"), [[START, *a, DELIMITER, *b, EXTRACT]]),
        "similarity": (("ab", "c"), [[START, *a, DELIMITER, *b, EXTRACT], [START, *b, DELIMITER, *a, EXTRACT]]),
        "multiple-choice": (
            ("ab", "c", "def"),
            [[START, *a, DELIMITER, *b, EXTRACT], [START, *a, DELIMITER, *c, EXTRACT]],
        ),
    }
    for kind, (texts, rows) in expected.items():
        assert sequences(TOKENIZER, config(kind, model), texts) == (rows, False)


@kinds
@pytest.mark.parametrize("lengths", [(100, 3, 5), (3, 100, 2), (100, 100, 90), (45, 0, 0), (20, 20, 40), (23, 22, 22)])
def test_what_is_too_long_is_cut_to_the_context_and_said(kind, lengths):
    model = base(context=48)
    texts = tuple(letter * length for letter, length in zip("abc", lengths, strict=True))[: len(TEXTS[kind][0])]
    rows, cut = sequences(TOKENIZER, config(kind, model), texts)
    assert all(len(row) <= 48 and row[0] == START and row[-1] == EXTRACT for row in rows)
    whole = all(
        sum(map(len, parts)) + 2 + (len(parts) > 1) <= 48
        for parts in ([texts] if len(texts) < 3 else [texts[:2], texts[::2]])
    )
    assert cut is not whole
    if cut:  # nothing is wasted
        assert max(map(len, rows)) == 48


def test_a_context_before_choices_loses_its_beginning_and_other_texts_their_end():
    model = base(context=16)
    (row,), cut = sequences(TOKENIZER, config("classification", model), ("begin...............end",))
    assert TOKENIZER.decode(row[1:-1]) == "begin........." and cut
    rows, cut = sequences(TOKENIZER, config("multiple-choice", model), ("begin...............end", "a", "bcd"))
    assert [TOKENIZER.decode([i for i in row if i < V]) for row in rows] == [".......enda", ".......endbcd"] and cut


@families
@kinds
def test_a_ragged_batch_equals_each_example_alone(family, kind):
    model = classifier(kind, family)
    examples = encoded(model, TEXTS[kind])
    with torch.no_grad():
        together, _ = model(collate(examples, model.config))
        for row, example in zip(together, examples, strict=True):
            alone, _ = model(collate([example], model.config))
            assert torch.allclose(row[: alone.shape[1]], alone[0], atol=1e-5)
            assert (row[alone.shape[1] :] == float("-inf")).all()  # a choice that the example does not have
    found = finetuning.scores(model, examples)
    assert all(torch.allclose(a, b[: len(a)], atol=1e-5) for a, b in zip(found, together, strict=True))
    assert together[together.isfinite()].std() > 0.1


@families
def test_what_the_model_thinks_of_text_is_what_it_was(family):
    model = base(family)
    found = finetuning.attach(model, config("classification", model)).eval()
    tokens = torch.randint(V, (3, 17), generator=torch.Generator().manual_seed(0))
    _, logits = found(tokens[:, None], language=True)
    assert logits.shape[-1] == V
    assert torch.allclose(logits[:, 0], model(tokens), atol=1e-5)
    assert found.gpt.embedding.weight.shape[0] == V + 3


def test_the_state_is_that_of_the_extract_token():
    model = classifier("classification")
    (example,) = encoded(model, [("hello",)])
    with torch.no_grad(), finetuning.outputs([model.gpt.transformer]) as kept:
        scores, _ = model(collate([example], model.config))
        assert torch.allclose(scores[0], model.head(kept[0][0, len(example[0]) - 1]))


def test_similarity_does_not_depend_on_the_order_of_the_texts_and_entailment_does():
    a, b = "the sun is up", "it is night"
    for kind, equal in (("similarity", True), ("entailment", False)):
        model = classifier(kind)
        one, other = finetuning.scores(model, encoded(model, [(a, b), (b, a)]))
        assert torch.allclose(one, other, atol=1e-5) is equal


def test_choices_in_another_order_have_the_same_scores_in_that_order():
    model = classifier("multiple-choice")
    one, other = finetuning.scores(model, encoded(model, [("to be", "x", "yy", "zzz"), ("to be", "zzz", "x", "yy")]))
    assert torch.allclose(one[[2, 0, 1]], other, atol=1e-5) and one.std() > 0.01


def test_choices_lose_the_same_features_to_dropout():
    model = base()
    dropped = dataclasses.replace(config("multiple-choice", model), dropout=0.5)
    found = finetuning.attach(model, dropped).train()
    scores, _ = found(collate(encoded(found, [("a", "same", "same", "same")]), dropped))
    assert torch.allclose(scores, scores[:, :1].expand(-1, 3), atol=1e-6)


@kinds
def test_the_text_loss_is_the_mean_of_each_sequences_own_mean(kind):
    model = classifier(kind)
    examples = encoded(model, TEXTS[kind])
    tokens = collate(examples, model.config)
    with torch.no_grad():
        _, logits = model(tokens, language=True)
        expected = []
        for row in (row for example in examples for row in example):
            own = model.gpt(torch.tensor([row]))[0, :, :V].log_softmax(-1)
            nats = [-own[i, token].item() for i, token in enumerate(row[1:]) if token < V]  # new tokens are no targets
            expected.append(sum(nats) / len(nats))
        assert finetuning.language_loss(logits, tokens).item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


@kinds
def test_the_loss_is_that_of_the_labels_plus_the_weighted_one_of_the_text(kind):
    model = classifier(kind)
    batch = {"tokens": collate(encoded(model, TEXTS[kind]), model.config), "label": torch.tensor([1, 0, 1])}
    with torch.no_grad():
        scores, _ = model(batch["tokens"])
        alone, metrics = finetuning.loss(model, batch, 0, 0.0)
        both, more = finetuning.loss(model, batch, 0, 0.5)
    assert torch.allclose(alone, F.cross_entropy(scores, batch["label"]), atol=1e-6) and "text_loss" not in metrics
    assert torch.allclose(both, alone + 0.5 * more["text_loss"], atol=1e-5) and more["text_loss"] > 1


@families
@kinds
def test_every_parameter_gets_a_finite_gradient(family, kind):
    model = classifier(kind, family).train()
    batch = {"tokens": collate(encoded(model, TEXTS[kind]), model.config), "label": torch.tensor([1, 0, 1])}
    value, _ = finetuning.loss(model, batch, 0, 0.5)
    value.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without <= ({"head.bias"} if kind == "multiple-choice" else set())  # what all choices get changes nothing
    assert all(p.grad.isfinite().all() for p in model.parameters())


@kinds
def test_a_few_examples_can_be_learned_by_heart(kind):
    model = base()
    model = finetuning.attach(model, config(kind, model))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    batch = {"tokens": collate(encoded(model, TEXTS[kind]), model.config), "label": torch.tensor([1, 0, 1])}
    for step in range(60):
        value, metrics = finetuning.loss(model, batch, step, 0.5)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert metrics["accuracy"] == 1 and metrics["label_loss"] < 0.1


@kinds
def test_a_saved_classifier_loads_with_nothing_but_its_path(kind, tmp_path):
    model = classifier(kind)
    finetuning.save(model, TOKENIZER, tmp_path)
    loaded, tokenizer = finetuning.load(tmp_path, "cpu")
    assert loaded.config == model.config and tokenizer.vocab_size == V
    for a, b in zip(*(finetuning.scores(m, encoded(m, TEXTS[kind])) for m in (model, loaded)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("key", "value"),
    [("labels", ["one"]), ("labels", 3), ("labels", [1, 2]), ("task", "chat"), ("gpt", {}), ("dropout", 2)]
    + [("labels", ["x"] * 2000)],
)
def test_a_config_that_describes_no_classifier_gets_a_sentence(key, value, tmp_path):
    finetuning.save(classifier("classification"), TOKENIZER, tmp_path)
    kept = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**kept, key: value}))
    with pytest.raises(UserError, match="config.json"):
        finetuning.load(tmp_path, "cpu")


def test_a_classifier_is_no_language_model_and_the_other_way_around(models, tmp_path):
    finetuning.save(classifier("classification"), TOKENIZER, tmp_path)
    with pytest.raises(UserError, match="'gpt-classifier', but 'gpt' is needed"):
        gpt.load(tmp_path, "cpu")
    with pytest.raises(UserError, match="'gpt', but 'gpt-classifier' is needed"):
        finetuning.load(models / "gpt", "cpu")


# ---- tables


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "name", "text", "texts", "label"),
    [
        ("classification", "a.csv", 'text,label\n"Good, very good",pos\n', ("Good, very good",), "pos"),
        ("classification", "a.csv", "\ufeffLabel; Sentence\n1;fine\n", ("fine",), "1"),
        ("classification", "a.tsv", "text\tlabel\nso, so\tneutral\n", ("so, so",), "neutral"),
        ("classification", "a.jsonl", '{"text": "two\\nlines", "label": 1.0}\n\n', ("two\nlines",), "1"),
        ("classification", "a.jsonl", '{"text": "a\u2028b\x85c", "label": true}\r\n', ("a\u2028b\x85c",), "true"),
        ("entailment", "a.csv", "premise,hypothesis,label\np,h,yes\n", ("p", "h"), "yes"),
        ("similarity", "a.csv", "sentence1,sentence2,label\np,h,0\n", ("p", "h"), "0"),
        ("multiple-choice", "a.csv", "context,choice2,choice1,choice3,label\nq,b,a,,B\n", ("q", "a", "b"), "B"),
        ("multiple-choice", "a.jsonl", '{"context": "q", "choices": [1, 2.5], "label": 0}\n', ("q", "1", "2.5"), "0"),
    ],
)
def test_a_table_is_read_as_its_first_line_says(kind, name, text, texts, label, tmp_path):
    (row,), unread = labelled.read(write(tmp_path / name, text), kind)
    assert (row.texts, row.label, unread) == (texts, label, [])


def test_rows_that_cannot_be_used_are_named_by_line_and_the_rest_is_used(tmp_path):
    text = 'text,label\ngood,1\n,0\n"two\nlines",1\nno label,\nbad, very bad,0\n   ,1\nlast,0\n'
    rows, unread = labelled.read(write(tmp_path / "t.csv", text), "classification")
    assert [row.texts[0] for row in rows] == ["good", "two\nlines", "last"]
    found = [(item.path.name, item.reason) for item in unread]
    assert [name for name, _ in found] == ["t.csv:3", "t.csv:6", "t.csv:7", "t.csv:8"]
    assert [reason.split(";")[0] for _, reason in found] == [
        "its text is empty", "it has no label", "it has more cells than the first line has names", "its text is empty",
    ]  # fmt: skip
    lines = '{"text": "good", "label": "a"}\n[1]\n{"text": "x"}\n{"label": "a"}\n{"text": ["x"], "label": "a"}\n{"te\n'
    rows, unread = labelled.read(write(tmp_path / "t.jsonl", lines), "classification")
    assert len(rows) == 1 and [item.path.name[8:] for item in unread] == ["2", "3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("t.csv", "text,label\n", "has no rows"),
        ("t.csv", "", "has no rows"),
        ("t.csv", "sentence,mood\nfine,good\n", "needs the columns text and label, and its columns are sentence, mood"),
        ("t.csv", "review_text,label\nfine,good\n", "it has no text"),
        ("t.xlsx", "PK", "tables are read as .csv, .tsv, .jsonl"),
        ("t.jsonl", "{}\n", "its columns are none"),
    ],
)
def test_a_table_that_cannot_be_used_gets_one_sentence(name, text, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        labelled.read(write(tmp_path / name, text), "classification")


def test_a_missing_table_and_one_that_is_no_utf8(tmp_path):
    with pytest.raises(UserError, match=r"nothing.csv could not be read: No such file"):
        labelled.read(tmp_path / "nothing.csv", "classification")
    (tmp_path / "old.csv").write_bytes("text,label\ncafé,1\n".encode("cp1252"))
    assert labelled.read(tmp_path / "old.csv", "classification")[0][0].texts == ("café",)


def test_labels_are_the_words_that_occur_and_two_are_needed():
    rows = [Row((str(i),), label) for i, label in enumerate(("10", "9", "b", "a", "9"))]
    assert labelled.labels_of(rows, "classification", "t.csv") == ("9", "10", "a", "b")
    with pytest.raises(UserError, match="every row to train on has the label '9'"):
        labelled.labels_of(rows[1:2], "classification", "t.csv")
    with pytest.raises(UserError, match="1,001 different labels"):
        labelled.labels_of([Row(("x",), str(i)) for i in range(1001)], "classification", "t.csv")
    found, unread = labelled.examples([Row(("x",), "maybe", "t.csv:7"), *rows], "classification", ("9", "10", "a", "b"))
    assert (
        len(found) == 5 and str(unread[0].path) == "t.csv:7" and "'maybe' is not one of 9, 10, a, b" in unread[0].reason
    )


@pytest.mark.parametrize(
    ("labels", "way", "places"),
    [
        ("123", "number from 1", (0, 1, 2)),
        ("012", "number from 0", (0, 1, 2)),
        ("12", "number from 1", (0, 1)),
        ("acb", "letter", (0, 2, 1)),
        (("red", "blue"), "text", (0, 2)),
        (("choice2", "choice3"), "number from 1", (1, 2)),
    ],
)
def test_a_label_names_a_choice_in_the_way_that_fits_most_rows(labels, way, places):
    rows = [Row(("what colour?", "red", "green", "blue"), label) for label in labels]
    found = labelled.labels_of(rows, "multiple-choice", "t.csv")
    assert found == (way,)
    assert tuple(example.label for example in labelled.examples(rows, "multiple-choice", found)[0]) == places
    _, unread = labelled.examples([Row(("q", "a", "b"), "purple", "t.csv:3")], "multiple-choice", found)
    assert "'purple' is not the" in unread[0].reason


def test_too_few_rows_are_said(tmp_path):
    for text, found in (
        ("text,label\na,1\na,2\n", "0 examples to train on and 2"),
        ("text,label\na,1\n", "0 examples"),
    ):
        both = labelled.halves([write(tmp_path / "t.csv", text)], None, "classification")
        with pytest.raises(UserError, match=found):
            labelled.prepared(both, "classification", "t.csv")


@kinds
def test_a_row_is_written_as_what_it_is_read_from(kind, tmp_path):
    rows = [Row(texts, "1") for texts in TEXTS[kind]]
    finetune.keep(rows, kind, tmp_path / "rows.jsonl")
    again, _ = labelled.read(tmp_path / "rows.jsonl", kind)
    assert [(row.texts, row.label) for row in again] == [(row.texts, row.label) for row in rows]


def test_what_is_held_out_is_told_by_the_text_and_not_by_its_place():
    rows = [Row((f"text {i}",), str(i % 2)) for i in range(200)]
    train, held = labelled.split(rows, "classification")
    assert 20 < len(held) < 60 and len(train) + len(held) == 200
    assert set(labelled.split(rows[::-1], "classification")[1]) == set(held)
    fewer = labelled.split(rows[:100], "classification")[1]
    assert set(fewer) == set(held) & set(rows[:100])  # a table may grow
    doubled, held = labelled.split([*rows, *rows], "classification")
    assert not {row.texts for row in doubled} & {row.texts for row in held}


def test_pairs_that_share_a_text_are_not_divided():
    rows = [Row((f"premise {i // 3}", f"hypothesis {i}"), "yes") for i in range(90)]
    train, held = labelled.split(rows, "entailment")
    assert not {row.texts[0] for row in train} & {row.texts[0] for row in held}
    pairs = [Row(pair, "same") for i in range(60) for pair in ((f"a{i}", f"b{i}"), (f"b{i}", f"a{i}"))]
    train, held = labelled.split(pairs, "similarity")
    assert not {frozenset(row.texts) for row in train} & {frozenset(row.texts) for row in held}
    question = [Row(("the same question", f"answer {i}"), "yes") for i in range(50)]
    train, held = labelled.split(question, "entailment")
    assert len(train) > len(held) > 0
    grouped = [Row((f"{i}",), "yes", group=f"{i % 20}") for i in range(100)]
    train, held = labelled.split(grouped, "classification")
    assert not {row.group for row in train} & {row.group for row in held}


@pytest.fixture(scope="module")
def default_texts():
    found = default_corpora()
    if not {"shakespeare", "bible"} <= found.keys():
        pytest.skip("the default texts are not installed")
    return found


@kinds
def test_authors_asks_one_question_in_each_way_and_is_judged_on_other_books(kind, default_texts, monkeypatch):
    monkeypatch.setattr(demonstrations.corpora, "default_corpora", lambda: default_texts)
    halves = demonstrations.make("authors", kind)
    assert halves == demonstrations.make("authors", kind)
    labels, train, valid = labelled.prepared(halves, kind, "authors")
    assert (len(train), len(valid)) == (600, 300)
    counts = [sum(example.label == i for example in train) for i in range(max(3, len(labels)))]
    assert max(counts) < 350  # no answer is right most of the time
    pieces = [{text for row in half for text in row.texts if text.count(" ") == 5} for half in halves]
    assert len(pieces[0]) >= 500 and not pieces[0] & pieces[1]


def test_sentiment_is_judged_on_words_that_were_never_trained_on():
    train, valid = demonstrations.sentiment()
    assert (len(train), len(valid)) == (600, 240)
    assert not {row.group for row in train} & {row.group for row in valid}
    for row in (*train, *valid):
        assert row.group in row.texts[0] and row.group in demonstrations.WORDS[row.label]
    with pytest.raises(UserError, match="for entailment there is authors"):
        demonstrations.make("sentiment", "entailment")


# ---- the commands


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """Tables that a tiny model can learn: the label is the first letter's case."""
    folder = tmp_path_factory.mktemp("tables")
    words = [f"{a}{b} {b}{a}" for a in "abcdefgh" for b in "ijklmnop"]
    rows = [f"{w},lower" for w in words] + [f"{w.upper()},UPPER" for w in words]
    write(folder / "train.csv", "text,label\n" + "\n".join(rows) + "\n,lower\n")
    write(
        folder / "valid.csv", "text,label\nqr rq,lower\nQR RQ,UPPER\nst ts,lower\nqr,MIXED\nij ji,lower\nai ia,lower\n"
    )
    pairs = [f"{w},{w if i % 2 else w[::-1].upper()},{i % 2}" for i, w in enumerate(words)]
    write(folder / "pairs.csv", "first,second,label\n" + "\n".join(pairs) + "\n")
    choices = [
        {"context": w, "choices": [w.upper(), w][:: 1 if i % 2 else -1], "label": i % 2} for i, w in enumerate(words)
    ]
    write(folder / "choices.jsonl", "".join(json.dumps(row) + "\n" for row in choices))
    return folder


FAST = ["--device", "cpu", "--train.lr", "1e-2", "--train.batch-size", "16", "--train.precision", "fp32"]


@pytest.fixture(scope="module")
def run(models, tables, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "case"
    arguments = [
        "classification",
        "--data",
        str(tables / "train.csv"),
        "--model",
        str(models / "gpt"),
        "--out",
        str(path),
    ]
    assert finetune.main([*arguments, "--epochs", "10", *FAST]) == 0
    return path


def test_fine_tuning_leaves_a_whole_run_directory(run, tables):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train, valid = (
        labelled.read(run / "examples" / f"{half}.jsonl", "classification")[0] for half in ("train", "valid")
    )
    assert len(train) + len(valid) == 128
    assert len(lines) == -(-10 * len(train) // 16)
    assert {"loss", "label_loss", "text_loss", "accuracy"} <= lines[0].keys() and "val_accuracy" in lines[-1]
    (result,) = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert result["val_accuracy"] > 0.9 > result["val_majority"]
    card = (run / "README.md").read_text()
    assert "python -m gpt.finetune classification --data" in card and "labels: UPPER, lower" in card


def test_rows_that_are_not_used_are_told_and_those_of_an_unknown_label(models, tables, tmp_path, capsys):
    arguments = ["classification", "--data", str(tables / "train.csv"), "--valid", str(tables / "valid.csv"), "--json"]
    assert (
        finetune.main(
            [*arguments, "--model", str(models / "gpt"), "--out", str(tmp_path / "r"), "--epochs", "0.1", *FAST]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert "train.csv:130: its text is empty" in err
    assert "valid.csv:5: its label 'MIXED' is not one of UPPER, lower" in err
    assert "1 of the 6 rows of" in err and "are also trained on" in err
    (record,) = map(json.loads, out.splitlines())
    assert record["val_examples"] == 5 and record["lm_weight"] == 0.5


@pytest.mark.parametrize(("kind", "name"), [("similarity", "pairs.csv"), ("multiple-choice", "choices.jsonl")])
def test_the_other_kinds_train_by_command_too(kind, name, models, tables, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [
        kind,
        "--data",
        str(tables / name),
        "--model",
        str(models / "gpt"),
        "--out",
        str(out),
        "--epochs",
        "1",
        *FAST,
    ]
    assert finetune.main(arguments) == 0
    assert "right of" in capsys.readouterr().out
    texts = ["one", "two"] + ["three"] * (kind == "multiple-choice")
    assert classify.main(["--model", str(out), "--json", *texts]) == 0
    record = json.loads(capsys.readouterr().out)
    names = {entry["label"] for entry in record["predictions"]}
    assert names == ({"two", "three"} if kind == "multiple-choice" else {"0", "1"})
    assert classify.main(["--model", str(out), "--data", str(tables / name), "--json"]) == 0
    out, err = capsys.readouterr()
    assert all("truth" in json.loads(line) for line in out.splitlines()) and "of 64" in err


def test_seeds_compare_with_and_without_the_texts_loss(models, tables, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [
        "classification",
        "--data",
        str(tables / "train.csv"),
        "--model",
        str(models / "gpt"),
        "--out",
        str(out),
    ]
    arguments += ["--epochs", "1", *FAST]
    assert finetune.main([*arguments, "--seeds", "2"]) == 0
    table = capsys.readouterr().out
    assert "with the text's loss (λ = 0.5), 2 seeds" in table and "without the text's loss (λ = 0), 2 seeds" in table
    assert table.count("±") == 5 and "commonest label" in table
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(r["seed"], r["lm_weight"]) for r in results] == [(0, 0.5), (0, 0.0), (1, 0.5), (1, 0.0)]
    assert not list(out.glob("compared/*/model.safetensors")) and len(list(out.glob("compared/*/metrics.jsonl"))) == 3
    finetuning.load(out, "cpu")
    # more seeds later: what is done stays, and the model is the same
    before = finetuning.load(out, "cpu")[0].state_dict()
    assert finetune.main([*arguments, "--seeds", "3", "--resume"]) == 0
    more = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert more[:4] == [{**old, "minutes": new["minutes"]} for old, new in zip(results, more, strict=False)]
    assert [(r["seed"], r["lm_weight"]) for r in more[4:]] == [(2, 0.5), (2, 0.0)]
    assert all(
        torch.equal(before[name], tensor) for name, tensor in finetuning.load(out, "cpu")[0].state_dict().items()
    )
    assert "3 seeds" in (out / "README.md").read_text()


def test_the_same_seed_gives_the_same_model_and_a_stopped_run_goes_on_exactly(
    run, models, tables, tmp_path, monkeypatch
):
    arguments = [
        "classification",
        "--data",
        str(tables / "train.csv"),
        "--model",
        str(models / "gpt"),
        "--epochs",
        "10",
    ]
    arguments += ["--out", str(tmp_path / "run"), *FAST]
    original = finetuning.loss

    def stopping(model, batch, step, weight):
        if step == 5:
            signal.raise_signal(signal.SIGTERM)
        return original(model, batch, step, weight)

    monkeypatch.setattr(finetuning, "loss", stopping)
    assert finetune.main(arguments) == 1
    monkeypatch.undo()
    assert finetune.main([*arguments, "--resume"]) == 0
    whole, resumed = (finetuning.load(path, "cpu")[0].state_dict() for path in (run, tmp_path / "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_from_scratch_begins_with_other_weights_of_the_same_shape(run, models, tables, tmp_path):
    arguments = ["classification", "--data", str(tables / "train.csv"), "--model", str(models / "gpt"), "--scratch"]
    assert finetune.main([*arguments, "--out", str(tmp_path / "run"), "--train.steps", "1", *FAST]) == 0
    theirs, ours = finetuning.load(run, "cpu")[0], finetuning.load(tmp_path / "run", "cpu")[0]
    assert theirs.config == ours.config
    original = gpt.load(models / "gpt", "cpu")[0].embedding.weight
    assert (ours.gpt.embedding.weight[:-3] - original).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either --data"),
        (["--data", "x.csv", "--example", "authors"], "give either --data"),
        (["--example", "authors", "--valid", "x.csv"], "--valid goes with --data"),
        (["--example", "poems"], "for classification there is authors and sentiment"),
        (["--data", "x.csv"], "x.csv could not be read"),
        (["--example", "sentiment", "--seeds", "0"], "--seeds 0 is out of range"),
        (["--example", "sentiment", "--lm-weight", "-1"], "--lm-weight -1.0 is out of range"),
        (["--example", "sentiment", "--epochs", "nan"], "--epochs nan is out of range"),
    ],
)
def test_wrong_use_of_fine_tuning_is_one_sentence(arguments, sentence, models, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert finetune.main(["classification", "--model", str(models / "gpt"), *arguments]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("gpt.finetune: ") and sentence in last
    assert not (tmp_path / "runs").exists()  # nothing was begun


def test_a_run_is_never_overwritten_and_not_resumed_as_another(run, models, tables, capsys):
    before = (run / "model.safetensors").stat().st_mtime_ns
    arguments = ["--data", str(tables / "pairs.csv"), "--model", str(models / "gpt"), "--out", str(run)]
    assert finetune.main(["similarity", *arguments]) == 2
    assert "--resume continues it" in capsys.readouterr().err
    assert finetune.main(["similarity", *arguments, "--resume"]) == 2
    assert "the run began with kind classification, but similarity" in capsys.readouterr().err
    assert (run / "model.safetensors").stat().st_mtime_ns == before


def test_predictions_come_in_order_with_probabilities_that_sum_to_one(run, capsys):
    texts = ["bk kb", "BK KB", "a" * 500]
    assert classify.main(["--model", str(run), "--json", *texts]) == 0
    out, err = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["text"] for record in records] == texts
    for record, best in zip(records, ("lower", "UPPER", None), strict=True):
        entries = record["predictions"]
        assert [entry["rank"] for entry in entries] == [1, 2] and entries[0]["label"] == (best or entries[0]["label"])
        assert sum(entry["probability"] for entry in entries) == pytest.approx(1, abs=1e-5)
    assert "1 of 3 are longer than the model's context of 64 tokens: cut." in err
    assert classify.main(["--model", str(run), "--top-k", "1", *texts[:2]]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["bk", "lower", "BK", "UPPER"]


def test_a_table_with_labels_is_judged_and_one_without_is_classified(run, tables, tmp_path, capsys, monkeypatch):
    assert classify.main(["--model", str(run), "--data", str(tables / "valid.csv")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("right: ") and "of 5" in out and "✓" in out
    assert "1 labels are not judged; the first:" in err and "'MIXED'" in err
    write(tmp_path / "lines.txt", "ab cd\n\nEF GH\n")
    write(tmp_path / "rows.csv", "text\nab cd\n")
    assert (
        classify.main(
            ["--model", str(run), "--data", str(tmp_path / "lines.txt"), str(tmp_path / "rows.csv"), "--json"]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["ab cd", "EF GH", "ab cd"] and "truth" not in out


def test_what_cannot_be_classified_is_told_the_rest_comes_and_the_status_is_1(run, tables, tmp_path, capsys):
    arguments = [
        "--model",
        str(run),
        "--json",
        " ",
        "ab",
        "--data",
        str(tmp_path / "no.csv"),
        str(tables / "train.csv"),
    ]
    assert classify.main(arguments) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["error"].split(":")[0] for record in records if "error" in record][0] == "it is empty"
    assert len([record for record in records if "error" in record]) == 3
    assert len([record for record in records if "predictions" in record]) == 129


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x"], "no --model was given"),
        (["--model", "RUN"], "no text was given"),
        (["--model", "RUN", "x", "--top-k", "0"], "show at least 1"),
        (["--model", "nowhere", "x"], "no run directory"),
        (["--model", "GPT", "x"], "'gpt-classifier' is needed"),
    ],
)
def test_wrong_use_of_classifying_is_one_sentence(arguments, sentence, run, models, capsys):
    arguments = [{"RUN": str(run), "GPT": str(models / "gpt")}.get(a, a) for a in arguments]
    assert classify.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gpt.classify: ") and sentence in line
