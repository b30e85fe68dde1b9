"""Claims about `clip.search`: what is found is exact, nothing is embedded twice or lost, and every wrong is a sentence."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from clip import encoder as encoders
from clip import index
from clip.encoder import Encoder
from clip.nearest import best, groups
from clip.page import page
from clip.search import HIDDEN, main
from multimodal import images
from multimodal.cli import UserError

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "grey": (128, 128, 128),
}


class Eye(Encoder):
    """Sees the mean colour of a picture and the colours named in a text; counts what it is shown."""

    size, context, width, scale, bias, scores = 4, 8, 4, 10.0, 0.0, "softmax"

    def __init__(self, name: str = "eye", stop_after: int | None = None):
        self.name, self.stop_after, self.shown = name, stop_after, 0

    @property
    def digest(self) -> str:
        return f"{self.name}0123"

    def prepare(self, picture):
        return images.square(picture, self.size)

    def embed_images(self, pictures):
        self.shown += len(pictures)
        if self.stop_after is not None and self.shown > self.stop_after:
            raise KeyboardInterrupt
        colours = images.to_float(pictures).mean((2, 3))
        return F.normalize(torch.cat((colours, torch.full((len(colours), 1), 0.1)), dim=1), dim=-1)

    def embed_texts(self, texts: Sequence[str]):
        known = {name: [*(c / 255 for c in colour), 0.1] for name, colour in COLOURS.items()}
        sums = [
            sum((torch.tensor(known[w]) for w in text.split() if w in known), torch.full((4,), 1e-3)) for text in texts
        ]
        return F.normalize(torch.stack(sums), dim=-1)

    def too_long(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) > self.context for text in texts)


@pytest.fixture
def eye(monkeypatch) -> Eye:
    """The model that every command of the test gets."""
    seen = Eye()
    monkeypatch.setattr(encoders, "find", lambda *asked: seen)
    return seen


@pytest.fixture
def folder(tmp_path) -> Path:
    """A picture of each colour, two of them deeper down, and files that are nobody's business."""
    place = tmp_path / "pictures"
    (place / "deep" / "er").mkdir(parents=True)
    where = {"red": ".", "green": "deep", "blue": "deep/er", "yellow": ".", "grey": "deep"}
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 6), colour).save(place / where[name] / f"{name}.png")
    (place / ".hidden.png").write_bytes(b"")
    (place / "notes.txt").write_text("nothing to see")
    return place


def search(capsys, *arguments: object) -> tuple[int, list[dict], str]:
    status = main([*map(str, arguments), "--json", "--device", "cpu"])
    output = capsys.readouterr()
    return status, [json.loads(line) for line in output.out.splitlines()], output.err


def names(found: list[dict]) -> list[str]:
    return [Path(line["image"]).stem for line in found]


def the_index(folder: Path, eye: Eye) -> index.Index:
    return index.read(folder / HIDDEN / f"{eye.digest}.safetensors", eye.digest)


# ---- what is found


def test_every_picture_has_the_vector_it_has_alone_in_the_order_of_the_names(folder, eye, capsys):
    status, (record,), _ = search(capsys, folder)
    assert status == 0 and record["pictures"] == record["new"] == 5
    found = the_index(folder, eye)
    listed = [found.entry(i)["name"] for i in range(5)]
    assert listed == sorted(listed) == ["deep/er/blue.png", "deep/green.png", "deep/grey.png", "red.png", "yellow.png"]
    for name, vector in zip(listed, found.vectors, strict=True):
        alone = eye.embed_images(eye.prepare(images.read(folder / name))[None])[0]
        assert torch.equal(vector, alone)
    with safe_open(found.path, "pt") as file:  # the file is what its format says, to others too
        assert set(file.keys()) == {"vectors", "lines", "ends"} and file.metadata()["model"] == "eye"


def test_results_are_those_of_the_plain_product_with_ranks_and_n(folder, eye, capsys):
    _, found, talk = search(capsys, folder, "--text", "red", "--n", 3)
    known = the_index(folder, eye)
    scores = known.vectors @ eye.embed_texts(["red"])[0]
    order = scores.argsort(descending=True)[:3].tolist()
    assert [line["image"] for line in found] == [str(folder / known.entry(i)["name"]) for i in order]
    assert [line["score"] for line in found] == pytest.approx(scores[order].tolist(), abs=1e-6)
    assert [line["rank"] for line in found] == [1, 2, 3] and names(found)[0] == "red" and "5 new" in talk


def test_texts_and_pictures_are_added_and_taken_away_with_their_weights(folder, eye, capsys):
    green, blue = folder / "deep" / "green.png", folder / "deep" / "er" / "blue.png"
    _, found, _ = search(capsys, folder, "--image", green)
    assert names(found)[0] == "green" and found[0]["score"] == pytest.approx(1, abs=1e-6)
    _, found, talk = search(capsys, folder, "--text", "red", "--image", green)
    assert names(found)[0] == "yellow" and f'"red" + picture {green}' in talk
    _, found, talk = search(capsys, folder, "--text", "yellow", "--minus", "red", "--minus", f"0.5:{blue}")
    assert names(found)[0] == "green" and names(found)[-1] in ("red", "blue") and f"- 0.5 x picture {blue}" in talk
    _, found, _ = search(capsys, folder, "--text", "3:red", "--text", "blue")
    vector = F.normalize(3 * eye.embed_texts(["red"])[0] + eye.embed_texts(["blue"])[0], dim=0)
    wanted = (the_index(folder, eye).vectors @ vector).sort(descending=True).values
    assert [line["score"] for line in found] == pytest.approx(wanted.tolist(), abs=1e-5)


def test_people_get_a_line_a_picture_that_is_safe_to_print(folder, eye, capsys):
    (folder / "red.png").rename(folder / "a\nb\x1b[31m.png")
    assert main([str(folder), "--text", "red", "--n", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f" 1.000  {folder}/a?b?[31m.png" and second.endswith("yellow.png")


def test_names_that_are_no_utf8_are_found_and_printed(folder, eye, capsysbinary):
    strange = os.fsencode(folder) + b"/caf\xe9.png"
    shutil.copy(folder / "red.png", strange)
    assert main([str(folder), "--text", "red", "--json", "--n", "1", "--html", str(folder / "found.html")]) == 0
    assert b"caf%E9.png" in (folder / "found.html").read_bytes()
    assert main([str(folder), "--text", "red", "--json", "--n", "2"]) == 0
    assert b"udce9" in capsysbinary.readouterr().out


def test_best_is_a_full_sort_with_the_lower_row_first_among_equals():
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(500, 8), dim=-1)
    vectors[77] = vectors[300]
    scores, rows = best(vectors, vectors[300], 500)
    wanted = (vectors @ vectors[300]).sort(descending=True, stable=True)
    assert torch.equal(rows, wanted.indices) and torch.equal(scores, wanted.values) and rows[:2].tolist() == [77, 300]
    assert best(vectors, vectors[0], 3)[1].tolist() == best(vectors, vectors[0], 500)[1][:3].tolist()
    assert len(best(vectors[:2], vectors[0], 10)[0]) == 2


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("block", [7, 64, 1000])
def test_groups_are_the_transitive_closure_of_all_close_pairs(threshold, block):
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(150, 6), dim=-1)
    vectors[140] = vectors[3]
    owner = list(range(150))  # brute force: every pair, one after the other
    for i in range(150):
        for j in range(i):
            if float(vectors[i] @ vectors[j]) >= threshold:
                low, high = sorted((owner[i], owner[j]))
                owner = [low if o == high else o for o in owner]
    wanted = [[i for i in range(150) if owner[i] == o] for o in sorted(set(owner))]
    assert groups(vectors, threshold, block) == [group for group in wanted if len(group) > 1]


def test_groups_of_many_equal_rows_are_one(monkeypatch):
    monkeypatch.setattr("clip.nearest.PAIRS", 1000)
    vectors = F.normalize(torch.ones(300, 4), dim=-1)
    assert groups(vectors, 1.0, 64) == [list(range(300))]


def test_duplicates_are_groups_with_the_largest_file_first(folder, eye, capsys):
    Image.new("RGB", (80, 60), COLOURS["red"]).save(folder / "deep" / "large.png")
    Image.new("RGB", (8, 6), (250, 5, 0)).save(folder / "nearly.png")
    status, (group,), talk = search(capsys, folder, "--duplicates", 0.99)
    assert (
        status == 0
        and names(group["images"])[0] == "large"
        and set(names(group["images"])) == {"large", "red", "nearly"}
    )
    assert group["group"] == 1 and group["images"][0]["score"] == 1 and "1 groups, 2 pictures" in talk
    _, found, _ = search(capsys, folder, "--duplicates", 1)
    assert [set(names(line["images"])) for line in found] == [{"large", "red"}]
    assert main([str(folder), "--duplicates", "0.99"]) == 0
    assert capsys.readouterr().out.count("\n") == 3


# ---- the page


def test_the_page_needs_nothing_else_and_runs_nothing_that_a_name_says(folder, eye, tmp_path, capsys):
    evil = '"><script>alert(1)<'
    shutil.copy(folder / "red.png", folder / f"{evil}.png")
    out = tmp_path / "new" / "found.html"
    assert main([str(folder), "--text", "red <b>", "--html", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = out.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 6 and "http" not in text.replace("http-equiv", "")
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;" in text and "red &lt;b&gt;" in text
    assert folder.joinpath("red.png").as_uri() in text and "default-src 'none'" in text


def test_a_picture_that_is_gone_leaves_its_place_with_a_sentence(tmp_path):
    text = page("found", [("", [(tmp_path / "gone.png", "gone.png", "0.5")])])
    assert "does not exist" in text and "<img" not in text


def test_a_link_that_leads_in_a_circle_has_its_place_on_a_page_too(tmp_path):
    (tmp_path / "a.png").symlink_to("a.png")
    text = page("found", [("", [(tmp_path / "a.png", "a.png", "0.5")])])
    assert "symbolic links" in text and "<img" not in text


def test_duplicates_make_a_page_with_a_heading_for_each_group(folder, eye, capsys):
    shutil.copy(folder / "red.png", folder / "again.png")
    assert main([str(folder), "--duplicates", "0.999", "--html", str(folder / "alike.html")]) == 0
    assert "<h2>2 pictures</h2>" in (folder / "alike.html").read_text(encoding="utf-8")


# ---- the index follows the folder


def test_what_is_known_is_never_embedded_again(folder, eye, capsys):
    search(capsys, folder)
    assert eye.shown == 5
    before = (folder / HIDDEN / f"{eye.digest}.safetensors").stat()
    _, (record,), talk = search(capsys, folder)
    assert eye.shown == 5 and record["new"] == 0 and talk == ""
    after = (folder / HIDDEN / f"{eye.digest}.safetensors").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)  # nothing was written either


def test_new_changed_moved_touched_copied_and_deleted_pictures_are_noticed(folder, eye, capsys):
    search(capsys, folder)
    (folder / "red.png").rename(folder / "deep" / "moved.png")  # known by its content
    os.utime(folder / "yellow.png", (1, 1))  # another time, the same bytes
    Image.new("RGB", (8, 6), COLOURS["blue"]).save(folder / "deep" / "green.png")  # changed
    (folder / "deep" / "grey.png").unlink()
    shutil.copy(folder / "deep" / "er" / "blue.png", folder / "copy.png")
    Image.new("RGB", (8, 6), (200, 0, 200)).save(folder / "new.png")
    _, (record,), talk = search(capsys, folder)
    counts = {kind: record[kind] for kind in ("new", "changed", "moved", "deleted", "pictures")}
    # green.png now has blue.png's colour, and the same bytes: neither it nor the copy needs the model
    assert counts == {"new": 2, "changed": 1, "moved": 1, "deleted": 1, "pictures": 6}
    assert eye.shown == 5 + 1 and "2 new, 1 changed, 1 moved, 1 deleted" in talk
    _, found, _ = search(capsys, folder, "--text", "blue", "--n", 4)
    assert set(names(found)[:3]) == {"blue", "green", "copy"} and "grey" not in names(found)
    assert names(search(capsys, folder, "--text", "red")[1])[0] == "moved"


def test_a_folder_that_is_moved_with_its_index_needs_nothing(folder, eye, tmp_path, capsys):
    search(capsys, folder)
    folder.rename(tmp_path / "elsewhere")
    _, found, _ = search(capsys, tmp_path / "elsewhere", "--text", "blue", "--n", 1)
    assert eye.shown == 5 and found[0]["image"] == str(tmp_path / "elsewhere" / "deep" / "er" / "blue.png")


def test_interrupted_it_keeps_what_was_done_and_goes_on_from_there(folder, eye, monkeypatch, capsys):
    monkeypatch.setattr(index, "BATCH", 2)
    eye.stop_after = 4
    assert main([str(folder)]) == 1
    assert "interrupted" in capsys.readouterr().err
    assert len(the_index(folder, eye)) == 4
    eye.stop_after, eye.shown = None, 0
    _, (record,), _ = search(capsys, folder)
    assert eye.shown == 1 and record["pictures"] == 5


def test_what_an_interrupted_update_did_not_reach_stays_known(folder, eye, capsys):
    search(capsys, folder)
    (folder / "red.png").rename(folder / "moved.png")
    (folder / "deep" / "grey.png").rename(folder / "deep" / "er" / "moved.png")
    Image.new("RGB", (8, 6), (200, 0, 200)).save(folder / "new.png")
    eye.stop_after = 5
    assert main([str(folder)]) == 1
    assert "interrupted" in capsys.readouterr().err
    eye.stop_after, eye.shown = None, 0
    _, (record,), _ = search(capsys, folder)
    assert eye.shown == 1 and record["pictures"] == 6


def killed_here(update) -> None:
    raise MemoryError


def test_killed_it_loses_only_the_part_that_grew(folder, eye, monkeypatch, capsys):
    monkeypatch.setattr(index, "BATCH", 2)
    monkeypatch.setattr(index, "PART", 2)
    with monkeypatch.context() as killed:
        killed.setattr(index._Update, "_write", killed_here)
        assert main([str(folder)]) == 1
    place = folder / HIDDEN
    assert len(list(place.glob("*.part-*"))) == 3 and not (place / f"{eye.digest}.safetensors").exists()
    (place / f".{eye.digest}.safetensors.99.part").write_bytes(b"half of a file that was being written")
    eye.shown = 0
    _, (record,), _ = search(capsys, folder)
    assert eye.shown == 0 and record["pictures"] == record["new"] == 5
    assert sorted(p.suffix for p in place.iterdir()) == [".lock", ".safetensors"]


def test_unreadable_pictures_are_named_once_and_tried_again_when_they_change(folder, eye, monkeypatch, capsys):
    broken = folder / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    (folder / "empty.jpg").write_bytes(b"")
    status, (record,), talk = search(capsys, folder)
    assert status == 1 and record["pictures"] == 5 and "broken.png" in talk and "empty.jpg is empty" in talk
    assert [Path(line["image"]).name for line in record["unreadable"]] == ["broken.png", "empty.jpg"]
    read, contents = [], index.contents
    monkeypatch.setattr(index, "contents", lambda path: read.append(path) or contents(path))
    status, (record,), talk = search(capsys, folder)
    assert status == 0 and read == [] and record["unreadable"] == [] and "2 that could not be read before" in talk
    Image.new("RGB", (8, 6), (1, 2, 3)).save(broken)
    status, (record,), _ = search(capsys, folder)
    assert status == 0 and record["pictures"] == 6 and [Path(path).name for path in read] == ["broken.png"]


def test_a_picture_that_the_model_cannot_prepare_is_a_sentence_and_the_others_are_found(
    folder, eye, monkeypatch, capsys
):
    prepare = eye.prepare

    def picky(picture):
        if picture.width > 100:
            raise ValueError("it is too long and thin")
        return prepare(picture)

    monkeypatch.setattr(eye, "prepare", picky)
    Image.new("RGB", (3000, 1)).save(folder / "thin.png")
    status, (record,), talk = search(capsys, folder)
    assert status == 1 and record["pictures"] == 5
    assert "not searched: thin.png could not be used: it is too long and thin." in talk
    status, found, talk = search(capsys, folder, "--image", folder / "thin.png")
    assert status == 2 and not found and "thin.png could not be used: it is too long and thin." in talk


def test_a_folder_of_unreadable_pictures_only_finds_nothing_and_says_so(tmp_path, eye, capsys):
    (tmp_path / "a.png").write_bytes(b"no picture")
    status, found, talk = search(capsys, tmp_path, "--text", "red")
    assert status == 1 and found == [] and "a.png is not a picture" in talk


def test_what_lies_in_a_closed_folder_is_kept(folder, eye, monkeypatch, capsys):
    search(capsys, folder)
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    status, found, talk = search(capsys, folder, "--text", "green", "--n", 1)
    assert status == 1 and names(found) == ["green"] and talk.count("\n") == 1
    assert "deep could not be read (Permission denied)" in talk
    monkeypatch.undo()
    assert len(the_index(folder, eye)) == 5 and eye.shown == 5


def test_a_folder_that_may_not_be_read_is_one_sentence(folder, eye, monkeypatch, capsys):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    assert main([str(folder), "--text", "red"]) == 2
    assert capsys.readouterr().err == f"clip.search: {folder} could not be read: Permission denied.\n"


def test_links_that_lead_nowhere_or_in_circles_are_passed_by(folder, eye, capsys):
    (folder / "nowhere.png").symlink_to(folder / "missing.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "deep" / "up").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    status, (record,), _ = search(capsys, folder)
    assert status == 0 and record["pictures"] == 5


def test_two_updates_at_once_are_one_and_a_sentence(folder, eye, capsys):
    (folder / HIDDEN).mkdir()
    with index._alone(folder / HIDDEN / f"{eye.digest}.safetensors"):
        assert main([str(folder)]) == 2
    assert "another process is updating the index" in capsys.readouterr().err


# ---- models and places


def test_another_model_gets_another_index_and_both_stay(folder, eye, monkeypatch, capsys):
    search(capsys, folder)
    monkeypatch.setattr(encoders, "find", lambda *asked: Eye("ear"))
    status, (record,), talk = search(capsys, folder)
    assert status == 0 and record["new"] == 5 and "is of another model (eye eye0123); ear ear0123 gets its own." in talk
    assert len(list((folder / HIDDEN).glob("*.safetensors"))) == 2
    monkeypatch.setattr(encoders, "find", lambda *asked: eye)
    search(capsys, folder)
    assert eye.shown == 5


def test_the_vectors_may_lie_elsewhere_and_belong_to_their_folder(folder, eye, tmp_path, capsys):
    place = tmp_path / "vectors"
    _, found, _ = search(capsys, folder, "--index", place, "--text", "grey", "--n", 1)
    assert names(found) == ["grey"] and not (folder / HIDDEN).exists()
    assert names(search(capsys, folder, "--index", place, "--text", "grey", "--n", 1, "--no-update")[1]) == ["grey"]
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert main([str(other), "--index", str(place)]) == 2
    assert f"is the index of {folder}, not of {other}" in capsys.readouterr().err
    assert main([str(folder / "deep"), "--index", str(place), "--text", "red", "--no-update"]) == 2
    assert "is the index of" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told_with_the_way_out(folder, eye, capsys):
    (folder / HIDDEN).write_text("a file where the folder should be")
    assert main([str(folder)]) == 2
    assert "another folder by --index PATH" in capsys.readouterr().err


def test_without_an_update_only_what_is_known_is_searched(folder, eye, capsys):
    assert main([str(folder), "--text", "red", "--no-update"]) == 2
    assert "has no index yet" in capsys.readouterr().err
    search(capsys, folder)
    Image.new("RGB", (8, 6), COLOURS["red"]).save(folder / "new.png")
    _, found, _ = search(capsys, folder, "--text", "red", "--no-update")
    assert len(found) == 5 and eye.shown == 5


def test_a_real_model_searches_from_the_command_line(folder, models, capsys):
    _, found, _ = search(capsys, folder, "--image", folder / "red.png", "--model", models / "clip")
    assert found[0]["image"] == str(folder / "red.png") and found[0]["score"] == pytest.approx(1, abs=0.02)


# ---- what is wrong


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--text", ""], "--text '' says nothing"),
        (["--text", "  "], "says nothing"),
        (["--text", "0:red"], "a weight above 0"),
        (["--minus", ""], "--minus '' says nothing"),
        (["--image", "missing.png"], "missing.png does not exist"),
        (["--text", "red", "--minus", "red"], "cancel each other"),
        (["--text", "red", "--n", "0"], "--n 0 is out of range: 1 to 10,000"),
        (["--text", "red", "--n", "10001"], "--n 10001 is out of range"),
        (["--n", "3"], "nothing is searched for"),
        (["--html", "x.html"], "nothing is searched for"),
        (["--duplicates", "0"], "above 0 and at most 1"),
        (["--duplicates", "nan"], "above 0 and at most 1"),
        (["--duplicates", "0.9", "--text", "red"], "leave --text"),
    ],
)
def test_wrong_questions_are_one_sentence_before_any_work(folder, eye, capsys, arguments, sentence):
    assert main([str(folder), *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and sentence in output.err
    assert not (folder / HIDDEN).exists()


def test_missing_and_empty_folders_are_one_sentence(folder, eye, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for path, sentence in (
        (tmp_path / "missing", "missing does not exist: give a folder"),
        (folder / "red.png", "red.png is a file: give a folder"),
        (tmp_path / "empty", "empty holds no pictures (.avif"),
    ):
        assert main([str(path), "--text", "red"]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "empty" / HIDDEN).exists()


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def no_header(path: Path) -> None:
    path.write_bytes(b"{}")


def other_version(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version": "1"', b'"version": "9"'))


def other_kind(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"clip.index"', b'"clip.thing"'))


def no_line(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'{"name": "deep/er', b'["name", "deep/er'))


def outside(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"deep/er/blue.png"', b'"../../etc/bb.png"'))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut_off, "is damaged"),
        (no_header, "is damaged"),
        (other_version, "is of version '9', and '1' is read: delete it"),
        (other_kind, "is no index of pictures"),
        (no_line, "is damaged (a line is not what an index holds)"),
        (outside, "names '../../etc/bb.png', which is not in"),
    ],
)
def test_a_damaged_or_foreign_index_is_one_sentence(folder, eye, capsys, damage, sentence):
    search(capsys, folder)
    damage(folder / HIDDEN / f"{eye.digest}.safetensors")
    assert main([str(folder), "--text", "blue", "--no-update"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and sentence in output.err and output.err.count("\n") == 1


def test_an_index_of_another_digest_or_with_other_tensors_is_refused(folder, eye, capsys):
    search(capsys, folder)
    path = folder / HIDDEN / f"{eye.digest}.safetensors"
    with pytest.raises(UserError, match="is of the model eye"):
        index.read(path, "another")
    from safetensors.torch import save_file

    about = {"kind": index.KIND, "version": index.VERSION, "digest": eye.digest}
    none = {"lines": torch.zeros(0, dtype=torch.uint8), "ends": torch.zeros(0, dtype=torch.int64)}
    save_file({"vectors": torch.zeros(2, 3), **none}, path, about)
    with pytest.raises(UserError, match="fewer lines than vectors"):
        index.read(path, eye.digest)
    save_file({"vectors": torch.zeros(2, 3)}, path, about)
    with pytest.raises(UserError, match="damaged"):
        index.read(path, eye.digest)
