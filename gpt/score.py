"""Score text with a language model: the probability of every token given those before it, perplexity, bits a byte.

python -m gpt.score --text "To be, or not to be" --text "To be, or to be not"
python -m gpt.score letter.txt notes.txt --show totals
cat letter.txt | python -m gpt.score - --json

A text is scored as a document of its own, or right after --context, which is not counted. A token is predicted from all
that comes before it as long as the model's context holds that, in longer texts from at least half a context. The
probabilities are the model's own, their logarithms natural ones (nats), and perplexity is e to the mean nats a token.
Files are UTF-8; their lines end in one byte.
"""

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "gpt.score"
MAX_BYTES = 50_000_000  # of one text: it is tokenised in memory
MAX_LISTED = 5_000_000  # tokens of one JSON record
TOGETHER = 64  # windows that are scored before they are shown
# (probability, background among xterm's 256 colours) from green to red; black letters are readable on all of them
SHADES = ((0.5, 157), (0.1, 193), (0.01, 222), (0.001, 216), (0.0, 210))


@dataclass(frozen=True, kw_only=True)
class Score(Common):
    """Tells how probable a language model finds texts: token by token, and in all."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")] = ()
    """Text files; "-" is stdin."""
    text: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A text from the command line; may be given several times."""
    context: str = ""
    """Text right before every text, not counted but for spaces at its end (default: a document begins)."""
    show: Literal["auto", "colours", "table", "totals"] = "auto"
    """The text with every token coloured by its probability, a line for every token, or totals only; auto is colours on
    a terminal and a table elsewhere. With --json, totals leaves tokens and token_logprobs out."""
    model: str | None = None
    """A run directory, or the name of a bundled model (default: the bundled one)."""
    json: bool = False
    """An object a line for every text: source, tokens, token_logprobs, logprob, perplexity, bits_per_byte; or source and
    error."""


@dataclass(frozen=True)
class Totals:
    """Sums over the tokens of one text or several."""

    tokens: int = 0
    size: int = 0
    """Bytes."""
    logprob: float = 0.0
    """Nats."""

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.tokens + other.tokens, self.size + other.size, self.logprob + other.logprob)

    @property
    def perplexity(self) -> float:
        return math.exp(-self.logprob / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        return -self.logprob / math.log(2) / self.size

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens, {self.size:,} bytes; log-probability {self.logprob:,.2f}, "
            f"perplexity {self.perplexity:,.2f}, {self.bits_per_byte:.3f} bits a byte"
        )


def read(file: str) -> str:
    """The text of a file, or of stdin. Raises UserError with what is wrong with it."""
    name = "stdin" if file == "-" else file
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(file, "rb") as opened:
                data = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # a name may hold what no name can
        raise UserError(f"{name} could not be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{name} has more than {MAX_BYTES:,} bytes; split it.")
    if b"\0" in data:
        raise UserError(f"{name} is not text in UTF-8: it holds zero bytes.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not text in UTF-8: byte {error.start + 1:,} is {data[error.start]:#04x}; convert it first."
        ) from None
    if not text:
        raise UserError(f"{name} is empty: there is nothing to score.")
    return text.replace("\r\n", "\n")


def encode(tokenizer, context: str, text: str) -> tuple[list[int], list[int]]:
    """Ids of the context and of the text; spaces that end the context belong to the text."""
    from gpt.scoring import encode_pair

    before, after = encode_pair(tokenizer, context, text)
    if tokenizer.decode(after) != context[len(context.rstrip()) :] + text:  # a token lies across the border
        before, after = tokenizer.encode(context), tokenizer.encode(text)
    return before, after


def scored(model, before: list[int], after: list[int]) -> Iterator[tuple[int, float, bool]]:
    """(token, log-probability, whether it was the likeliest) of every token of `after`, a few windows at a time."""
    import numpy as np

    from gpt.scoring import judged, windows

    context = model.config.context
    if len(after) <= context:  # one window, with as much before it as fits
        before = before[-(context + 1 - len(after)) :]
    ids, first = np.array([*before, *after]), len(before)
    plan = [(begin, max(judge, first), end) for begin, judge, end in windows(len(ids), context) if end >= first]
    for at in range(0, len(plan), TOGETHER):
        some = plan[at : at + TOGETHER]
        found = judged(model, [(ids[begin : end + 1], judge - begin) for begin, judge, end in some])
        for place, logprobs, likeliest in sorted(found, key=lambda part: part[0]):
            _, judge, end = some[place]
            yield from zip(ids[judge : end + 1].tolist(), logprobs.tolist(), likeliest.tolist(), strict=True)


def coloured(tokenizer, rows: Iterator[tuple[int, float, bool]]) -> Iterator[str]:
    """The text, every token on the shade of its probability. The tokens of one character share theirs."""
    stream, together = tokenizer.stream(), 0.0

    def piece(text: str) -> str:
        shade = next(shade for least, shade in SHADES if math.exp(together) >= least)
        # control characters would move the cursor; a line's end gets a sign to carry its colour
        shown = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text).replace("\n", "↵\n")
        return "\n".join(f"\x1b[38;5;16;48;5;{shade}m{part}\x1b[0m" if part else "" for part in shown.split("\n"))

    for token, logprob, _ in rows:
        together += logprob
        if text := stream.push(token):
            yield piece(text)
            together = 0.0
    if rest := stream.flush():
        yield piece(rest)
    yield "\n"


def listed(tokenizer, rows: Iterator[tuple[int, float, bool]]) -> Iterator[str]:
    """A line for every token: log-probability, probability, the same as a bar, * if it was the likeliest, the token."""
    yield "   logprob  probability               token (* none was likelier)\n"
    for token, logprob, likeliest in rows:
        probability, name = math.exp(logprob), tokenizer.show(token)
        name = name if name.startswith("bytes:") else repr(name)
        bar, mark = "█" * round(10 * probability), "*" if likeliest else " "
        yield f"{logprob:10.4f}  {100 * probability:9.4f} %  {bar:10} {mark} {name}\n"


def score(settings: Score) -> int:
    if not settings.files and not settings.text:
        raise UserError('nothing to score was given: name files, "-" for stdin, or give --text.')
    from multimodal.checkpoint import find

    directory = find(settings.model, "gpt")

    from gpt.model import load

    model, tokenizer = load(directory, settings.device)
    show = settings.show
    if show == "auto":
        show = "colours" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else "table"
    if show == "colours" and not settings.json:
        shades = [f"\x1b[38;5;16;48;5;{shade}m {100 * least:g} % \x1b[0m" for least, shade in SHADES]
        cli.say(f"probability of a token at least {''.join(shades)}")

    def one(source: str, name: str, text: str) -> Totals:
        before, after = encode(tokenizer, settings.context, text)
        if (lacking := tokenizer.decode(after).count("\ufffd") - text.count("\ufffd")) > 0:
            cli.say(f"{name}: {lacking:,} characters are unknown to the model's tokenizer, and scored as unknown.")
        listing = settings.json and show != "totals"
        if listing and len(after) > MAX_LISTED:
            raise UserError(f"{name} has {len(after):,} tokens, too many for a record; give --show totals.")
        tokens, logprobs, logprob = [], [], 0.0

        def rows() -> Iterator[tuple[int, float, bool]]:
            nonlocal logprob
            for row in scored(model, before or [tokenizer.end], after):
                logprob += row[1]
                yield row

        if settings.json or show == "totals":
            for token, value, _ in cli.bar(iterable=rows(), total=len(after), unit="token", leave=False):
                if listing:
                    tokens.append(tokenizer.show(token))
                    logprobs.append(round(value, 6))
        else:
            for piece in (coloured if show == "colours" else listed)(tokenizer, rows()):
                sys.stdout.write(piece)
        size = sum(len(tokenizer.token_bytes[token]) for token in after)
        totals = Totals(len(after), size, logprob)
        if settings.json:
            record = {"source": source} | ({"tokens": tokens, "token_logprobs": logprobs} if listing else {})
            figures = {name: getattr(totals, name) for name in ("logprob", "perplexity", "bits_per_byte")}
            cli.emit(record | {name: round(value, 6) for name, value in figures.items()})
        else:
            print(f"{name}: {totals}", flush=True)
        return totals

    done, failed = [], False
    for source, text in [*((file, None) for file in settings.files), *((text, text) for text in settings.text)]:
        name = source if text is None else f"{text!r:.60}"
        try:
            if text == "":
                raise UserError("--text is empty: there is nothing to score.")
            done.append(one(source, name, read(source) if text is None else text))
        except UserError as error:
            failed = True
            if settings.json:
                cli.emit({"source": source, "error": str(error)})
            else:
                cli.say(f"{PROG}: {error}")
    if len(done) > 1 and not settings.json:
        print(f"all {len(done)}: {sum(done, Totals())}", flush=True)
    return int(failed)


def main(argv: list[str] | None = None) -> int:
    return cli.run(score, cli.parse(Score, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
