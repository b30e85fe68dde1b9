"""The page: write, ask and score with the GPT, draw with the DALL·E, classify and search with the CLIP, all on this machine.

    python apps/demo.py
    python apps/demo.py --port 8000 --gpt runs/gpt --clip runs/clip --search my_pictures/

In: model directories (default: the bundled models). Out: a page at http://127.0.0.1:7860 until Ctrl-C. A model that
cannot be loaded leaves a sentence in its tab, and the others work. Nothing is sent to or fetched from anywhere else.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # run as a script, maybe without the project being installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from multimodal import cli
from multimodal.cli import UserError

PROG = "apps/demo.py"


@dataclass(frozen=True)
class Demo:
    """Opens the page with the three models."""

    port: int = 7860
    """Where the page is served; 0 takes any free port."""
    host: str = "127.0.0.1"
    """127.0.0.1 is this machine only; 0.0.0.0 lets others on the network in."""
    gpt: str | None = None
    """A run directory of gpt.train, or the name of a bundled model (default: the bundled one)."""
    dalle: str | None = None
    """The same of dalle.train."""
    clip: str | None = None
    """The same of clip.train, or a model of open_clip (see clip.classify)."""
    search: Path | None = None
    """A folder of pictures that visitors may search; it is indexed at the start."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    debug: bool = False
    """Show the whole trace of an error."""


def load(settings: Demo):
    """The models that can be loaded, and of the others why not; told on stderr."""
    import clip.encoder
    import dalle.model
    import gpt.model
    from apps.wiring import Part
    from multimodal import checkpoint, devices

    where, parts = devices.pick(settings.device), {}
    for package, reader in (("gpt", gpt.model.load), ("dalle", dalle.model.load), ("clip", clip.encoder.find)):
        asked, began = getattr(settings, package), time.perf_counter()
        try:
            directory = asked if package == "clip" and asked else checkpoint.find(asked, package)
            model, card = reader(directory, str(where)), Path(directory) / "README.md"
            parts[package] = Part(model, card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "")
            cli.say(f"{package}: {directory} on {where} ({time.perf_counter() - began:.1f} s)")
        except UserError as error:
            parts[package] = Part(problem=str(error).replace("--model", f"--{package}"))
            cli.say(f"{package}: not loaded: {parts[package].problem}")
        except Exception as error:  # whatever is wrong with one model's files, the others are served
            told = " ".join(str(error).split())[:300]
            parts[package] = Part(problem=f"{asked or 'the bundled model'} could not be loaded: {told}")
            cli.say(f"{package}: not loaded: {type(error).__name__}: {told}")
    parts["search"] = shelf(settings.search, parts["clip"])
    return parts


def shelf(folder: Path | None, classifier):
    """The folder that can be searched, brought up to date; or why not."""
    from apps.answers import Shelf
    from apps.wiring import Part
    from clip import index, search

    if folder is None:
        return Part(problem="Start the page with --search FOLDER, and its pictures can be searched here.")
    if classifier.problem:
        return Part(problem=classifier.problem)
    try:
        asked = search.Settings(folder=folder)
        search.check(asked)
        path = search.place(asked, classifier.model)
        search.bring_up_to_date(asked, classifier.model, path)
        return Part(Shelf(folder, index.read(path, classifier.model.digest), classifier.model))
    except UserError as error:
        cli.say(f"search: {error}")
        return Part(problem=str(error))


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises UserError where the page cannot be served there."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself does
            probe.bind((host, port))
            return probe.getsockname()[1]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"the page cannot be served at {host}, port {port}: {reason}; another --port or --host may be free."
        ) from None


def serve(settings: Demo) -> int:
    # a page makes no request to anywhere: gradio reads this when it is imported and when a page is built
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    port = free_port(settings.host, settings.port)  # before the models take their seconds
    cli.say("loading the models ...")
    parts = load(settings)

    from apps.page import build, show

    page = build(parts)
    show(page, settings.host, port)
    address = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(settings.host, settings.host)
    print(f"http://{address}:{port}", flush=True)
    cli.say("The page is open at this address. Ctrl-C ends it.")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with contextlib.suppress(KeyboardInterrupt):
        ended.wait()
    page.close(verbose=False)
    return 0


def main(argv: list[str] | None = None) -> int:
    settings = cli.parse(Demo, PROG, __doc__, argv)
    return cli.run(serve, settings, PROG)


if __name__ == "__main__":
    sys.exit(main())
