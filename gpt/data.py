"""What a language model trains on: text of any size in; RUN/tokenizer.json and RUN/tokens/{train,held}-NAME.tokens out.

The user's own text is called "text"; the default ones have names. No text is ever in memory as a whole. When a
preparation is interrupted, its whole token files stay, and the same command on the same text goes on after them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpt.presets import TrainGPT
from multimodal import cli
from multimodal.cli import UserError

OWN = "text"  # what the user's own data is called in metrics
SAMPLE = 100_000_000  # characters that a new bpe tokenizer learns from, at most: half a minute of a core
LONGEST = 1_000  # characters of a word that it learns from whole: its time grows with their square
LEAST = 10  # characters of which there is a last tenth to hold out
NAMED = 20  # files that are not used and named, each with its reason; more are counted


def read_texts(settings: TrainGPT, mixture: dict[str, float]) -> tuple[dict, dict, dict[str, str]]:
    """({name: Half to train on}, {name: Half held out}, {name: digest of both}). What is not used is named."""
    from multimodal.data import text, textfiles

    if settings.data:
        found = textfiles.survey(settings.data, settings.out)
        _say_some([f"not used: {item.path}: {item.reason}" for item in found.unread[:NAMED]])
        if more := Counter(item.reason for item in found.unread[NAMED:]):
            reasons = "; ".join(f"{reason} ({count:,})" for reason, count in more.most_common(5))
            cli.say(f"not used: {sum(more.values()):,} more: {reasons}")
        _say_some(found.remarks)
        characters = found.train.characters + found.held.characters - 1  # the end of the last line is ours
        paths = " ".join(map(str, settings.data))
        if characters < 0:
            raise UserError(f"--data {paths}: no text could be read there; give text files, folders or JSON lines.")
        if characters < LEAST:
            raise UserError(
                f"--data {paths}: the text has {characters} character{'s' * (characters > 1)}; at least {LEAST} are needed "
                "to train on nine tenths and hold one out: give more text."
            )
        return {OWN: found.train}, {OWN: found.held}, {OWN: found.digest}
    corpora = {name: made for name, made in text.default_corpora().items() if name in mixture}
    halves = {name: text.split(corpora[name]) for name in mixture if name in corpora}
    train, held = ({name: text.Half.of(half[side]) for name, half in halves.items()} for side in (0, 1))
    whole = {name: "\0".join(document.text for half in both for document in half) for name, both in halves.items()}
    return train, held, {name: hashlib.blake2b(w.encode(), digest_size=16).hexdigest() for name, w in whole.items()}


def _say_some(lines: Sequence[str]) -> None:
    for line in lines[:NAMED]:
        cli.say(line)
    if len(lines) > NAMED:
        cli.say(f"... and {len(lines) - NAMED:,} more like these")


def make_tokenizer(settings: TrainGPT, texts: dict, mixture: dict[str, float]):
    """A new tokenizer, of the {name: Half} to train on. A bpe sees every text in its share of the rows and, where that is
    more than SAMPLE characters, so many, spread evenly over the whole."""
    from multimodal.tokenizer import Tokenizer

    if settings.tokenizer == "bytes":
        return Tokenizer.bytes()
    if settings.tokenizer == "characters":
        seen: set[str] = set()
        for half in texts.values():
            for document in half.read():
                for part in document.parts:
                    seen.update(part)
        return Tokenizer.characters(["".join(seen)])
    unit = min(half.characters / mixture[name] for name, half in texts.items())
    part = min(1.0, SAMPLE / max(1.0, unit * sum(mixture[name] for name in texts)))
    quotas = {name: round(unit * mixture[name] * part) for name in texts}
    total = sum(half.characters for half in texts.values())
    cli.say(f"a tokenizer is learned from {sum(quotas.values()):,} of the {total:,} characters to train on")
    return Tokenizer.bpe(
        (piece for name, half in texts.items() for piece in _sample(half, quotas[name], part < 1)), settings.vocabulary
    )


def _sample(half, quota: int, spread: bool) -> Iterator[str]:
    """So many characters of a text: the first ones or, `spread`, pieces from all over it."""
    from multimodal.tokenizer import pieces

    seen = taken = 0
    for document in half.read():
        for part in document.parts:
            for piece in pieces(part, 50_000):
                behind = taken * half.characters <= quota * seen
                shown = piece * behind if spread else piece[: quota - taken]
                seen, taken = seen + len(piece), taken + len(shown)
                long = max(map(len, shown.split()), default=0) > LONGEST
                step = LONGEST if long else max(1, len(shown))
                yield from (shown[begin : begin + step] for begin in range(0, len(shown), step))


def prepare(settings: TrainGPT, mixture: dict[str, float]) -> None:
    """Writes what training reads. A preparation that was interrupted is continued, if text and settings are the same."""
    from multimodal.data import textfiles

    try:
        _write(settings, mixture)
    except KeyboardInterrupt:
        cli.say("the token files that are whole stay: the same command goes on after them.")
        raise
    finally:
        textfiles.forget(settings.out)


def _write(settings: TrainGPT, mixture: dict[str, float]) -> None:
    from multimodal import checkpoint
    from multimodal.data import tokens
    from multimodal.tokenizer import Tokenizer

    folder = settings.out / "tokens"
    source, saved, given = folder / "source.json", settings.out / "tokenizer.json", Path(settings.tokenizer)
    if settings.tokenizer in ("bpe", "characters", "bytes"):
        tokenizer, asked = None, settings.tokenizer
    elif given.is_file():  # read before the text, which may take an hour
        tokenizer, asked = Tokenizer.load(given), hashlib.blake2b(given.read_bytes()).hexdigest()
    else:
        raise UserError(f"--tokenizer {settings.tokenizer}: not bpe, characters or bytes, nor a file.")
    train, held, digests = read_texts(settings, mixture)
    described = {"texts": digests, "mixture": mixture, "tokenizer": asked, "vocabulary": settings.vocabulary}
    now = json.dumps(described, indent=2) + "\n"
    if source.is_file() and saved.is_file() and source.read_text(encoding="utf-8", errors="replace") == now:
        tokenizer = Tokenizer.load(saved)
        cli.say(f"{len(list(folder.glob('[!.]*.tokens*'))):,} token files of the same text are there, and stay")
    else:
        source.unlink(missing_ok=True)
        for old in folder.glob("*.tokens*"):
            old.unlink()
        tokenizer = tokenizer or make_tokenizer(settings, train, mixture)
        with checkpoint.replacing(saved) as aside:
            tokenizer.save(aside)
        checkpoint.write_text(source, now)
    for side, halves in (("train", train), ("held", held)):
        for name, half in halves.items():
            path = folder / f"{side}-{name}.tokens"
            bar = cli.bar(total=half.text_bytes, unit="B", unit_scale=True, desc=f"{side} {name}")
            with bar:
                file = tokens.write(path, (d.parts for d in half.read()), tokenizer, resume=True, tell=bar.update)
            if side == "train" and file.text_bytes == 0:
                raise UserError(f"the text to train on ({name}) is empty: {file.documents} documents without a letter.")
            cli.say(f"{side} {name}: {file.documents:,} documents, {file.text_bytes:,} bytes, {len(file.ids):,} tokens")
