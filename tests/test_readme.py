"""Claims about the README: its commands are the real ones, and its map is complete."""

import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("multimodal", "gpt", "dalle", "clip", "apps")
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
# what stands in a block of code, or in `code` that is a whole command
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
COMMANDS = list(dict.fromkeys(re.findall(r"^python -m (?!pytest)(.+)$", BLOCKS, re.MULTILINE)))
# (file, phrase) of every row of the map
MAP = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", TEXT, re.MULTILINE))


def test_there_is_a_command_for_every_verb():
    verbs = {command.split()[0] for command in COMMANDS}
    assert verbs == {
        "gpt.train", "gpt.sample", "gpt.convert", "gpt.score", "gpt.rescore",
        "gpt.finetune", "gpt.classify", "gpt.probe", "gpt.fewshot", "gpt.scaling",
        "dalle.train_dvae", "dalle.train", "dalle.sample", "dalle.caption", "dalle.evaluate", "dalle.reconstruct",
        "dalle.convert", "clip.train", "clip.classify", "clip.evaluate", "clip.search", "clip.finetune", "clip.convert",
    }  # fmt: skip


class Understood(Exception):
    """The command line was parsed, and nothing of it was done."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_understood_by_the_real_command(command, monkeypatch):
    verb, *arguments = shlex.split(command, comments=True)
    module = import_module(verb)
    if verb == "gpt.train" and "--list" in arguments:
        assert module.main(arguments) == 0
        return

    def instead(function, settings, prog):
        assert prog == verb
        raise Understood(settings)

    monkeypatch.setattr(module.cli, "run", instead)
    with pytest.raises(Understood) as caught:
        module.main(arguments)
    (settings,) = caught.value.args
    for flag, field in (("--n", "n"), ("--out", "out"), ("-o", "out"), ("--model", "model"), ("--dvae", "dvae")):
        if flag in arguments:
            assert str(getattr(settings, field)) == str(Path(arguments[arguments.index(flag) + 1]))


def test_the_commands_of_the_readme_run_one_after_the_other(tmp_path):
    """In their order, in one folder, each as its own process; trainings with the preset for tests instead of minutes."""
    (tmp_path / "apps").symlink_to(ROOT / "apps")
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "examples").symlink_to(ROOT / "gpt" / "examples")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "first.txt").write_text("My dear friend,\nyour letter came on Monday.\n" * 100)
    for name in ("pets/cat", "pets/dog", "my_folders_by_name/cat", "my_folders_by_name/dog", "tiles", "holiday",
                 "my_captioned_pictures"):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
        for i in range(40 if name.endswith("captioned_pictures") else 12):
            Image.new("RGB", (20, 20), (20 * (i % 12), 90, 7 * len(name))).save(tmp_path / name / f"{i}.png")
            if name.endswith("captioned_pictures"):
                (tmp_path / name / f"{i}.txt").write_text(f"a square, shade {i}")
    bundled = all((ROOT / package / "pretrained" / "bundled").is_dir() for package in ("gpt", "dalle", "clip"))
    ran = 0
    for command in COMMANDS:
        verb, *arguments = shlex.split(command, comments=True)
        if verb.endswith(".convert"):  # of files that are not there: the tests of published models do
            continue
        if ".train" in verb and "--list" not in arguments:
            arguments[0] = "finetune" if arguments[0] == "finetune" else "tiny"
            if "--train.minutes" in arguments:
                at = arguments.index("--train.minutes")
                del arguments[at : at + 2]
            arguments += ["--train.steps", "2"]
        elif verb == "gpt.scaling":
            arguments[arguments.index("1e6")] = "1e4"
        elif verb == "gpt.fewshot" and "--list" not in arguments:
            arguments += ["--n", "5", "--draws", "1"]
        elif verb in ("gpt.finetune", "clip.finetune"):
            arguments += ["--train.steps", "2"]
        elif "--model" not in arguments and not bundled:
            continue
        done = subprocess.run(
            [sys.executable, "-m", verb, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=600,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
        assert done.stdout.strip(), command
        ran += 1
    assert ran >= 7
    assert (tmp_path / "runs" / "drawings" / "grid.png").is_file()


def test_a_command_that_is_not_understood_would_be_seen():
    from gpt import train

    with pytest.raises(SystemExit) as ended:
        train.main(["small", "--no-such-option", "1"])
    assert ended.value.code == 2


def test_pictures_that_commands_name_are_there():
    named = re.findall(r"apps/examples/\S*", BLOCKS)
    assert named and all((ROOT / name).exists() for name in named)


def test_a_run_that_a_command_uses_was_made_by_one_before():
    made: set[str] = set()
    for command in COMMANDS:
        made |= set(re.findall(r"--out (\S+)", command))
        assert set(re.findall(r"--(?:model|dvae) (\S+)", command)) <= made, command


def test_every_word_of_make_is_a_target():
    makefile = (ROOT / "Makefile").read_text()
    for word in set(re.findall(r"\bmake (\w+)", BLOCKS + (ROOT / "CONTRIBUTING.md").read_text())):
        assert re.search(rf"^{word}:", makefile, re.MULTILINE), word


def test_every_extra_that_the_readme_installs_exists():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"'\.\[([\w,]+)\]'", TEXT)
    assert named and {extra for names in named for extra in names.split(",")} <= extras.keys()


def test_every_file_of_the_map_exists_and_every_module_is_on_it():
    missing = [name for name in MAP if not (ROOT / name).exists()]
    assert not missing
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert modules <= MAP.keys(), f"not on the map: {sorted(modules - MAP.keys())}"
    assert all(len(phrase) > 3 for phrase in MAP.values())


def test_every_link_into_the_project_leads_somewhere():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT)
    assert links and all((ROOT / link).exists() for link in links)


def test_what_a_preset_takes_is_what_the_readme_says():
    from clip.presets import PRESETS as CLIP
    from gpt.presets import PRESETS as GPT

    assert GPT["small"][1].train.minutes == 4 and "`small` trains for four minutes" in TEXT
    assert CLIP["small"][1].train.minutes == 5 and "`small` trains for five minutes" in TEXT


def test_the_address_is_the_one_that_the_page_takes():
    done = subprocess.run(
        [sys.executable, str(ROOT / "apps" / "demo.py"), "--help"], capture_output=True, text=True, timeout=300
    )
    assert "7860" in done.stdout and "127.0.0.1" in done.stdout and "http://127.0.0.1:7860" in TEXT
