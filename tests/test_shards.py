"""Claims about WebDataset archives: what is found in them, that they are read where they lie, and what harm they cannot do."""

import gc
import io
import json
import os
import random
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal import images
from multimodal.cli import UserError
from multimodal.data import pairs, shards, sources
from multimodal.training import shuffled

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(colour=RED, kind: str = "PNG", side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes | str]], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def captions(source: pairs.Pairs) -> dict[str, list[str]]:
    """{name within the archive: captions}."""
    return {str(pair.path).split(".tar/")[1]: list(pair.captions) for pair in source.pairs}


def red(source: pairs.Pairs, index: int) -> int:
    return int(source.item(index, 4).image[0, 0, 0])


# ---- what is found


def test_a_picture_and_the_text_or_json_of_its_name_are_pairs(tmp_path):
    members = [
        ("000.jpg", encoded(RED, "JPEG")), ("000.txt", "a red house\na house\n"), ("000.cls", "7"),
        ("a/001.png", encoded(BLUE)), ("a/001.json", json.dumps({"key": "001", "caption": "a blue house"})),
        ("./b/001.webp", encoded(BLUE, "WEBP")), ("./b/001.json", '{"caption": null}'), ("./b/001.txt", "another"),
        ("IMG.v2.png", encoded()), ("IMG.v2.txt", "a name with points"), ("._000.jpg", b"what a Mac adds"),
    ]  # fmt: skip
    source, report = pairs.read_pairs([write_tar(tmp_path / "x.tar", members)])
    assert captions(source) == {
        "000.jpg": ["a red house", "a house"], "a/001.png": ["a blue house"], "b/001.webp": ["another"],
        "IMG.v2.png": ["a name with points"],
    }  # fmt: skip
    assert not report.unused and (report.pictures, report.pairs) == (4, 5)
    assert red(source, 0) > 250 and red(source, 2) == 0 and isinstance(source, pairs.PairSource)
    batch = pairs.batch(source, range(5), 6)
    assert batch["image"].shape == (5, 3, 6, 6) and len(set(batch["identity"][:, 0].tolist())) == 4


def test_members_of_a_pair_need_not_lie_together(tmp_path):
    members = [(f"{n}.png", encoded((n, 0, 0))) for n in range(20)] + [(f"{n}.txt", f"number {n}") for n in range(20)]
    random.Random(0).shuffle(members)
    source, report = pairs.read_pairs([write_tar(tmp_path / "x.tar", members)])
    assert not report.unused and len(source) == 20
    for index in range(20):
        assert source.item(index, 4).caption == f"number {red(source, index)}"


def test_an_archive_gives_the_items_of_the_folder_that_it_was_made_of(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(12):
        path = tmp_path / "in" / f"{n:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).save(path)
        path.with_suffix(".txt").write_text(f"caption {n}\nsame")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "in", "in")
    folder, packed = (pairs.read_pairs([tmp_path / name])[0] for name in ("in", "x.tar"))
    order = {str(pair.path.name): i for i, pair in enumerate(packed.pairs)}
    assert len(packed) == len(folder) == 24
    for i, pair in enumerate(folder.pairs):
        for which in range(2):
            one, other = folder.item(2 * i + which, 8), packed.item(2 * order[pair.path.name] + which, 8)
            assert torch.equal(one.image, other.image) and one.caption == other.caption
    held = [{pair.path.name for pair in source.split("held_out").pairs} for source in (folder, packed)]
    assert held[0] == held[1]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_and_long_names_in_any_script_are_read(tmp_path, form):
    long = "/".join(["folder" * 4] * 5) + "/é" if form == tarfile.USTAR_FORMAT else "größe/" * 60 + "дом"
    members = [(f"{long}.png", encoded()), (f"{long}.txt", "a house"), ("b.png", encoded(BLUE)), ("b.txt", "a tree")]
    source, report = pairs.read_pairs([write_tar(tmp_path / "x.tar", members, form)])
    assert captions(source) == {f"{long}.png": ["a house"], "b.png": ["a tree"]} and not report.unused


def test_equal_names_in_different_archives_and_folders_are_different_pairs(tmp_path):
    for shard, colour in (("0", RED), ("1", BLUE)):
        members = [
            ("1.png", encoded(colour)),
            ("1.txt", "a house"),
            ("in/1.png", encoded(colour)),
            ("in/1.txt", "a house"),
        ]
        write_tar(tmp_path / f"{shard}.tar", members)
    source, report = pairs.read_pairs([tmp_path])
    assert len(source) == 4 and not report.unused and [red(source, i) for i in range(4)] == [255, 255, 0, 0]
    identities = pairs.batch(source, range(4), 4)["identity"]
    assert len(set(identities[:, 0].tolist())) == 4 and len(set(identities[:, 1].tolist())) == 1


def test_without_captions_wanted_every_picture_is_found(tmp_path):
    members = [
        ("0.png", encoded()),
        ("1.png", encoded()),
        ("1.txt", b"\xff"),
        ("2.png", encoded()),
        ("2.txt", "a tree"),
    ]
    source, report = pairs.read_pairs([write_tar(tmp_path / "x.tar", members)], captions=False)
    assert captions(source) == {"0.png": [""], "1.png": [""], "2.png": ["a tree"]} and not report.unused


# ---- several archives


def shards_of(folder: Path, count: int, each: int = 3) -> None:
    for shard in range(count):
        members = []
        for n in range(each):
            members += [(f"{n}.png", encoded((shard, n, 0))), (f"{n}.txt", f"{shard} {n}")]
        write_tar(folder / f"shards-{shard:03}.tar", members)


def test_a_folder_a_pattern_and_a_list_of_archives_are_the_same(tmp_path):
    shards_of(tmp_path, 4)
    lists = (
        [tmp_path],
        [tmp_path / "shards-{000..003}.tar"],
        [tmp_path / "shards-00{0,1}.tar", tmp_path / "shards-00{2..3}.tar"],
        [tmp_path / f"shards-{n:03}.tar" for n in (0, 1, 2, 3, 3)],
    )
    for paths in lists:
        source, report = pairs.read_pairs(paths)
        assert not report.unused
        assert [source.item(i, 4).caption for i in range(12)] == [f"{i // 3} {i % 3}" for i in range(12)]


def test_an_archive_that_is_named_twice_is_read_once(tmp_path):
    shards_of(tmp_path / "in", 2)
    (tmp_path / "link.tar").symlink_to(tmp_path / "in" / "shards-001.tar")
    source, report = pairs.read_pairs([tmp_path / "in", tmp_path / "in" / "shards-000.tar", tmp_path / "link.tar"])
    assert len(source) == 6 and report.unused == {"duplicate": 2}


@pytest.mark.parametrize("pattern, names", [
    ("a.tar", ["a.tar"]),
    ("{8..11}", ["8", "9", "10", "11"]),
    ("{08..11}", ["08", "09", "10", "11"]),
    ("s{0..1}-{a,b}.tar", ["s0-a.tar", "s0-b.tar", "s1-a.tar", "s1-b.tar"]),
])  # fmt: skip
def test_braces_stand_for_numbers_and_words(pattern, names):
    assert shards.expand(pattern) == names


def test_a_shard_that_is_missing_is_counted_and_a_pattern_without_any_gets_a_sentence(tmp_path):
    shards_of(tmp_path, 2)
    source, report = pairs.read_pairs([tmp_path / "shards-{000..002}.tar"])
    assert len(source) == 6 and report.unused == {"missing": 1} and report.unread[0].path.name == "shards-002.tar"
    with pytest.raises(UserError, match="none of 7 files is there"):
        pairs.read_pairs([tmp_path / "others-{0..6}.tar"])
    with pytest.raises(UserError, match="more than 100,000 files"):
        pairs.read_pairs([tmp_path / "x-{0..999999}-{0..999999}.tar"])


def test_the_order_of_a_training_is_a_true_shuffle_over_all_archives_and_ranks_share_it(tmp_path):
    shards_of(tmp_path, 8, each=8)
    train, held = sources.captioned((tmp_path,), 0, "everyday")
    both = [pair.captions[0] for source in (train, held) for pair in source.pairs]
    assert len(both) == len(set(both)) == 64
    size = len(train) // 4 * 4
    epoch = shuffled(0, size, len(train), 0)
    parts = [pairs.share(epoch, rank, 2) for rank in range(2)]
    seen = [pairs.batch(train, part, 4)["caption"] for part in parts]
    assert set(seen[0]).isdisjoint(seen[1]) and len(set(seen[0]) | set(seen[1])) == size
    for part in seen:  # every rank draws from nearly every archive at once, from its first batch on
        assert len({caption.split()[0] for caption in part[:16]}) >= 5


# ---- what cannot be used


BAD_MEMBERS = {
    "no caption": ([("x.png", encoded())], "no caption", "no x.txt, and no x.json"),
    "json without a caption": ([("x.png", encoded()), ("x.json", '{"url": "y"}')], "no caption", "no x.json with a caption"),
    "no picture": ([("x.txt", "a house")], "no picture", "without a picture"),
    "blank": ([("x.png", encoded()), ("x.txt", " \n\n")], "empty caption", "no caption"),
    "text as picture": ([("x.png", b"a letter"), ("x.txt", "a house")], "not decodable", "not a picture"),
    "empty picture": ([("x.png", b""), ("x.txt", "a house")], "not decodable", "not a picture"),
    "latin": ([("x.png", encoded()), ("x.txt", "café".encode("cp1252"))], "not text", "UTF-8"),
    "zero": ([("x.png", encoded()), ("x.txt", b"a\0house")], "not text", "NUL"),
    "novel": ([("x.png", encoded()), ("x.txt", "word " * 20_000)], "too large", "100,000 bytes"),
    "long line": ([("x.png", encoded()), ("x.txt", "word " * 3_000)], "too large", "characters"),
    "large json": ([("x.png", encoded()), ("x.json", b" " * 1_000_001)], "too large", "1,000,001 bytes"),
    "no json": ([("x.png", encoded()), ("x.json", "[" * 100_000)], "not a row", "not a JSON object"),
    "two pictures": ([("x.txt", "two"), ("x.png", encoded()), ("x.jpg", encoded())], "duplicate", "second picture"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MEMBERS)
def test_a_bad_member_is_counted_once_with_its_reason_and_those_around_it_are_used(tmp_path, name):
    members, kind, said = BAD_MEMBERS[name]
    before, after = [("a.png", encoded()), ("a.txt", "before")], [("z.png", encoded(BLUE)), ("z.txt", "after")]
    source, report = pairs.read_pairs([write_tar(tmp_path / "t.tar", [*before, *members, *after])])
    found = captions(source)
    assert (found.pop("a.png"), found.pop("z.png")) == (["before"], ["after"])
    assert found == ({"x.png": ["two"]} if kind == "duplicate" else {})
    assert report.unused == {kind: 1}
    assert said in report.unread[0].reason and str(report.unread[0].path).startswith(str(tmp_path / "t.tar/x"))


def test_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    monkeypatch.setattr(images, "MAX_BYTES", 3000)
    members = [("a.png", encoded(side=8)), ("a.txt", "small"), ("b.png", encoded(side=11)), ("b.txt", "many pixels"),
               ("c.bmp", encoded(side=8) + b"?" * 3000), ("c.txt", "many bytes")]  # fmt: skip
    source, report = pairs.read_pairs([write_tar(tmp_path / "x.tar", members)])
    assert captions(source) == {"a.png": ["small"]} and report.unused == {"too large": 2}
    assert "11x11; at most 100" in report.unread[0].reason


def test_a_picture_whose_size_stands_late_in_it_is_found(tmp_path):
    tiff = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(tiff, "TIFF")
    exif = Image.Exif()
    exif[0x010E] = "x" * 40_000
    photo = io.BytesIO()
    Image.new("RGB", (8, 8), RED).save(photo, "JPEG", exif=exif)
    assert min(len(tiff.getvalue()), len(photo.getvalue())) > shards.HEAD
    members = [("a.tif", tiff.getvalue()), ("a.txt", "noise"), ("b.jpg", photo.getvalue()), ("b.txt", "red")]
    source, report = pairs.read_pairs([write_tar(tmp_path / "x.tar", members)])
    assert captions(source) == {"a.tif": ["noise"], "b.jpg": ["red"]} and not report.unused and red(source, 1) > 250


def test_links_devices_and_files_with_holes_are_counted_and_not_followed(tmp_path):
    path = tmp_path / "x.tar"
    (tmp_path / "secret.png").write_bytes(encoded())
    with tarfile.open(path, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.png")
            info.type, info.linkname = kind, str(tmp_path / "secret.png")
            tar.addfile(info)
        holes = tarfile.TarInfo("holes.png")
        holes.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        holes.size = len(encoded())
        tar.addfile(holes, io.BytesIO(encoded()))
        old = tarfile.TarInfo("old.png")
        old.type, old.size = tarfile.GNUTYPE_SPARSE, 512
        header = bytearray(old.tobuf(tarfile.GNU_FORMAT))
        header[482] = 1  # a block that tells of more holes follows
        header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:])
        tar.fileobj.write(bytes(header) + bytes(512) + b"x" * 512)
        tar.offset += 1536
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in (("a.png", encoded()), ("a.txt", b"a house")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source, report = pairs.read_pairs([path])
    assert captions(source) == {"a.png": ["a house"]} and report.unused == {"link or special member": 6}


def test_names_of_members_are_labels_and_lead_nowhere(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(BLUE))
    names = [f"{tmp_path}/a", "../a", "../../../../etc/a", "C:\\a", "a\n\x1b[2Ja"]
    members = [member for name in names for member in ((f"{name}.png", encoded(RED)), (f"{name}.txt", "a house"))]
    before = sorted(tmp_path.rglob("*"))
    source, report = pairs.read_pairs([write_tar(tmp_path / "in" / "x.tar", members)])
    assert len(source) == len(names) and not report.unused
    assert all(red(source, i) == 255 for i in range(len(names))), "a picture beside the archive was read"
    assert all(str(pair.path).startswith(f"{tmp_path}/in/x.tar/") and not pair.path.exists() for pair in source.pairs)
    assert sorted(tmp_path.rglob("*")) == [*before, tmp_path / "in", tmp_path / "in" / "x.tar"]


def damaged(how: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in (("a.png", encoded()), ("a.txt", b"a house"), ("b.png", encoded()), ("b.txt", b"a tree")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = bytearray(file.getvalue())
    third = 2048  # where the header of b.png stands
    assert data[third : third + 5] == b"b.png"

    def sized(size: bytes) -> bytes:
        header = data[third : third + 512]
        header[124:136] = size
        header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:])
        return bytes(data[:third]) + bytes(header) + bytes(data[third + 512 :])

    huge = tarfile.TarInfo("name")
    huge.type, huge.size = tarfile.GNUTYPE_LONGNAME, 8**11 - 1
    return {
        "cut in a picture": bytes(data[: third + 520]),
        "cut in a header": bytes(data[: third + 100]),
        "without an end": bytes(data[:third]),
        "noise": bytes(data[:third]) + b"?" * 2000,
        "negative": sized(b"\xff" * 11 + b"\x00"),
        "minus": sized(b"-0000000001\0"),
        "no number": sized(b"????????????"),
        "huge": sized(b"77777777777\0"),
        "huger": sized(b"\x80" + b"\xff" * 11),
        "long name without end": bytes(data[:third]) + huge.tobuf(tarfile.GNU_FORMAT) + bytes(data[third:]),
    }[how]


@pytest.mark.parametrize("how", [
    "cut in a picture", "cut in a header", "without an end", "noise", "negative", "minus", "no number", "huge", "huger",
    "long name without end",
])  # fmt: skip
def test_of_a_damaged_archive_what_comes_before_the_damage_is_used(tmp_path, how):
    (tmp_path / "x.tar").write_bytes(damaged(how))
    write_tar(tmp_path / "y.tar", [("c.png", encoded()), ("c.txt", "another archive")])
    source, report = pairs.read_pairs([tmp_path])
    assert captions(source) == {"a.png": ["a house"], "c.png": ["another archive"]}
    if how not in ("cut in a header", "without an end"):
        assert report.unused == {"damaged archive": 1} and report.unread[0].path.name == "x.tar"
        assert "cut off" in report.unread[0].reason or "from byte 2,048 on" in report.unread[0].reason


@pytest.mark.parametrize("name, data, said", [
    ("x.tar", b"", "empty"),
    ("x.tar", b"?" * 5000, "no tar archive"),
    ("x.tar", b"\x1f\x8b\x08" + b"?" * 5000, "compressed"),
    ("x.tar.gz", b"\x1f\x8b\x08" + b"?" * 5000, "compressed"),
    ("x.tar", bytes(10240), "empty"),
])  # fmt: skip
def test_what_is_no_archive_gets_a_sentence_and_nothing_left_is_an_error(tmp_path, name, data, said, capsys):
    (tmp_path / name).write_bytes(data)
    for path in (tmp_path / name, tmp_path):
        source, report = pairs.read_pairs([path])
        assert len(source) == 0 and said in report.unread[0].reason and sum(report.unused.values()) == 1
    with pytest.raises(UserError, match="0 captioned pictures were found, 2 are needed"):
        sources.captioned((tmp_path / name,), 0, "everyday")
    assert said in capsys.readouterr().err


def test_whatever_bytes_of_an_archive_are_damaged_it_is_read_to_an_end(tmp_path):
    whole = np.frombuffer(damaged("without an end") * 3, np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = whole.copy()
        headers = rng.integers(0, len(data) // 512, 2) * 512 + rng.integers(0, 512, 2)
        data[headers] = rng.integers(0, 256, 2)
        for place in headers // 512 * 512:  # right sums, so that the damage is believed
            block = bytearray(data[place : place + 512])
            block[148:156] = b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:])
            data[place : place + 512] = np.frombuffer(bytes(block), np.uint8)
        (tmp_path / "x.tar").write_bytes(data.tobytes())
        source, report = pairs.read_pairs([tmp_path / "x.tar"])
        assert len(source) + sum(report.unused.values()) > 0
        try:
            assert all(source.item(index, 4).image.shape == (3, 4, 4) for index in range(len(source)))
        except UserError as error:
            assert "pictures could be read" in str(error)


def test_extensions_of_a_header_are_bounded_and_wrong_ones_are_left_aside():
    read, pax = shards._extension, b"x"
    assert read(b"16 path=a/b.png\n12 size=012\n9 uid=7\n", pax) == {"path": "a/b.png", "size": "012"}
    assert read(b"22 GNU.sparse.major=1\n", pax) == {"sparse": "yes"} and read(b"a/b\0c", b"L") == {"path": "a/b"}
    for data in (
        b"",
        b"?",
        b"9999999 path=a\n",
        b"3 path=a\n",
        b"99 path=a\n",
        b"0 path=a\n",
        b"-5 path=a\n",
        b"12 \n",
    ):
        assert read(data, pax) == {}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_are_read_as_pythons_own_reader_does(form):
    rng = random.Random(0)
    for size in [0, 1, 8**11 - 1, *(rng.randrange(8**11) for _ in range(20)), *([8**11, 2**60] if form == 1 else [])]:
        info = tarfile.TarInfo("/".join(rng.choice(["a", "größe", "x" * 40]) for _ in range(rng.randint(1, 4))))
        info.size, info.mtime = size, rng.randrange(10**9)
        block = info.tobuf(form, "utf-8", "surrogateescape")[-512:]
        there = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        assert shards._header(block) == (there.name, there.type, there.size)
        for place in (0, 130, 156):
            wrong = bytearray(block)
            wrong[place] ^= 1
            with pytest.raises(ValueError):
                shards._header(bytes(wrong))


def test_an_archive_that_changes_while_it_is_used_is_noticed(tmp_path):
    shards_of(tmp_path, 1)
    source, _ = pairs.read_pairs([tmp_path])
    assert source.item(0, 4).caption == "0 0"
    path = tmp_path / "shards-000.tar"
    os.utime(path, ns=(0, 0))
    with pytest.raises(UserError, match=r"shards-000\.tar has changed since it was read through"):
        source.item(0, 4)
    path.unlink()
    with pytest.raises(UserError, match="none of the 3 pictures could be read"):
        source.item(0, 4)


def test_a_picture_that_is_cut_off_within_is_named_and_replaced_by_the_next(tmp_path, capsys):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(file, "JPEG")
    members = [("a.jpg", file.getvalue()[:700]), ("a.txt", "cut"), ("b.png", encoded(BLUE)), ("b.txt", "whole")]
    source, report = pairs.read_pairs([write_tar(tmp_path / "x.tar", members)])
    assert len(source) == 2 and not report.unused
    assert source.item(0, 4).caption == source.item(0, 4).caption == "whole"
    assert capsys.readouterr().err.count("x.tar/a.jpg is damaged or cut off") == 1


def test_what_is_kept_of_a_pair_is_small_and_finding_them_takes_no_more(tmp_path):
    count, picture = 2000, encoded()
    members = [member for n in range(count) for member in ((f"{n:06}.png", picture), (f"{n:06}.txt", f"tree {n}"))]
    path = write_tar(tmp_path / "x.tar", members)
    del members
    pairs.read_pairs([path])  # whatever is kept once, whoever reads
    gc.collect()
    tracemalloc.start()
    try:
        source, _ = pairs.read_pairs([path])
        most = tracemalloc.get_traced_memory()[1]
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(source) == count
    assert kept / count < 140 and (most - kept) < 200_000, (
        f"{kept / count:.0f} bytes a pair, {most - kept:,} while reading"
    )
