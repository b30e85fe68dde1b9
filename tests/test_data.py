"""Claims about what comes in: pictures and text."""

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
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from multimodal import images
from multimodal.cli import UserError
from multimodal.data import text, textfiles
from multimodal.data.report import Unread

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


@pytest.mark.parametrize("kind, values, shown", [
    ("16 bits, dark", np.full((4, 4), 200, np.uint16), 1),  # 200 of 65535 is nearly black, as a viewer shows it
    ("16 bits, white", np.full((4, 4), 65535, np.uint16), 255),
    ("32 bits", np.full((4, 4), 200, np.int32), 200),
    ("32 bits, of 16", np.full((4, 4), 32768, np.int32), 128),
    ("negative", np.full((4, 4), -5, np.int32), 0),
    ("floats of 1", np.full((4, 4), 0.5, np.float32), 128),
    ("floats of 255", np.full((4, 4), 100.0, np.float32), 100),
    ("no numbers", np.full((4, 4), np.nan, np.float32), 0),
])  # fmt: skip
def test_deep_pictures_have_the_shades_that_a_viewer_shows(kind, values, shown):
    assert images.read(encoded(Image.fromarray(values), "TIFF")).getpixel((1, 1)) == (shown,) * 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_one_pixel_or_one_line_of_any_kind_of_colour_becomes_a_square(mode, size):
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG", "LAB": "TIFF"}.get(mode, "PNG")
    read = images.read(encoded(Image.new(mode, size, 0), kind), 16)
    assert read.mode == "RGB" and read.size == size
    square = images.square(read, 16)
    assert square.shape == (3, 16, 16) and len(square.flatten(1).unique(dim=1).T) == 1


def test_a_palette_of_colours_and_of_grey_shows_them():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED, *BLUE])
    image.putpixel((0, 0), 2)
    read = images.read(encoded(image))
    assert read.getpixel((0, 0)) == BLUE and read.getpixel((3, 3)) == RED
    grey = Image.linear_gradient("L")
    assert np.array_equal(np.asarray(images.read(encoded(grey)))[..., 1], np.asarray(grey))


def test_of_an_animated_webp_the_first_picture_is_read_with_its_background_white():
    frames = [Image.new("RGBA", (8, 8), (*colour, 255)) for colour in (RED, GREEN)]
    for frame in frames:
        frame.paste((0, 0, 0, 0), (0, 0, 4, 4))
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    read = images.read(data)
    assert read.getpixel((7, 7)) == RED and read.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_photograph_is_decoded_at_a_fraction_and_looks_the_same(orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    large = Image.fromarray(pixels).resize((1200, 900), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(large, "JPEG", exif=exif)
    whole, part = images.read(data), images.read(data, 64)
    assert part.width * 4 == whole.width and part.height * 4 == whole.height  # the largest fraction above 2 * 64
    difference = (images.square(whole, 64).float() - images.square(part, 64).float()).abs()
    assert difference.mean() < 1 and difference.max() < 12
    assert images.read(data, 500).size == whole.size and images.read(encoded(large), 64).size == (1200, 900)


def test_the_bounds_hold_for_what_a_file_announces_however_little_of_it_is_wanted(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    with pytest.raises(images.TooLarge, match="200x200; at most 10,000"):
        images.read(encoded(noise(200), "JPEG"), 8)
    with pytest.raises(images.TooLarge, match="photo 7 is 200x200"):
        images.check(encoded(noise(200), "JPEG"), "photo 7")


def test_several_threads_that_read_leave_the_filters_of_warnings_as_they_were():
    before = list(warnings.filters)
    data = [encoded(noise(32, seed), kind) for seed in range(8) for kind in ("PNG", "JPEG", "GIF")]
    with ThreadPoolExecutor(8) as pool:
        assert all(image.mode == "RGB" for image in pool.map(images.read, data * 4))
    assert warnings.filters == before and not images._muted


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


@pytest.mark.parametrize("label, shown", [
    ("un château «\u00a0à l’œil\u00a0»", "un chateau \" a l'oeil \""), ("Straße, ŁÓDŹ, ığ", "Strasse, LODZ, ig"),
    ("a\ttab\nand a\0 line", "a tab and a line"), ("\u732b and a \u2764\ufe0f", "? and a ?"), ("кот", "???"),
    ("\ud83d", "?"), ("e\u0301te\u0301", "ete"),
])  # fmt: skip
def test_a_label_keeps_the_letters_that_the_font_has_and_shows_a_question_mark_for_others(label, shown):
    assert images.plain(label) == shown
    sheets = [images.grid(torch.zeros(1, 3, 8, 120), labels=[text]).tobytes() for text in (label, shown)]
    assert sheets[0] == sheets[1]


def test_the_font_of_labels_has_all_of_ascii():
    font = ImageFont.load_default(10)
    empty_box = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(chr(code))) != empty_box for code in range(33, 127))


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


def reasons(unread: list[Unread], root: Path) -> dict[str, str]:
    return {str(entry.path.relative_to(root)): entry.reason for entry in unread}


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
