"""Claims about `clip.evaluate`: every figure equals a plain count, the probe is the optimum, and the protocol is told."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clip import encoder as encoders
from clip import evaluate, features, fewshot, figures, index, labelled, probe, zeroshot
from clip.model import load
from multimodal import images, logistic

COLOURS = {"red": (220, 30, 30), "green_grass": (30, 200, 30), "deepBlue": (20, 20, 190)}


def unit(b: int, d: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(b, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def classes_of(b: int, c: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, c, (b,), generator=torch.Generator().manual_seed(seed))


# ---- counting


def test_places_are_those_of_a_stable_sort():
    scores = torch.randint(0, 6, (40, 9), generator=torch.Generator().manual_seed(0)).float()  # many ties
    right = classes_of(40, 9)
    order = scores.argsort(dim=1, descending=True, stable=True).tolist()
    assert figures.places(scores, right).tolist() == [
        row.index(i) for row, i in zip(order, right.tolist(), strict=True)
    ]


def test_accuracies_are_plain_counts():
    scores, right = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)), classes_of(60, 8)
    right[right == 3] = 2  # a class without pictures counts for nothing
    found = figures.accuracies(figures.places(scores, right), right)
    first = scores.argmax(1)
    each = [float((first[right == c] == c).double().mean()) for c in range(8) if (right == c).any()]
    assert found["top1"] == pytest.approx(float((first == right).double().mean()))
    assert found["mean_per_class"] == pytest.approx(sum(each) / len(each))
    five = [right[i].item() in scores[i].topk(5).indices.tolist() for i in range(60)]
    assert found["top5"] == pytest.approx(sum(five) / 60)


@pytest.mark.parametrize("chunk", [3, 1024])
def test_recall_is_a_plain_count_with_any_number_of_captions(monkeypatch, chunk):
    monkeypatch.setattr(figures, "CHUNK", chunk)
    pictures, texts = unit(20, 5), unit(55, 5, 1)
    owner = torch.cat((torch.arange(20), classes_of(35, 20)))
    found = figures.retrieval(pictures, texts, owner, (1, 2, 7))
    scores = pictures @ texts.T
    for k in (1, 2, 7):
        any_of_its_own = [bool((owner[scores[i].topk(k).indices] == i).any()) for i in range(20)]
        its_picture = [owner[t].item() in scores[:, t].topk(k).indices.tolist() for t in range(55)]
        assert found["image_to_text"][f"R@{k}"] == pytest.approx(sum(any_of_its_own) / 20)
        assert found["text_to_image"][f"R@{k}"] == pytest.approx(sum(its_picture) / 55)


def test_a_model_that_tells_nothing_apart_is_right_by_chance_only():
    same = F.normalize(torch.ones(20, 4), dim=-1)
    found = figures.retrieval(same, same.repeat(3, 1), torch.arange(20).repeat(3))
    for way in found.values():
        assert way["R@1"] == pytest.approx(1 / 20) and way["R@10"] == pytest.approx(10 / 20)
    right = torch.arange(20)
    assert figures.accuracies(figures.places(torch.zeros(20, 20), right), right)["top1"] == pytest.approx(1 / 20)


def test_the_calibration_error_is_that_of_its_bins_one_by_one():
    logits, right = 3 * torch.randn(300, 4, generator=torch.Generator().manual_seed(0)), classes_of(300, 4)
    found, bins = figures.calibration_error(logits.softmax(1), right)
    sure, first = logits.double().softmax(1).float().double().max(1)
    wanted = 0.0
    for low in range(15):
        inside = [i for i in range(300) if low / 15 < sure[i] <= (low + 1) / 15]
        if inside:
            hits = sum(bool(first[i] == right[i]) for i in inside) / len(inside)
            wanted += len(inside) / 300 * abs(hits - sum(float(sure[i]) for i in inside) / len(inside))
    assert found == pytest.approx(wanted, abs=1e-6) and sum(row["share"] for row in bins) == pytest.approx(1)


def test_who_is_sure_and_right_is_calibrated_and_who_is_sure_and_half_right_is_off_by_half():
    sure = F.one_hot(torch.tensor([0, 1] * 10), 2).float()
    assert figures.calibration_error(sure, torch.tensor([0, 1] * 10))[0] == 0
    assert figures.calibration_error(sure, torch.zeros(20, dtype=torch.int64))[0] == 0.5


def test_the_temperature_has_the_fewest_nats_and_grows_with_the_logits():
    logits = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    right = torch.distributions.Categorical(logits=logits).sample()  # so that these logits are nearly the truth
    best = figures.temperature(4 * logits, right)
    assert 3 < best < 5.5 and figures.temperature(8 * logits, right) == pytest.approx(2 * best, rel=1e-3)
    for other in (best * 0.98, best * 1.02):
        assert figures.nats(4 * logits / best, right) < figures.nats(4 * logits / other, right)


# ---- linear probe


@pytest.mark.parametrize("c", [1e-3, 1.0, 100.0])
def test_the_probe_has_no_slope_left_and_nothing_near_is_better(c):
    x, labels = torch.randn(80, 6, generator=torch.Generator().manual_seed(0)) + 3, classes_of(80, 4)
    found = logistic.logistic(x, labels, 4, c)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    value = logistic.objective(logistic.Probe(weight, bias), x, labels, c)
    for slope in torch.autograd.grad(value, (weight, bias)):
        assert slope.abs().max() < 1e-5
    torch.manual_seed(0)
    for _ in range(5):
        near = logistic.Probe(found.weight + 0.01 * torch.randn(6, 4), found.bias + 0.01 * torch.randn(4))
        assert logistic.objective(near, x, labels, c) > value


def test_the_probe_of_two_classes_is_what_newtons_method_finds():
    x, labels = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).double(), classes_of(50, 2, 1)
    c, w = 0.7, torch.zeros(4, dtype=torch.float64)  # one weight for class 1 against 0, and its bias last
    z = torch.cat((x, torch.ones(50, 1)), dim=1)
    # softmax of two halves the penalty: each class carries half of the difference w, so |weight|^2 = |w|^2 / 2
    penalty = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0]).double()) / (2 * c * 50)
    for _ in range(30):
        p = (z @ w).sigmoid()
        slope = z.T @ (p - labels) / 50 + penalty @ w
        curve = (z.T * (p * (1 - p))) @ z / 50 + penalty
        w = w - torch.linalg.solve(curve, slope)
    found = logistic.logistic(x.float(), labels, 2, c)
    difference = torch.cat((found.weight[:, 1] - found.weight[:, 0], (found.bias[1] - found.bias[0])[None]))
    assert torch.allclose(difference, w, atol=1e-5)


def test_where_the_probe_starts_changes_nothing():
    x, labels = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), classes_of(60, 3)
    start = logistic.Probe(torch.randn(5, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64))
    one, two = logistic.logistic(x, labels, 3, 2.0), logistic.logistic(x, labels, 3, 2.0, start)
    assert torch.allclose(one(x).softmax(1), two(x).softmax(1), atol=1e-5)


@pytest.mark.parametrize("top", [-5.3, 0.0, 2.61, 6.0])
def test_the_sweep_ends_next_to_the_peak(top):
    asked = []
    found = probe.peak(lambda exponent: asked.append(exponent) or (-abs(exponent - top),))
    assert abs(found - top) <= probe.FINEST and len(asked) <= 17 and len(set(asked)) == len(asked)


def test_the_strength_is_the_one_that_serves_the_validation_pictures():
    x = torch.randn(60, 30, generator=torch.Generator().manual_seed(0))
    labels = (x[:, 0] > 0).long()
    held = torch.randn(200, 30, generator=torch.Generator().manual_seed(1))
    right = (held[:, 0] > 0).long()
    fitted, c = probe.fit((x, labels), (held, right), 2)

    def hits(exponent: float) -> int:
        return int((logistic.logistic(x, labels, 2, 10**exponent)(held).argmax(1) == right).sum())

    assert int((logistic.logistic(x, labels, 2, c)(held).argmax(1) == right).sum()) >= max(map(hits, probe.COARSE))
    both = logistic.logistic(torch.cat((x, held)), torch.cat((labels, right)), 2, c)
    assert torch.allclose(fitted(held).softmax(1), both(held).softmax(1), atol=1e-4)  # refitted on all


# ---- few-shot


def test_what_known_pictures_say_is_the_papers_formula(monkeypatch):
    monkeypatch.setattr(fewshot, "CHUNK", 3)
    known = fewshot.Known(unit(12, 5), classes_of(12, 4), 4)
    pictures = unit(7, 5, 1)
    said = known.scores(pictures, 5.5)
    for i in range(7):
        for c in range(4):
            wanted = sum(
                float((-5.5 * (1 - pictures[i] @ v)).exp())
                for v, label in zip(known.vectors, known.labels, strict=True)
                if label == c
            )
            assert float(said[i, c]) == pytest.approx(wanted, abs=1e-5)


def test_the_nearest_known_picture_decides_where_beta_is_large():
    known, pictures = fewshot.Known(unit(30, 6).double(), classes_of(30, 5), 5), unit(50, 6, 1).double()
    first, second = (pictures @ known.vectors.T).topk(2).values.T
    clear = first - second > 0.01  # so that all the others together say less
    nearest = known.labels[(pictures @ known.vectors.T).argmax(1)]
    assert clear.sum() > 30 and torch.equal(known.scores(pictures, 500.0).argmax(1)[clear], nearest[clear])


def test_alpha_and_beta_never_spoil_the_validation_pictures_and_are_0_where_nothing_helps():
    pictures, right = unit(40, 6, 1), classes_of(40, 5)
    texts = torch.randn(40, 5, generator=torch.Generator().manual_seed(2))
    known = fewshot.Known(unit(10, 6), classes_of(10, 5, 3), 5)
    alpha, beta = fewshot.choose(known, texts, pictures, right)
    hits = ((texts + alpha * known.scores(pictures, beta)).argmax(1) == right).sum()
    assert hits >= (texts.argmax(1) == right).sum()
    assert fewshot.choose(known, 100.0 * F.one_hot(right, 5), pictures, right)[0] == 0


def test_draws_are_as_many_of_each_class_as_there_are_and_differ_by_seed():
    labels = torch.tensor([0] * 10 + [1] * 3 + [2])
    chosen = fewshot.draw(labels, 4, 0)
    assert labels[chosen].bincount().tolist() == [4, 3, 1] and len(chosen.unique()) == 8
    assert torch.equal(chosen, fewshot.draw(labels, 4, 0)) and not torch.equal(chosen, fewshot.draw(labels, 4, 1))


# ---- labelled pictures


@pytest.fixture
def pets(tmp_path) -> Path:
    """Ten pictures of each of three classes, in shades of its colour."""
    place = tmp_path / "pets"
    for number, (name, colour) in enumerate(COLOURS.items()):
        (place / name).mkdir(parents=True)
        for i in range(10):
            shade = tuple(min(255, c + 5 * i + number) for c in colour)
            Image.new("RGB", (20, 16 + i), shade).save(place / name / f"{i}.png")
    return place


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(models):
    return encoders.find(models / "clip")


def test_classes_are_sorted_folders_and_what_lies_outside_is_named(pets, capsys):
    Image.new("RGB", (4, 4)).save(pets / "stray.png")
    found, odd = labelled.read([pets])
    assert found.classes == ("deepBlue", "green_grass", "red") and len(found.files) == 30 and odd == 1
    assert "stray.png lies in no class's folder" in capsys.readouterr().err
    for file, label in zip(found.files, found.labels.tolist(), strict=True):
        assert Path(file.name).parent.name == found.classes[label] and Path(file.name).is_absolute()


def test_pictures_deeper_down_belong_to_the_outermost_folder_and_splits_are_no_classes(pets, tmp_path):
    (pets / "red" / "more").mkdir()
    (pets / "red" / "0.png").rename(pets / "red" / "more" / "0.png")
    whole, _ = labelled.read([pets])
    for split in ("train", "Val", "test"):
        shutil.copytree(pets, tmp_path / "split" / split)
    found, _ = labelled.read([tmp_path / "split"])
    assert whole.classes == found.classes and len(found.files) == 90
    assert {s: found.splits.count(s) for s in set(found.splits)} == {"train": 30, "validation": 30, "test": 30}


def test_a_table_says_the_same_as_the_folders(pets, capsys):
    rows = [
        f"{path.relative_to(pets)},{path.parent.name},{'test' if path.stem < '3' else ''}"
        for path in pets.rglob("*.png")
    ]
    table = pets / "labels.csv"
    table.write_text("\n".join(["file,label,split", *rows, "missing.png,red,", "red/1.png,,", "red/2.png,red,dev set"]))
    assert labelled.has_labels(table) and labelled.has_labels(pets)
    found, odd = labelled.read([table])
    same, _ = labelled.read([pets])
    assert found.files == same.files and torch.equal(found.labels, same.labels) and found.splits.count("test") == 9
    assert odd == 3 and "missing.png could not be read" in capsys.readouterr().err


def test_a_division_is_disjoint_whole_and_has_every_class_in_every_part(pets):
    found, _ = labelled.read([pets])
    parts = labelled.divide(found, 0)
    together = torch.cat((parts.train, parts.validation, parts.test))
    assert together.sort().values.tolist() == list(range(30)) and "seed 0" in parts.sentence
    assert [found.labels[rows].bincount().tolist() for rows in (parts.train, parts.validation, parts.test)] == [
        [6] * 3,
        [2] * 3,
        [2] * 3,
    ]
    assert torch.equal(labelled.divide(found, 0).test, parts.test)
    assert not torch.equal(labelled.divide(found, 1).test, parts.test)


@pytest.mark.parametrize(
    ("splits", "counts"),
    [
        (("train", "validation", "test"), (30, 30, 30)),
        (("train", "test"), (24, 6, 30)),
        (("train", "validation"), (24, 6, 30)),
        (("test",), (0, 0, 30)),
    ],
)
def test_what_the_data_says_of_its_splits_is_kept(pets, tmp_path, splits, counts):
    for split in splits:
        shutil.copytree(pets, tmp_path / "split" / split)
    found, _ = labelled.read([tmp_path / "split"])
    parts = labelled.divide(found, 0)
    assert tuple(len(rows) for rows in (parts.train, parts.validation, parts.test)) == counts
    wanted = "validation" if splits[-1] == "validation" else "test"
    assert {found.splits[i] for i in parts.test.tolist()} == {wanted} and "as in the data" in parts.sentence


# ---- features


def test_features_before_the_projection_are_those_that_it_turns_into_the_vectors(models):
    model = encoders.Ours(*load(models / "clip"))
    pictures = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    both = features.Unprojected(model).embed_images(pictures)
    vectors, inputs = both[:, : model.width], both[:, model.width :]
    assert torch.equal(vectors, model.embed_images(pictures)) and inputs.shape == (5, 32)
    again = F.normalize(inputs @ model.network.image.projection.weight.T, dim=-1)
    assert torch.allclose(again, vectors, atol=1e-5)
    assert not model.network.image.projection._forward_pre_hooks


def test_features_of_pictures_and_texts_are_computed_once(pets, model, monkeypatch):
    found, _ = labelled.read([pets])
    vectors, places, errors = features.of_pictures(model, found.files, index.contents, None, "pets")
    texts = features.of_texts(model, ["a cat", "a dog"], None)
    assert places == list(range(30)) and errors == [] and torch.equal(texts, model.embed_texts(["a cat", "a dog"]))
    for i in (0, 17):
        alone = model.embed_images(model.prepare(images.read(found.files[i].name))[None])[0]
        assert torch.allclose(vectors[i], alone, atol=1e-6)
    monkeypatch.setattr(model, "embed_images", None)
    monkeypatch.setattr(model, "embed_texts", None)
    again, _, _ = features.of_pictures(model, found.files, index.contents, None, "pets")
    assert torch.equal(again, vectors) and torch.equal(features.of_texts(model, ["a cat", "a dog"], None), texts)


# ---- the command


def run(capsys, *arguments: object) -> tuple[int, dict, str]:
    status = evaluate.main([*map(str, arguments), "--json", "--device", "cpu"])
    output = capsys.readouterr()
    return status, json.loads(output.out) if output.out else {}, output.err


def test_the_figures_of_the_command_are_those_computed_by_hand(pets, models, model, capsys):
    status, found, _ = run(capsys, pets, "--model", models / "clip", "--template", "a {}", "--parts", "zeroshot")
    data, _ = labelled.read([pets])
    classes = zeroshot.class_embeddings(model, ["deep blue", "green grass", "red"], ["a {}"])
    pictures = torch.stack([model.prepare(images.read(file.name)) for file in data.files])
    first = (model.embed_images(pictures) @ classes.T).argmax(1)
    assert status == 0 and found["zeroshot"]["top1"] == pytest.approx((first == data.labels).double().mean().item())
    assert found["zeroshot"]["pictures"] == 30 and "top5" not in found["zeroshot"]
    assert found["protocol"]["templates"] == ["a {}"] and "3 classes" in found["protocol"]["scores"]
    assert "retrieval" not in found and "probe" not in found


def test_a_class_whose_name_is_no_utf8_is_judged_like_any_other(pets, models, capsys):
    (pets / "red").rename(pets / os.fsdecode(b"r\xe9d"))
    status, found, _ = run(capsys, pets, "--model", models / "clip", "--parts", "zeroshot")
    assert status == 0 and found["zeroshot"]["pictures"] == 30 and found["protocol"]["classes"] == 3


def test_a_table_that_names_a_pipe_or_a_folder_is_not_waited_for(pets, capsys):
    os.mkfifo(pets / "pipe.png")
    rows = [f"{path.relative_to(pets)},{path.parent.name}" for path in pets.rglob("*/*.png")]
    (pets / "labels.csv").write_text("\n".join(["file,label", *rows, "pipe.png,red", "red,red"]))
    found, odd = labelled.read([pets / "labels.csv"])
    assert len(found.files) == 30 and odd == 2
    assert "pipe.png is no file" in capsys.readouterr().err


def test_all_parts_that_the_data_allows_run_by_themselves(pets, models, capsys):
    (pets / "red" / "broken.png").write_bytes(b"no picture")
    status, found, talk = run(capsys, pets, "--model", models / "clip", "--shots", 1, 4, 50, "--draws", 2)
    assert status == 1 and "broken.png" in talk and "50 shots were left out" in talk
    assert {"zeroshot", "calibration", "probe", "fewshot"} < set(found)
    assert found["protocol"]["pictures"] == {"in_all": 30, "train": 18, "validation": 6, "test": 6}
    assert found["probe"]["top1"] == 1 and "32, before the projection" in found["probe"]["features"]
    assert [row["shots"] for row in found["fewshot"]["rows"]] == [1, 4] and len(
        found["fewshot"]["rows"][0]["draws"]
    ) == 2
    assert found["fewshot"]["rows"][1]["draws"][0]["pictures"] == 12
    calibrated = found["calibration"]
    assert calibrated["temperature"] > 0 and calibrated["pictures"] == 6 and 0 <= calibrated["error"] <= 1
    status, again, talk = run(capsys, pets, "--model", models / "clip", "--shots", 1, 4, 50, "--draws", 2)
    assert again == found and status == 1 and "broken.png" in talk  # from the cache, and still named


def test_the_same_model_in_the_same_words_gives_people_the_same_figures(pets, models, tmp_path, capsys):
    plot = tmp_path / "shots.png"
    arguments = [str(pets), "--model", str(models / "clip"), "--shots", "1", "2", "--plot", str(plot)]
    assert evaluate.main(arguments) == 0
    shown = capsys.readouterr().out
    for word in ("zero-shot", "calibration", "linear probe", "Tip-Adapter", "protocol", "drawn by seed 0", "fp32"):
        assert word in shown
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


def test_retrieval_of_the_command_counts_any_caption_of_a_picture(pets, models, model, tmp_path, capsys):
    folder = tmp_path / "captioned"
    folder.mkdir()
    said = {"a": ("a red square", "red"), "b": ("a green square", "green", "grass"), "c": ("blue",)}
    for (stem, captions), colour in zip(said.items(), COLOURS.values(), strict=True):
        Image.new("RGB", (20, 20), colour).save(folder / f"{stem}.png")
        (folder / f"{stem}.txt").write_text("\n".join(captions))
    status, found, _ = run(capsys, folder, "--model", models / "clip")
    pictures = torch.stack([model.prepare(images.read(folder / f"{stem}.png")) for stem in said])
    texts = [text for captions in said.values() for text in captions]
    owner = torch.tensor([0, 0, 1, 1, 1, 2])
    wanted = figures.retrieval(model.embed_images(pictures), model.embed_texts(texts), owner)
    assert status == 0 and found["retrieval"] == {"pictures": 3, "captions": 6, **wanted}
    assert "1 to 3 captions" in found["protocol"]["retrieval"] and "zeroshot" not in found
    _, found, _ = run(capsys, folder, "--model", models / "clip", "--captions", 1)
    assert found["retrieval"]["captions"] == 3


def test_pictures_in_archives_are_retrieved_as_those_in_folders(tmp_path, models, capsys):
    import tarfile

    folder = tmp_path / "captioned"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 20), colour).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"{name}\nthe colour {name}")
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    _, one, _ = run(capsys, folder, "--model", models / "clip")
    _, two, _ = run(capsys, tmp_path / "shard.tar", "--model", models / "clip")
    assert one["retrieval"] == two["retrieval"] and one["retrieval"]["captions"] == 6


def test_names_come_from_a_table_or_a_published_set(pets, models, tmp_path, capsys):
    table = tmp_path / "names.csv"
    table.write_text("label,names\nred,a red thing|scarlet\ngreen_grass,a lawn\ndeepBlue,the sea\nnot there,nothing\n")
    common = [pets, "--model", models / "clip", "--parts", "zeroshot"]
    _, found, _ = run(capsys, *common, "--labels-file", table)
    _, other, _ = run(capsys, *common)
    assert "names.csv" in found["protocol"]["class_names"] and "of the data" in other["protocol"]["class_names"]
    status, _, talk = run(capsys, *common, "--templates", "mnist")
    assert status == 2 and "3 of the 3 classes of the data are not among the names" in talk


def test_a_published_set_brings_sentences_names_and_its_metric(pets, models, tmp_path, capsys):
    for name, other in (("red", "automobile"), ("green_grass", "Bird"), ("deepBlue", "frog")):
        (pets / name).rename(pets / other)
    status, found, _ = run(capsys, pets, "--model", models / "clip", "--parts", "zeroshot", "--templates", "cifar10")
    told = found["protocol"]
    assert status == 0 and len(told["templates"]) == 18 and told["class_names"] == "of --templates cifar10"
    assert told["metric"].endswith("accuracy") and told["classes"] == 3


def test_a_data_set_of_test_pictures_only_is_judged_without_what_learns(pets, models, tmp_path, capsys):
    shutil.copytree(pets, tmp_path / "only" / "test")
    status, found, talk = run(capsys, tmp_path / "only", "--model", models / "clip")
    assert status == 0 and "probe" not in found and "it was left out" in talk
    assert "temperature" not in found["calibration"] and found["zeroshot"]["pictures"] == 30
    status, _, talk = run(capsys, tmp_path / "only", "--model", models / "clip", "--parts", "probe")
    assert status == 2 and "too few" in talk


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no data was given"),
        (["missing"], "missing does not exist"),
        (["PETS", "--template", "a photo"], "has no {}"),
        (["PETS", "--template", "a {}", "--templates", "food101"], "choose one of them"),
        (["PETS", "--templates", "nothing"], "nothing"),
        (["PETS", "--shots", "0"], "--shots 0"),
        (["PETS", "--draws", "0"], "--draws 0 is out of range"),
        (["PETS", "--captions", "0"], "--captions 0"),
        (["PETS", "--plot", "x.gif"], "must end in .png"),
        (["PETS", "--plot", "x.png", "--parts", "zeroshot"], "none are asked for"),
        (["PETS", "--parts", "retrieval"], "needs captioned pictures"),
        (["PETS/red", "--parts", "zeroshot"], "needs labelled pictures"),
        (["EMPTY"], "no labelled and no captioned pictures"),
        (["ONE"], "pictures of 1 classes were found; at least 2"),
    ],
)
def test_wrong_use_is_one_sentence_and_status_2(pets, models, tmp_path, capsys, arguments, sentence):
    (tmp_path / "empty").mkdir()
    shutil.copytree(pets / "red", tmp_path / "one" / "red")
    places = {"PETS": pets, "PETS/red": pets / "red", "EMPTY": tmp_path / "empty", "ONE": tmp_path / "one"}
    status = evaluate.main([*(str(places.get(a, a)) for a in arguments), "--model", str(models / "clip")])
    output = capsys.readouterr()
    assert status == 2 and output.out == "" and sentence in output.err.splitlines()[-1]
