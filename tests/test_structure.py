"""What keeps the house in order: who imports whom, what an import costs, that every command answers --help."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("multimodal", "gpt", "dalle", "clip", "apps")
MAY_IMPORT = {
    "multimodal": set(),
    "gpt": {"multimodal"},
    "dalle": {"multimodal"},
    "clip": {"multimodal"},
    "apps": {"multimodal", "gpt", "dalle", "clip"},
}
# commands that put two packages together, as apps do; nothing imports them
TOGETHER = {"dalle/sample.py": {"clip"}, "dalle/evaluate.py": {"clip"}}
HEAVY = ("torch", "gradio", "open_clip", "transformers", "numpy", "pandas", "PIL")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module.split(".")[0])
    return found


def commands() -> list[str]:
    """Modules that run as a command, found by their last lines."""
    found = []
    for package in PACKAGES:
        for path in sources(package):
            if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8"):
                found.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, **options
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    assert sources(package)
    for path in sources(package):
        allowed = MAY_IMPORT[package] | {package} | TOGETHER.get(path.relative_to(ROOT).as_posix(), set())
        forbidden = imported(path) & (set(PACKAGES) - allowed)
        assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}"


def test_a_forbidden_import_inside_a_function_would_be_seen(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from clip.model import CLIP\n    import dalle.model as d\n")
    assert imported(path) == {"clip", "dalle"}


def test_the_packages_themselves_are_a_docstring():
    for package in (*PACKAGES, "multimodal/data"):
        body = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{package}/__init__.py holds more than its docstring"
        assert isinstance(body[0].value, ast.Constant), f"{package}/__init__.py has no docstring"


def test_every_file_opens_with_a_docstring():
    for path in [path for package in PACKAGES for path in sources(package)]:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path.relative_to(ROOT)


def test_importing_packages_and_presets_loads_nothing_heavy():
    presets = [f"{package}.presets" for package in PACKAGES if (ROOT / package / "presets.py").is_file()]
    assert len(presets) == 3
    code = f"import {', '.join((*PACKAGES, *presets))}, sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = run("-c", code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("module", commands())
def test_every_command_answers_help_before_anything_heavy_is_imported(module):
    code = f"""
import runpy, sys
sys.argv = [{module!r}, "--help"]
try:
    runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
except SystemExit as end:
    heavy = [m for m in {HEAVY} if m in sys.modules]
    print("ended with", end.code, "and", heavy)
"""
    done = run("-c", code)
    assert done.stdout.strip().endswith("ended with 0 and []"), done.stdout[-500:] + done.stderr
    assert "usage:" in done.stdout
    examples = [line for line in done.stdout.splitlines() if "python " in line]
    assert examples and all(line.count("python ") == 1 for line in examples)  # each can be copied by itself


def test_there_are_commands_to_train_and_to_use_every_model():
    expected = {
        "gpt.train",
        "gpt.sample",
        "gpt.convert",
        "dalle.train_dvae",
        "dalle.train",
        "dalle.sample",
        "clip.train",
    }
    assert expected | {"clip.classify", "apps.demo"} <= set(commands())


def test_the_page_runs_as_a_script_from_anywhere(tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", str(ROOT / "apps" / "demo.py"), "--help"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--port" in done.stdout


def test_a_wrong_option_is_one_status_for_all_commands():
    for module in commands():
        done = run("-m", module, "--no-such-option")
        assert done.returncode == 2, f"{module}: {done.returncode} {done.stderr[-300:]}"
        assert "Traceback" not in done.stderr and "│" not in done.stderr
        assert (
            done.stderr.startswith(f"{module.replace('apps.demo', 'apps/demo.py')}: ") and done.stderr.count("\n") == 1
        )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gpt.train", "tiny", "--transformer.heads", "3"], "width 64 is not divisible by heads 3; try heads 2 or 4"),
        (["gpt.train", "tiny", "--train.steps", "0"], "train.steps 0 is out of range"),
        (["gpt.train", "tiny", "--train.steps", "x"], "--train.steps: invalid literal"),
        (["gpt.sample", "a", "--seed", "-1"], "seed -1 is out of range: 0 to 2147483647"),
        (["clip.train", "nope"], "nope"),
    ],
)
def test_a_wrong_setting_is_one_line(arguments, sentence):
    done = run("-m", *arguments)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"{arguments[0]}: ") and sentence in done.stderr and "dummy" not in done.stderr


def test_no_file_names_somebodys_home_or_a_host_of_packages():
    home = re.compile(r"/(?:home|Users|root)/\w")
    hosts = re.compile(r"pypi\.(?:org|python)|pythonhosted\.|download\.pytorch\.|index-url|find-links|anaconda\.org")
    for path in project_files():
        if path.suffix in (".py", ".md", ".toml", ".css", ".json", ".txt", "") and path.stat().st_size < 10**6:
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if path == Path(__file__) and "re.compile" in line:
                    continue
                assert not home.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
                assert not hosts.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def project_files() -> list[Path]:
    """All files of the project; what git ignores lies in folders that are not searched."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in (*PACKAGES, "tests", "benchmarks", ".ci"):
        found += [p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return found
