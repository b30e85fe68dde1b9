"""Claims about probing: the features are the model's states, the probe finds what is there, the unit tells what it says."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gpt import probe, probing
from gpt.model import GPT, load
from gpt.presets import GPTConfig
from multimodal.config import gpt1, gpt2, modern
from multimodal.tokenizer import Tokenizer

FAMILIES = {"gpt1": gpt1(32, 3, 2), "gpt2": gpt2(32, 3, 2), "modern": modern(32, 3, 2)}
families = pytest.mark.parametrize("family", FAMILIES)
TOKENIZER = Tokenizer.bytes()


def make(family: str = "modern", context: int = 24) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOKENIZER.vocab_size, context, FAMILIES[family]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@families
@torch.no_grad()
def test_the_last_layer_is_what_the_head_reads_and_each_layer_follows_from_the_one_before(family):
    model = make(family)
    tokens = torch.tensor([TOKENIZER.encode("some words")])
    found = probing.states(model, tokens, [0, 1, 2, 3])
    assert torch.allclose(F.linear(found[3], model.embedding.weight), model(tokens), atol=1e-4)
    expected = model.embedding(tokens)
    expected = (
        F.layer_norm(expected, (32,)) if family == "modern" else expected + model.positions.weight[: tokens.shape[1]]
    )
    assert torch.allclose(found[0], expected, atol=1e-5)
    if family == "gpt2":  # whose blocks need nothing but the states
        for layer in (0, 1):
            after, _ = model.transformer.blocks[layer](found[layer], None, None, None, None, None)
            assert torch.allclose(after, found[layer + 1], atol=1e-4)
    (alone,) = probing.states(model, tokens, [2])
    assert torch.equal(alone, found[2])


@families
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_features_of_many_texts_are_those_of_each_alone(family, pool):
    model, texts = make(family), ["one", "a longer text", "x", "the longest text of all that is cut", ""]
    found, cut = probing.features(model, TOKENIZER, texts, [0, 2, 3], pool)
    assert cut == 1 and found.shape == (3, 5, 32)
    for i, text in enumerate(texts[:4]):
        ids = [TOKENIZER.end, *TOKENIZER.encode(text)][:24]
        for place, x in enumerate(probing.states(model, torch.tensor([ids]), [0, 2, 3])):
            expected = x[0, 1:].mean(0) if pool == "mean" else x[0, -1]
            assert torch.allclose(found[place, i], expected, atol=1e-4)
    assert found.isfinite().all()


def test_activations_of_a_long_text_are_seen_from_at_least_half_a_context():
    model = make("gpt2")  # whose positions do not go beyond the context
    ids = TOKENIZER.encode("x" * 3 + "what comes here is longer than several contexts of this model, by far.")
    found = probing.activations(model, TOKENIZER, ids, 2, 7)
    assert found.shape == (len(ids),)
    row = torch.tensor([TOKENIZER.end, *ids])
    (first,) = probing.states(model, row[None, :24], [2])
    assert torch.allclose(found[:23], first[0, 1:, 7], atol=1e-5)
    for place in (30, 47, len(ids)):  # each is what some window of at least half a context says
        windows = [
            probing.states(model, row[None, place - size + 1 : place + 1], [2])[0][0, -1, 7] for size in range(12, 25)
        ]
        assert min(abs(found[place - 1] - value) for value in windows) < 1e-4
    short = probing.activations(model, TOKENIZER, ids[:5], 2, 7)
    assert torch.allclose(short, found[:5], atol=1e-5)


def blobs(count: int = 300, width: int = 20, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of three labels; the label moves units 3 and 5, the other units are noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (count,), generator=generator)
    x = noise * torch.randn(count, width, generator=generator)
    x[:, 3] += 3.0 * (labels == 1)
    x[:, 5] -= 4.0 * (labels == 2)
    return x, labels


def test_the_probe_is_at_the_minimum_of_its_loss_where_weights_are_of_standard_features():
    x, labels = blobs()
    x = x * torch.linspace(0.1, 30, 20) + 3
    found, mean, scale = probing.standard(x, labels, 3, 0.1), x.double().mean(0), x.double().std(0, correction=0)
    weight = (found.weight * scale[:, None]).requires_grad_()
    bias = (found.bias + mean @ found.weight).requires_grad_()
    z = (x.double() - mean) / scale
    assert torch.allclose(z @ weight + bias, found(x), atol=1e-4)
    (F.cross_entropy(z @ weight + bias, labels) + 0.05 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-4 and bias.grad.abs().max() < 1e-4


def test_the_probe_does_not_care_about_scale_and_a_unit_that_never_changes():
    x, labels = blobs()
    moved = torch.cat((1000 * x[:, :10] - 7, x[:, 10:], torch.full((300, 1), 5.0)), dim=1)
    one, other = probing.standard(x, labels, 3, 0.1), probing.standard(moved, labels, 3, 0.1)
    assert torch.allclose(one(x), other(moved), atol=1e-2) and other(moved).isfinite().all()


def test_the_probe_finds_what_is_there_and_nothing_where_nothing_is():
    x, labels = blobs(600)
    aside = torch.arange(600) % 4 == 0
    held, right = blobs(3000)  # the first 600 of another size are other numbers
    found, strength, nats, accuracy = probing.choose(x[:400], labels[:400], aside[:400], 3)
    assert probing.accuracy(found, held, right) > 0.9 and accuracy > 0.85 and nats < 0.5
    assert strength in probing.STRENGTHS
    noise = torch.randn(400, 20, generator=torch.Generator().manual_seed(5))
    blind, strength, nats, _ = probing.choose(noise, labels[:400], aside[:400], 3)
    assert strength == max(probing.STRENGTHS)  # the regularisation says that there is nothing
    assert nats == pytest.approx(math.log(3), abs=0.05)


def test_auc_is_the_share_of_pairs_in_the_right_order():
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(5, (40, 6), generator=generator).float()  # with many ties
    positive = torch.rand(40, generator=generator) < 0.4
    found = probing.auc(x, positive)
    for unit in range(6):
        pairs = [(a, b) for a in x[positive, unit].tolist() for b in x[~positive, unit].tolist()]
        expected = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
        assert found[unit].item() == pytest.approx(expected, abs=1e-6)


def test_the_best_unit_is_the_one_that_the_label_moves():
    x, labels = blobs(noise=0.5)
    both = torch.stack((torch.randn(300, 20, generator=torch.Generator().manual_seed(2)), x))
    one, two = (probing.best_unit(both, labels, label, [4, 6]) for label in (1, 2))
    assert (one.layer, one.unit, one.sign) == (6, 3, 1) and (two.layer, two.unit, two.sign) == (6, 5, -1)
    for unit in (one, two):
        assert unit.auc > 0.99 and unit.judge(x, labels)["auc"] == pytest.approx(unit.auc, abs=1e-5)
        positive, values = labels == unit.label, unit.sign * x[:, unit.unit]
        right = unit.judge(x, labels)["accuracy"]
        best = max(((values > t) == positive).float().mean().item() for t in [values.min() - 1, *values])
        assert right == pytest.approx(best)  # no threshold is right more often


def test_a_threshold_divides_no_equal_values():
    x = torch.tensor([[0.0], [1.0], [1.0], [1.0], [2.0]])
    unit = probing.best_unit(x[None], torch.tensor([0, 0, 1, 1, 1]), 1, [0])
    assert unit.threshold == 0.5 and unit.judge(x, torch.tensor([0, 0, 1, 1, 1]))["accuracy"] == pytest.approx(0.8)


# ---- the command


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Sentences with "be" or without it."""
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    words = ["to", "or", "not", "is", "the", "that", "heaven", "earth"]
    rows = [
        f"{a} {b} {'be' if i % 2 else 'in'} {a},{'yes' if i % 2 else 'no'}" for i, a in enumerate(words) for b in words
    ]
    rows += [
        f"{a} {b} {'in' if i % 2 else 'be'} {b},{'no' if i % 2 else 'yes'}" for i, a in enumerate(words) for b in words
    ]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def test_the_figures_are_of_texts_that_were_put_aside(models, table, capsys):
    assert probe.main([str(table), "--model", str(models / "gpt"), "--device", "cpu", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in record["layers"]] == [0, 1, 2] and record["labels"] == ["no", "yes"]
    assert record["texts"] + record["held_out"] == 128 and record["held_out"] > 10
    assert record["accuracy"] > 0.9 > record["majority"]  # even random layers keep which words are there
    assert record["accuracy"] == next(row["accuracy"] for row in record["layers"] if row["layer"] == record["layer"])
    assert record["unit"] in record["units"] and 0.5 < record["unit"]["auc_training"] <= 1


def test_the_activations_are_those_of_the_unit_that_is_named(models, table, capsys):
    text = "to be in the earth"
    arguments = [str(table), "--model", str(models / "gpt"), "--device", "cpu", "--layer", "2", "--text", text]
    assert probe.main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert "".join(record["tokens"]) == text and [row["layer"] for row in record["layers"]] == [2]
    model, tokenizer = load(models / "gpt", "cpu")
    expected = probing.activations(model, tokenizer, tokenizer.encode(text), 2, record["unit"]["unit"])
    assert record["activations"] == pytest.approx(expected.tolist(), abs=1e-3)
    assert probe.main(arguments) == 0
    out = capsys.readouterr().out
    lines = out[out.index("means 'yes'" if "means 'yes'" in out else "means 'no'") :].splitlines()[1:]
    assert len(lines) == len(record["tokens"])
    unit = record["unit"]
    assert float(lines[0].split()[0]) == pytest.approx(unit["sign"] * expected[0].item() - unit["threshold"], abs=2e-3)


def test_a_label_can_be_asked_for_and_two_labels_have_one_unit(models, table, capsys):
    units = []
    for label in ("yes", "no"):
        arguments = [str(table), "--model", str(models / "gpt"), "--device", "cpu", "--label", label, "--json"]
        assert probe.main(arguments) == 0
        units.append(json.loads(capsys.readouterr().out)["unit"])
    assert [unit["label"] for unit in units] == ["yes", "no"] and units[0]["sign"] == -units[1]["sign"]
    assert units[0]["auc"] == pytest.approx(units[1]["auc"], abs=1e-5) and units[0]["unit"] == units[1]["unit"]


TEXT = [("héllo <b>&\n", 1.5), (" $x$\x1b[2J ", -3.0), ("\n\nlast", 0.0)]


def test_the_page_holds_the_text_and_nothing_that_runs(tmp_path):
    probe.draw(tmp_path / "t.html", TEXT, "layer <1>")
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "héllo &lt;b&gt;&amp;\n" in page and "layer &lt;1&gt;" in page and "\x1b" not in page
    assert re.findall(r'title="([^"]+)"', page) == ["1.500", "-3.000", "0.000"]
    assert "rgb(255, 255, 255)" in page and "<script" not in page and "http" not in page


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_picture_is_written_whatever_the_text(suffix, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib, of the extra bench")
    path = tmp_path / f"t.{suffix}"
    probe.draw(path, [*TEXT, ("日本 " * 60, 2.0), ("\n" * 200, 1.0)], "layer $1$")
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(magic) and path.stat().st_size > 3000


def test_lines_are_broken_at_spaces_and_lose_nothing():
    text = [("a few words " * 20, 1.0), ("x" * 200, 2.0), ("\nend", 3.0)]
    lines = probe.wrapped(text)
    assert all(len(line) <= probe.WRAP for line in lines)
    assert "".join(c for line in lines for c, _ in line) == "".join(piece for piece, _ in text).replace("\n", "")
    assert [value for line in lines for _, value in line][-3:] == [3.0] * 3


def test_tokens_of_one_character_share_it():
    ids = TOKENIZER.encode("aé")
    assert probe.pieces(TOKENIZER, ids, [1.0, 2.0, 4.0]) == [("a", 1.0), ("é", 3.0)]
    assert probe.pieces(TOKENIZER, ids[:2], [1.0, 2.0]) == [("a", 1.0), ("\ufffd", 2.0)]


def test_colours_on_a_terminal_move_no_cursor():
    found = "".join(probe.coloured(TEXT))
    assert re.sub(r"\x1b\[(?:38;5;16;48;5;\d+|0)m", "", found) == "héllo <b>&\n $x$\\x1b[2J \n\nlast\n"
    assert probe.coloured([("x", 0.0)]) and probe.listed([("x", 0.0)])  # all alike: no division by zero


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either a table"),
        (["TABLE", "--example", "sentiment"], "give either a table"),
        (["--example", "sentiment", "--valid", "x.csv"], "--valid goes with a table"),
        (["TABLE", "--layer", "3"], "the model has the layers 0 (embeddings) to 2"),
        (["TABLE", "--label", "maybe"], "the labels are no, yes"),
        (["TABLE", "--plot", "x.html"], "give the text to be drawn"),
        (["TABLE", "--plot", "x.gif", "--text", "y"], "written as .html, .png, .svg or .pdf"),
        (["TABLE", "--text", " "], "--text is empty"),
        (["no.csv"], "no.csv could not be read"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, sentence, models, table, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = [str(table) if a == "TABLE" else a for a in arguments]
    assert probe.main(["--model", str(models / "gpt"), "--device", "cpu", *arguments]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("gpt.probe: ") and sentence in last


def test_a_picture_without_matplotlib_names_the_extra(models, table, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    arguments = [str(table), "--model", str(models / "gpt"), "--text", "x", "--plot", "x.png"]
    assert probe.main(arguments) == 2
    assert "multimodal-text-image[bench]" in capsys.readouterr().err


def test_a_text_may_be_a_file(tmp_path, models):
    (tmp_path / "t.txt").write_bytes("\ufeffone\r\ntwo\r\n".encode())
    assert probe.read_text(str(tmp_path / "t.txt")) == "one\ntwo"
    assert probe.read_text("not a file " * 500) == "not a file " * 500 and probe.read_text("a\0b") == "a\0b"
