"""Claims about the prompts that come along (as their source has them, none lost), and about names of classes."""

import itertools
import json
import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

from clip import labels, templates
from clip.classify import main
from clip.labels import Label
from multimodal.cli import UserError

# OpenAI's data/prompts.md and notebook: classes and templates of each
PUBLISHED = {
    "imagenet": (1000, 80), "imagenet7": (1000, 7), "imagenet-a": (200, 80), "food101": (101, 1), "cifar10": (10, 18),
    "cifar100": (100, 18), "birdsnap": (500, 1), "sun397": (397, 2), "cars": (196, 8), "aircraft": (100, 2),
    "voc2007": (20, 1), "dtd": (47, 8), "pets": (37, 1), "caltech101": (102, 34), "flowers102": (102, 1), "mnist": (10, 1),
    "fer2013": (7, 6), "stl10": (10, 2), "eurosat": (10, 3), "resisc45": (45, 18), "gtsrb": (43, 3), "kitti": (4, 1),
    "country211": (211, 5), "pcam": (2, 1), "ucf101": (101, 48), "kinetics700": (700, 28), "clevr": (8, 1),
    "hateful-memes": (2, 1), "rendered-sst2": (2, 1),
}  # fmt: skip


def installed(package: str, *parts: str) -> Path:
    return Path(find_spec(package).submodule_search_locations[0]).joinpath(*parts)


def test_every_published_set_is_there_with_its_classes_and_templates_and_one_more_of_our_own():
    assert {*PUBLISHED, "youtube-bb"} == set(templates.names())
    for name, (classes, sentences) in PUBLISHED.items():
        found = templates.find(name)
        assert (len(found.classes), len(found.templates)) == (classes, sentences), name
        assert found.source.startswith("OpenAI, ")
    assert templates.find("youtube-bb").source.startswith("ours") and len(templates.find("youtube-bb").classes) == 23


def test_imagenet_is_what_open_clip_has_too():
    theirs = runpy.run_path(str(installed("open_clip", "zero_shot_metadata.py")))
    eighty, seven = templates.find("imagenet"), templates.find("imagenet7")
    assert [label.names[0] for label in eighty.classes] == list(theirs["IMAGENET_CLASSNAMES"])
    assert eighty.classes == seven.classes
    for found, name in ((eighty, "OPENAI_IMAGENET_TEMPLATES"), (seven, "SIMPLE_IMAGENET_TEMPLATES")):
        assert [text.replace("{}", "{tench}") for text in found.templates] == [fill("{tench}") for fill in theirs[name]]


def test_imagenet_a_and_the_folders_are_those_that_timm_has_too():
    all_of_them = installed("timm", "data", "_info", "imagenet_synsets.txt").read_text().split()
    two_hundred = installed("timm", "data", "_info", "imagenet_a_synsets.txt").read_text().split()
    assert [label.aliases for label in templates.find("imagenet").classes] == [(name,) for name in all_of_them]
    assert [label.aliases for label in templates.find("imagenet-a").classes] == [(name,) for name in two_hundred]
    names = {label.aliases: label.names for label in templates.find("imagenet").classes}
    assert all(names[label.aliases] == label.names for label in templates.find("imagenet-a").classes)


def test_every_template_has_a_place_for_the_class_and_every_class_a_name_and_a_key_of_its_own():
    for found in map(templates.find, templates.names()):
        assert all("{}" in sentence for sentence in found.templates)
        assert all(name.strip() for label in found.classes for name in label.names)
        assert len({label.key for label in found.classes}) == len(found.classes), found.name
        place = labels.finder(found.classes)
        assert [place(label.key) for label in found.classes] == list(range(len(found.classes)))


def test_two_classes_that_the_source_calls_alike_are_two():
    classes = templates.find("imagenet").classes
    twins = [label for label in classes if label.names in (("missile",), ("sunglasses",))]
    assert [label.names[0] for label in twins] == ["missile", "missile", "sunglasses", "sunglasses"]
    assert [label.key for label in twins][:2] == ["missile (n03773504)", "missile (n04008634)"]
    place = labels.finder(classes)
    assert place("missile") is None and classes[place("n04008634")].key == "missile (n04008634)"


def test_what_the_source_says_in_another_way_is_kept_as_it_is():
    assert templates.find("eurosat").classes[0].key == "forest"  # not in the order of the folders' names
    assert templates.find("fer2013").classes[3].names == ("happy", "smiling")
    assert "a origami {}." in templates.find("imagenet7").templates  # no "an": figures were measured so
    assert templates.find("pcam").templates == ("this is a photo of {}",)
    assert templates.find("mnist").templates == ('a photo of the number: "{}".',)


def test_folders_of_eurosat_mean_the_published_classes():
    place, classes = labels.finder(templates.find("eurosat").classes), templates.find("eurosat").classes
    names = {
        folder: classes[place(folder)].key for folder in ("AnnualCrop", "SeaLake", "HerbaceousVegetation", "Forest")
    }
    assert names == {
        "AnnualCrop": "annual crop land", "SeaLake": "lake or sea", "HerbaceousVegetation": "brushland or shrubland",
        "Forest": "forest",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "name"),
    [("Food-101", "food101"), ("ImageNet A", "imagenet-a"), ("PatchCamelyon", "pcam"), ("FGVCAircraft", "aircraft"),
     ("describable_textures", "dtd"), ("SST2", "rendered-sst2"), ("EUROSAT", "eurosat")],
)  # fmt: skip
def test_a_set_is_found_however_its_name_is_written(asked, name):
    assert templates.find(asked).name == name


def test_an_unknown_set_is_a_sentence_with_what_there_is_and_what_is_near():
    with pytest.raises(UserError, match=r"'fod101' is not known.*eurosat.*Did you mean food101\?"):
        templates.find("fod101")


def test_the_licence_of_the_lists_goes_with_them():
    kept = json.loads(templates.FILE.read_text(encoding="utf-8"))["licence"]
    assert kept.startswith("MIT License Copyright (c) 2021 OpenAI") and "WITHOUT WARRANTY" in kept


def test_the_list_is_shown_without_pictures_and_to_programs_as_json(capsys):
    assert main(["--templates", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1 + len(templates.names()) and "the paper's metric" in shown[0]
    row = next(line for line in shown if line.startswith("pets "))
    assert row.split()[1:6] == ["1", "37", "mean", "per", "class"] and row.endswith("OpenAI, data/prompts.md")
    assert main(["--templates", "list", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == templates.names()
    assert lines[0]["templates"] == list(templates.find("imagenet").templates) and len(lines[0]["classes"]) == 1000


# ---- names of classes


@pytest.mark.parametrize(
    ("folder", "said"),
    [("AnnualCrop", "annual crop"), ("hot_dog", "hot dog"), ("001.Black_footed_Albatross", "Black footed Albatross"),
     ("HTMLPages", "html pages"), ("iPhone", "iPhone"), ("McDonald", "McDonald"), ("C++", "C++"), ("  a__b ", "a b"),
     ("3.14", "3.14"), ("ice-cream", "ice-cream"), ("DVD", "DVD"), ("apple+pie", "apple pie"), ("été", "été")],
)  # fmt: skip
def test_a_folder_is_named_as_people_would_say_it(folder, said):
    assert labels.words(folder) == said


def test_a_text_means_the_one_class_that_it_can_mean():
    place = labels.finder(
        [Label("AnnualCrop", ("annual crop land",)), Label("river", ("river", "stream"), aliases=("r_1",))]
    )
    assert [place(text) for text in ("AnnualCrop", "annual_crop", "Annual Crop Land", "Stream", "r_1", "R1")] == [
        0, 0, 0, 1, 1, 1,
    ]  # fmt: skip
    assert place("crop") is None and place("") is None
    both = labels.finder([Label("a", ("crane",)), Label("b", ("crane",))])
    assert both("crane") is None and both("b") == 1


def written(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_gives_several_names_and_own_prompts(tmp_path):
    table = written(
        tmp_path, "classes.csv",
        "names,Label,prompts\ncat | kitten,cat,\n,\"dog, wild\",a photo of a wolf|a {} in the snow\n\n,cat,\ufeffx\n",
    )  # fmt: skip
    assert labels.from_file(table) == [
        Label("cat", ("cat", "kitten"), ("\ufeffx",)),
        Label("dog, wild", ("dog, wild",), ("a photo of a wolf", "a {} in the snow")),
    ]


@pytest.mark.parametrize("wide", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_spreadsheets_are_read(tmp_path, wide, separator):
    rows = [["label", "names"], ["Küche", "kitchen|galley"], ["Bad", ""]]
    table = written(tmp_path, "t.csv", "\r\n".join(separator.join(row) for row in rows).encode(wide))
    assert labels.from_file(table) == [Label("Küche", ("kitchen", "galley")), Label("Bad", ("Bad",))]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.txt", b"cat\n\xff\n", "is not text in UTF-8"),
        ("a.txt", b"\n \n", "no labels were given"),
        ("a.txt", b"cat\ncat\n", "given twice"),
        ("a.csv", b"cat\ndog\n", "has no column label; its columns are cat"),
        ("a.csv", b"label\n", "has no rows"),
        ("a.csv", b"", "has no rows"),
        ("a.csv", b"label,names\ncat,kitten\ndog,puppy,hound\n", "line 3 has 3 cells"),
        ("a.csv", b"label,names\ncat,kitten\n,puppy\n", "line 3 names no label"),
        ("a.csv", b"label\ncat\ndog\ncat\n", "given twice, again in line 4"),
        ("a.csv", b"label\ncat\x00\ndog\n", "it holds zero bytes"),
        ("a.csv", b'label\n"' + b"cat\n" * 50_000, "could not be read as CSV"),
        ("a.csv", b"label,names\nA,crane\nB,Crane\n", "means the same"),
        ("a.csv", b"label,prompts\nA,a big bird|a bird\nB,a bird|a big  bird\n", "means the same"),
    ],
)
def test_a_bad_list_of_classes_is_a_sentence(tmp_path, name, text, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        labels.from_file(written(tmp_path, name, text))
    assert "\n" not in str(error.value)


def test_a_list_that_is_too_long_is_refused_without_reading_it_all(tmp_path):
    path = tmp_path / "many.txt"
    with open(path, "wb") as file:
        file.truncate(labels.MAX_TABLE_BYTES + 1)
    with pytest.raises(UserError, match="larger than 10,000,000 bytes"):
        labels.from_file(path)
    with pytest.raises(UserError, match="at most 100,000 are taken"):
        labels.given([str(i) for i in range(labels.MAX_LABELS + 1)])


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
    for name in ("AnnualCrop", "River", ".git", "hot_dog"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("no class")
    found = labels.from_folder(tmp_path)
    assert found == [
        Label("AnnualCrop", ("annual crop",)), Label("River", ("River",)), Label("hot_dog", ("hot dog",)),
    ]  # fmt: skip
    with pytest.raises(UserError, match="has no folders in it"):
        labels.from_folder(tmp_path / "River")
    with pytest.raises(UserError, match="could not be read"):
        labels.from_folder(tmp_path / "nowhere")
    (tmp_path / "hot dog").mkdir()
    with pytest.raises(UserError, match="'hot_dog' means the same as 'hot dog'"):
        labels.from_folder(tmp_path)


def test_links_that_lead_in_a_circle_or_nowhere_are_no_classes_and_those_to_folders_are(tmp_path):
    (tmp_path / "cat").mkdir()
    for name, to in (("circle", "circle"), ("nowhere", "missing"), ("here", "."), ("up", "../.."), ("dog", "cat")):
        (tmp_path / name).symlink_to(to)
    assert [label.key for label in labels.from_folder(tmp_path)] == ["cat", "dog"]


def test_a_folder_whose_name_is_no_text_is_a_class_too(tmp_path):
    import os

    for name in (b"caf\xe9", b"bar"):
        os.mkdir(os.path.join(os.fsencode(tmp_path), name))
    assert labels.from_folder(tmp_path) == [Label("bar", ("bar",)), Label("caf\udce9", ("caf?",))]
    with pytest.raises(UserError, match="is not text in UTF-8"):
        labels.given(["caf\udce9", "bar"])


def test_several_names_in_several_templates_are_all_prompts_and_own_prompts_replace_them():
    from clip import zeroshot

    found = zeroshot.class_prompts(
        [Label("cat", ("cat", "kitten")), Label("dog", ("dog", "hound"), ("a {} outside", "woof"))],
        ["a {}", "the {} {x}"],
    )
    assert [set(group) for group in found] == [
        {"a cat", "the cat {x}", "a kitten", "the kitten {x}"}, {"a dog outside", "a hound outside", "woof"},
    ]  # fmt: skip
    assert all(len(group) == len(set(group)) for group in found)
    assert list(itertools.chain(*found)) == zeroshot.prompts(
        [Label("cat", ("cat", "kitten")), Label("dog", ("dog", "hound"), ("a {} outside", "woof"))],
        ["a {}", "the {} {x}"],
    )
    with pytest.raises(UserError, match="at most 2,000,000 are read"):
        zeroshot.prompts(labels.given([f"label {i}" for i in range(50_000)]), ["{}"] * 41)
