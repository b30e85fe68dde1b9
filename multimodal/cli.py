"""The command line, one instrument for every command: settings in, an exit status out. No torch here.

Results go to stdout, talk and progress bars to stderr. Exit status: 0 done, 1 done in part or failed, 2 wrong use.
A `UserError` is one line; `--debug` shows where it came from.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

S = TypeVar("S")


class UserError(ValueError):
    """What the user can mend: one sentence with what was asked, what was found, what is allowed, what to do."""


@dataclasses.dataclass(frozen=True)
class Common:
    """What every command takes."""

    seed: int = 0
    """Same seed, same machine, same threads: same result."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    debug: bool = False
    """Show the whole trace of an error."""


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
    try:
        if isinstance(settings, Mapping):
            return tyro.extras.overridable_config_cli(dict(settings), **options)
        return tyro.cli(settings, **options)
    except BrokenPipeError:  # `--help | head`
        sys.stderr.close()
        sys.exit(1)


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
        return 2
    except KeyboardInterrupt:
        say(f"{prog}: interrupted")
        return 1
    except BrokenPipeError:  # `| head` closed our stdout: that is not a failure worth a trace
        sys.stderr.close()
        return 1
    except Exception as error:
        if debug:
            raise
        say(f"{prog}: {type(error).__name__}: {error} (--debug shows where)")
        return 1


def emit(record: Mapping[str, Any]) -> None:
    """One JSON object on a line of stdout, for programs."""
    print(json.dumps(record, ensure_ascii=False), flush=True)
