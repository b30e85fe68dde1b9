"""The command line, one instrument for every command: settings in, an exit status out. No torch here.

Results go to stdout, talk and progress bars to stderr. Exit status: 0 done, 1 done in part or failed, 2 wrong use.
A `UserError` is one line; `--debug` shows where it came from.
"""

import contextlib
import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

S = TypeVar("S")
MAX_SEED = 2**31 - 1


class UserError(ValueError):
    """What the user can mend: one sentence with what was asked, what was found, what is allowed, what to do."""


class Failed(UserError):
    """What went wrong although it was asked for rightly: exit status 1 instead of 2."""


@contextlib.contextmanager
def writing(flag: str, path: Path):
    """What cannot be written is told with its flag."""
    try:
        yield
    except OSError as error:
        raise Failed(f"--{flag} {path} could not be written: {error.strerror or error}.") from None


@dataclasses.dataclass(frozen=True)
class Common:
    """What every command takes."""

    seed: int = 0
    """Same seed, same machine, same threads: same result. (A training that ends by the clock ends at another step.)"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    debug: bool = False
    """Show the whole trace of an error."""

    def __post_init__(self):
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed {self.seed} is out of range: 0 to {MAX_SEED}.")


def say(text: str) -> None:
    """Talk: to stderr, so that stdout holds results only."""
    print(text, file=sys.stderr, flush=True)


def bar(**settings: Any):
    """A progress bar on stderr (rate and time left), silent where nobody watches a terminal."""
    from tqdm import tqdm

    return tqdm(**{"file": sys.stderr, "disable": not sys.stderr.isatty(), "dynamic_ncols": True, **settings})


def parse(
    settings: type[S] | Mapping[str, tuple[str, S]],
    prog: str,
    description: str,
    argv: Sequence[str] | None = None,
) -> S:
    """Settings from the command line: a dataclass, or presets `{name: (sentence, settings)}` to start from.

    Wrong use ends the process with status 2 and a sentence, `--help` with status 0.
    """
    import tyro

    # tyro joins the lines of a paragraph, but not those that begin with a space: examples keep their own lines
    description = re.sub(r"^ *(?=.*\bpython (?:-m|apps))", "    ", description, flags=re.MULTILINE)
    options = {"prog": prog, "description": description, "args": sys.argv[1:] if argv is None else list(argv)}
    talk = io.StringIO()
    try:
        with contextlib.redirect_stderr(talk):
            if isinstance(settings, Mapping):
                return tyro.extras.overridable_config_cli(dict(settings), **options)
            return tyro.cli(settings, **options)
    except BrokenPipeError:  # `--help | head`
        sys.stderr.close()
        sys.exit(1)
    except SystemExit as end:
        if end.code:
            say(f"{prog}: {_sentence(talk.getvalue())}; {prog} --help tells more.")
        raise


def _sentence(box: str) -> str:
    """What tyro says in a box of several lines, in one."""
    lines = [line.strip(" │") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    parts, part = [], []
    for line in [*lines, "─"]:
        if line.startswith("─"):
            # of the options that look alike only the first, without what it does
            parts.append(" ".join(part[:2] if part[:1] == ["Perhaps you meant:"] else part))
            part = []
        elif line:
            part.append(line)
    # a setting that is checked where it is built already says its name
    kept = [re.sub(r"^Error parsing (?!--)\S+: ", "", text) for text in parts if text]
    kept = [text for text in kept if not text.startswith("For full helptext")]
    return "; ".join(text.rstrip(".;") for text in kept) or "the command line was not understood"


def run(function: Callable[[S], int | None], settings: S, prog: str) -> int:
    """Call `function(settings)` and turn what it raises into a sentence and an exit status."""
    debug = getattr(settings, "debug", False)
    if hasattr(sys.stdout, "reconfigure"):  # a file's name may be no UTF-8, and must not end the others' results
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return function(settings) or 0
    except UserError as error:
        if debug:
            raise
        say(f"{prog}: {error}")
        return 1 if isinstance(error, Failed) else 2
    except KeyboardInterrupt:
        say(f"{prog}: interrupted")
        return 1
    except BrokenPipeError:  # `| head` closed our stdout: that is not a failure worth a trace
        sys.stderr.close()
        return 1
    except Exception as error:
        if debug:
            raise
        say(f"{prog}: {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)")
        return 1


def emit(record: Mapping[str, Any]) -> None:
    """One JSON object on a line of stdout, for programs."""
    print(json.dumps(record, ensure_ascii=False), flush=True)
