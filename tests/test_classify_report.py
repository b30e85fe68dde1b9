"""Claims about what is told of a classification: figures, suspicions that need evidence, a page that runs nothing, and
the confusion matrix as a picture."""

import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from clip import checks, report, templates
from clip.checks import NONE, Tally
from clip.labels import Label, given

LABELS = given("forest river road sea crop field house".split())


def tallied(pairs, count: int = len(LABELS)) -> Tally:
    tally = Tally(count)
    for truth, said in pairs:
        tally.add(truth, said, 1 if truth == said else 2)
    return tally


def drawn(rng: np.random.Generator, order, right: float, pictures: int) -> Tally:
    """A model that names a picture of class i rightly with probability `right`, else by chance; its names are permuted."""
    classes = len(order)
    truths = np.arange(pictures) % classes
    said = np.where(rng.random(pictures) < right, truths, rng.integers(0, classes, pictures))
    return tallied(((int(t), int(order[s])) for t, s in zip(truths, said, strict=True)), classes)


# ---- figures


def test_figures_are_shares_of_pictures_and_the_mean_over_classes():
    tally = Tally(7)
    for truth, said, place in ((0, 0, 1), (0, 0, 1), (0, 1, 2), (1, 2, 6), (2, NONE, 1)):
        tally.add(truth, said, place)
    found = tally.figures()
    assert found["accuracy"] == pytest.approx(2 / 5) and found["top5"] == pytest.approx(4 / 5)
    assert found["mean_per_class"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert tally.summary() == (
        "5 pictures with truth: 40.0 % right, 80.0 % among the first five, 22.2 % as the mean of 3 classes"
    )
    assert tally.mistakes(LABELS) == [(1, "forest", "river"), (1, "river", "road"), (1, "road", "none of these")]


def test_among_the_first_five_of_five_is_no_figure():
    assert set(tallied([(0, 0), (1, 0)], 5).figures()) == {"accuracy", "mean_per_class"}


# ---- the order of classes


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_the_assignment_is_the_best_of_all_permutations(n):
    rng = np.random.default_rng(n)
    for _ in range(10):
        gain = rng.integers(0, 9, (n, n)).astype(float)
        found = checks.assignment(gain)
        assert sorted(found) == list(range(n))
        best = max(sum(gain[i, p[i]] for i in range(n)) for p in itertools.permutations(range(n)))
        assert sum(gain[i, found[i]] for i in range(n)) == pytest.approx(best)


def test_circles_of_a_permutation():
    assert checks.cycles([0, 2, 1, 4, 5, 3]) == [[1, 2], [3, 4, 5]] and checks.cycles([0, 1]) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_swap_a_shift_and_a_shuffle_of_names_are_noticed(seed):
    rng = np.random.default_rng(seed)
    swap = checks.order_of(drawn(rng, [1, 0, 2, 3, 4, 5, 6], 0.8, 210), LABELS)
    assert len(swap) == 1 and "the order of 2 classes" in swap[0]
    assert "'forest' is named 'river', 'river' is named 'forest'" in swap[0]
    for order in (np.roll(np.arange(7), 1), [3, 5, 1, 0, 6, 2, 4]):
        (sentence,) = checks.order_of(drawn(rng, order, 0.7, 210), LABELS)
        assert "the order of 7 classes looks wrong" in sentence and "\n" not in sentence


def test_two_swapped_names_of_a_hundred_are_noticed_though_they_cost_little():
    order = list(range(101))
    order[16], order[17] = 17, 16  # as Food101's cheesecake and cheese plate
    labels = given([f"food {i}" for i in range(101)])
    tally = drawn(np.random.default_rng(0), order, 0.85, 101 * 40)
    assert tally.figures()["accuracy"] > 0.8
    (sentence,) = checks.order_of(tally, labels)
    assert "'food 16' is named 'food 17'" in sentence and "2 classes" in sentence


@pytest.mark.parametrize("right", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("pictures", [7, 70, 700])
def test_a_model_that_is_only_weak_is_not_suspected(right, pictures):
    rng = np.random.default_rng(int(100 * right) + pictures)
    assert [checks.order_of(drawn(rng, range(7), right, pictures), LABELS) for _ in range(20)] == [[]] * 20


def test_many_classes_and_few_pictures_are_not_suspected_of_what_chance_does():
    labels = given([f"class {i}" for i in range(300)])
    rng = np.random.default_rng(0)
    assert checks.order_of(drawn(rng, range(300), 0.0, 600), labels) == []
    assert checks.order_of(drawn(rng, range(300), 0.3, 600), labels) == []


def test_two_classes_that_are_both_named_by_one_are_no_matter_of_order():
    pairs = [(0, 1)] * 30 + [(1, 1)] * 30
    assert checks.order_of(tallied(pairs), LABELS) == []


def test_what_is_named_none_is_not_moved():
    assert checks.order_of(tallied([(0, NONE), (1, NONE)] * 20), LABELS) == []


def test_one_answer_for_everything_is_told():
    (sentence,) = checks.one_answer(tallied([(i % 4, 2) for i in range(24)]), LABELS)
    assert "every picture was named 'road'" in sentence
    assert checks.one_answer(tallied([(2, 2)] * 24), LABELS) == []


# ---- names


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["n01440764", "n01443537"], "2 labels, 'n01440764' being the first, are each as in WordNet"),
        (["0", "1"], "a number"),
        (["AnnualCrop", "river"], "write it as people do, such as 'annual crop'"),
        (["hot_dog", "ice_cream"], "'hot dog'"),
        (["001.Black_footed_Albatross", "owl"], "'Black footed Albatross'"),
    ],
)
def test_names_that_say_little_to_a_model_are_told(names, word):
    (sentence,) = checks.names_of(given(names))
    assert word in sentence and "\n" not in sentence


def test_plain_names_are_not_told():
    assert checks.names_of(given(["cat", "hot dog", "McDonald's", "a 1950s car", "DVD", "7"])) == []
    assert checks.names_of([Label("AnnualCrop", ("annual crop land",)), Label("3", ("three",))]) == []


def test_better_names_that_a_data_set_has_for_its_folders_are_told():
    eurosat = templates.find("eurosat")
    folders = [Label("AnnualCrop", ("annual crop",)), Label("River", ("River",)), Label("elsewhere", ("elsewhere",))]
    (sentence,) = checks.published_names(folders, eurosat)
    assert "for 1 of the labels, such as 'annual crop land' for 'AnnualCrop'" in sentence
    assert checks.published_names(folders[1:], eurosat) == [] == checks.published_names(folders, None)


def test_labels_that_look_alike_to_the_model_are_told():
    torch.manual_seed(0)
    one, two = torch.nn.functional.normalize(torch.randn(2, 16), dim=1)
    near = torch.nn.functional.normalize(one + 0.01 * two, dim=0)
    labels = given(["couch", "dog", "sofa"])
    (sentence,) = checks.alike(torch.stack([one, two, near]), labels)
    assert "'couch' and 'sofa' (0.9999)" in sentence or "'couch' and 'sofa' (1.0000)" in sentence
    assert checks.alike(torch.stack([one, two]), labels[:2]) == []
    (sentence,) = checks.alike(torch.stack([one, near, torch.nn.functional.normalize(one - 0.01 * two, dim=0)]), labels)
    assert "look all alike" in sentence


def test_names_that_the_source_gives_twice_are_told_as_such():
    vectors = torch.eye(3)[[0, 0, 1]]
    twins = [Label("missile (a)", ("missile",)), Label("missile (b)", ("missile",)), Label("dog", ("dog",))]
    assert checks.alike(vectors, twins) == ["the source gives 'missile' to two classes each: the first is taken."]


# ---- the page


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def record(name: str, labels=("cat", "dog"), truth: str | None = None, rank: int = 1) -> dict:
    found = {
        "image": name,
        "predictions": [
            {"label": label, "probability": 0.75 - 0.5 * i, "rank": i + 1} for i, label in enumerate(labels)
        ],
    }
    if truth is not None:
        found["truth"] = {"label": truth, "probability": 0.01, "rank": rank}
    return found


def small(colour="red") -> bytes:
    return report.thumbnail(Image.new("RGB", (400, 300), colour))


def test_the_page_shows_every_picture_with_marks_and_ranks(tmp_path):
    page = report.Report("a photo of {}, a type of food.")
    page.add(record("a.jpg", truth="dog", rank=2), 101, small())
    page.add(record("b.jpg", truth="cow", rank=90), 101, small())
    page.add({"image": "c.jpg", "error": "c.jpg is empty (0 bytes)."}, 101, None)
    page.add(record("d.jpg") | {"none": True}, 101, small())
    page.write(tmp_path / "r.html", ["101 labels by a model."], ["the order looks wrong"])
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    words = " ".join(" ".join(Page(text).words).split())
    assert "ranked 2 out of 101 labels" in words and "ranked 90 out of 101 labels" in words
    assert words.count("✓") == 2 and words.count("✗") == 4 - 1  # b's truth is added below what was said
    assert "a photo of cat , a type of food." in words and "75.0 %" in words
    assert "c.jpg is empty (0 bytes)." in words and "none of these" in words and "the order looks wrong" in words
    assert "101 labels by a model." in words


def test_the_page_holds_all_it_needs_runs_nothing_and_escapes_what_strangers_wrote(tmp_path):
    nasty = "<script>alert(1)</script>\"'&\n\x1b[31m\udcff"
    page = report.Report(f"{{}} {nasty}")
    page.add(record(nasty, (nasty, "dog"), truth=nasty), 2, small())
    page.add({"image": nasty, "error": nasty}, 2, None)
    tally = Tally(2)
    for pair in ((0, 1), (1, 0), (0, 0)):
        tally.add(*pair, 1)
    page.write(tmp_path / "r.html", [nasty], [nasty], tally, [Label(nasty, ("x",)), Label("dog", ("dog",))])
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    found = Page(text)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "a"}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:image/").startswith("data:image/"), tag
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    assert re.search(r"default-src 'none'; img-src data:; style-src 'unsafe-inline'", text)
    assert any("<script>alert(1)</script>\"'&??[31m?" in word for word in found.words)


def test_a_sentence_that_names_the_class_twice_is_shown_so(tmp_path):
    page = report.Report("a {} is a {}")
    page.add(record("a.jpg"), 2, small())
    page.write(tmp_path / "r.html", [], [])
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "a cat is a cat" in re.sub(r"</?b>", "", text) and "{}" not in text.split("<main>")[1]


def test_thumbnails_are_small_pictures_of_the_whole():
    kept = Image.open(io.BytesIO(small("blue")))
    assert kept.format == "JPEG" and kept.size == (192, 144) and len(small()) < 2000
    assert kept.getpixel((5, 5))[2] > 200


def test_a_page_of_very_many_pictures_shows_the_first_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "SHOWN", 3)
    page = report.Report("{}")
    for i in range(5):
        page.add(record(f"{i}.jpg"), 2, small())
    page.write(tmp_path / "r.html", [], [])
    text = (tmp_path / "r.html").read_text()
    assert text.count("<article") == 3 and "The first 3 of them are shown." in text and "5 pictures classified" in text


# ---- the confusion matrix


def ink(picture: Image.Image) -> np.ndarray:
    return 255 - np.asarray(picture.convert("L"), int)


def test_the_matrix_is_dark_where_the_pictures_are():
    right = report.confusion(tallied([(i, i) for i in range(7)] * 3), LABELS)
    wrong = report.confusion(tallied([(i, 0) for i in range(7)] * 3), LABELS)
    side = min(34, report.SIDE // 7)
    edge = next(x for x in range(400) if np.asarray(right)[-30, x].tolist() == [228, 231, 236])

    def cell(sheet: Image.Image, row: int, column: int) -> float:
        y, x = edge + row * side, edge + column * side
        return ink(sheet)[y + 4 : y + 9, x + 4 : x + 9].mean()

    assert all(cell(right, i, i) > 100 > 10 > cell(right, i, (i + 1) % 7) for i in range(7))
    assert all(cell(wrong, i, 0) > 100 for i in range(7)) and all(cell(wrong, i, i) < 10 for i in range(1, 7))


def test_what_was_named_none_has_a_column_of_its_own():
    without = report.confusion(tallied([(0, 0), (1, 1)]), LABELS)
    with_it = report.confusion(tallied([(0, 0), (1, NONE)]), LABELS)
    assert with_it.width > without.width


@pytest.mark.parametrize("count", [1, 2, 30, 121, 500, 1400])
def test_the_matrix_of_any_number_of_classes_has_a_bounded_size(count):
    labels = given([f"a class with a name of some length, number {i}" for i in range(count)])
    picture = report.confusion(tallied([(i, (i + 1) % count) for i in range(count)], count), labels)
    assert max(picture.size) < report.SIDE + 600 and ink(picture).max() > 100


def test_of_many_classes_only_those_that_occur_are_drawn_and_too_many_are_not(tmp_path):
    labels = given([f"class {i}" for i in range(5000)])
    picture = report.confusion(tallied([(4000, 4000), (3, 4999)], 5000), labels)
    assert max(picture.size) < 400
    many = tallied([(i, i) for i in range(1401)], 5000)
    assert report.confusion(many, labels) is None and not report.write_confusion(tmp_path / "m.png", many, labels)
    assert list(tmp_path.iterdir()) == []


def test_names_in_any_script_and_nasty_ones_are_drawn(tmp_path):
    labels = given(["кошка", "犬", "a\x1b[31m\nb", "é" * 400])
    assert report.write_confusion(tmp_path / "m.png", tallied([(i, i) for i in range(4)], 4), labels)
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
