"""Continue prompts with a language model.

python -m gpt.sample "To be, or not to be"
python -m gpt.sample "ROMEO." --model runs/small --n 3 --json
cat letter.txt | python -m gpt.sample - --max-tokens 50 --stop "." --stop "!"
python -m gpt.sample "It was a dark night" "My dear friend" --beside runs/style
python -m gpt.sample "JULIET." --beams 4 --stop ". "
python -m gpt.sample "In the beginning" --echo --max-tokens 0 --logprobs 3 --json

The model looks back on its context (256 tokens in the bundled one). A longer prompt is read from its end; where the
writing goes past the context, the older half is dropped and the rest is read again, so that it goes on as long as asked.
Same prompt, same seed: same text, whatever is written beside it.
"""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "gpt.sample"
MAX_PROMPT_BYTES, MAX_PROMPTS = 10_000_000, 100_000
# what a search for the likeliest text leaves no room for
CHANCE = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias",
    "best_of", "logprobs", "echo",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sample(Common):
    """Continues prompts; the text goes to stdout, of a single continuation as it is written."""

    prompt: Annotated[Positional[tuple[str, ...]], arg(metavar="PROMPT ...")] = ()
    """The texts to continue; "-" reads one from stdin, "" starts a document."""
    prompts: Path | None = None
    """A file with more prompts, one a line; empty lines are left out."""
    model: str | None = None
    """A run directory, or the name of a bundled model (default: the bundled one)."""
    beside: str | None = None
    """A second model, which continues the same prompts with the same seeds: a base model beside a fine-tuned one."""
    max_tokens: int = 200
    """Most tokens to write; 0 with --echo scores the prompt."""
    temperature: float = 0.8
    """0 takes the likeliest token, 1 samples the model's own distribution."""
    top_k: int = 0
    """Only the k likeliest tokens may be chosen, and any as likely as the last of them; 0 is all."""
    top_p: float = 0.95
    """Of those, only the likeliest tokens that together have this share of their probability."""
    min_p: float = 0.0
    """Of those, only tokens with at least this share of the likeliest one's probability; 0 is all."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens in the prompt and the text (multiplies them below 0); 1 is none, 1.2 is usual."""
    presence_penalty: float = 0.0
    """Taken from the logit of every token that the text has, -2 to 2; the prompt does not count."""
    frequency_penalty: float = 0.0
    """Taken from it once for each time that the text has it, -2 to 2."""
    logit_bias: Annotated[tuple[str, ...], UseAppendAction] = ()
    """TOKEN_ID=VALUE: added to a token's logit, -100 (never) to 100 (always); may be repeated; --logprobs shows ids."""
    stop: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Text that ends the writing and is left out; may be given several times."""
    n: int = 1
    """Continuations of each prompt; the i-th has the seed --seed + i."""
    best_of: int | None = None
    """Write so many and keep the --n with the highest mean log-probability of a token, the best first."""
    beams: int | None = None
    """Search for the --n likeliest texts with so many beams instead of sampling; GPT-3 answers with 4."""
    length_penalty: float = 0.6
    """How far --beams favours long texts: log-probabilities are divided by ((5 + tokens) / 6) to this power."""
    echo: bool = False
    """Begin with the prompt as the model read it; with --json also with its tokens and log-probabilities."""
    logprobs: int | None = None
    """With --json: token_ids, text_offset and top_logprobs, the so many likeliest tokens in the place of each."""
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    """What the model computes in: bf16 is faster where the processor has it, int8 (x86 only) fastest, each a little
    off; benchmarks/gpt_sample.py measures both."""
    json: bool = False
    """An object a line: text, finish_reason (stop or length), tokens, token_logprobs (the model's own, in nats; null for
    the first token of a prompt); of several prompts also prompt, of two models also model, of --beams also score."""


def as_text(data: bytes | str, name: str) -> str:
    """What was read from `name`, if it is text."""
    if len(data) > MAX_PROMPT_BYTES:
        raise UserError(f"{name} has more than {MAX_PROMPT_BYTES:,} bytes, which is too long for prompts: cut it.")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not text in UTF-8 (byte {error.start:,}): save it as UTF-8.") from None
    if "\0" in text:
        raise UserError(f"{name} is not text: it holds zero bytes.")
    return text.replace("\r\n", "\n")


def prompts_of(settings: Sample) -> list[str]:
    prompts = list(settings.prompt)
    if "-" in prompts:
        source = getattr(sys.stdin, "buffer", sys.stdin)
        typed = as_text(source.read(MAX_PROMPT_BYTES + 1), "stdin").removesuffix("\n")
        prompts = [typed if prompt == "-" else prompt for prompt in prompts]
    if settings.prompts is not None:
        try:
            with open(settings.prompts, "rb") as file:
                text = as_text(file.read(MAX_PROMPT_BYTES + 1), f"--prompts {settings.prompts}")
        except OSError as error:
            raise UserError(f"--prompts {settings.prompts} could not be read: {error.strerror or error}.") from None
        prompts += [line for line in text.split("\n") if line.strip()]
        if not prompts:
            raise UserError(f"--prompts {settings.prompts} has no line with text on it: write a prompt on each.")
    if not prompts:
        raise UserError(
            'there is no prompt: give a text to continue, "-" for stdin, "" for a new document, or --prompts.'
        )
    if len(prompts) > MAX_PROMPTS:
        raise UserError(f"{len(prompts):,} prompts are too many at once: at most {MAX_PROMPTS:,}.")
    return prompts


def bias_of(texts: tuple[str, ...]) -> dict[int, float]:
    found = {}
    for text in texts:
        token, equals, bias = text.partition("=")
        try:
            found[int(token)] = float(bias)
        except ValueError:
            raise UserError(f"--logit-bias {text}: TOKEN_ID=VALUE is needed, two numbers such as 198=-100.") from None
    return found


def check(settings: Sample) -> None:
    """Raises UserError for flags that do not go together."""
    if not 1 <= settings.n <= 1000:
        raise UserError(f"--n {settings.n} is out of range: 1 to 1000 continuations.")
    default = {field.name: field.default for field in fields(Sample)}
    if settings.beams is not None:
        given = [name for name in CHANCE if getattr(settings, name) != default[name]]
        given = [f"--{name.replace('_', '-')}" for name in given if name != "temperature" or settings.temperature]
        if given:
            raise UserError(f"--beams {settings.beams} looks for the likeliest text: leave out {', '.join(given)}.")
    elif settings.length_penalty != default["length_penalty"]:
        raise UserError(f"--length-penalty {settings.length_penalty} is for --beams: give --beams 4 too.")
    if settings.logprobs is not None and not settings.json:
        raise UserError(f"--logprobs {settings.logprobs} has no place in plain text: give --json too.")


def sample(settings: Sample) -> int:
    check(settings)
    bias, prompts = bias_of(settings.logit_bias), prompts_of(settings)
    from multimodal.checkpoint import find

    directories = [find(settings.model, "gpt")] + ([find(settings.beside, "gpt")] if settings.beside else [])

    from gpt.model import load
    from gpt.writing import Request, write_batch
    from multimodal.packing import pack
    from multimodal.sampling import Sampling

    # whoever reads the prompt's tokens wants to know how likely they are
    logprobs = 0 if settings.json and settings.echo and settings.logprobs is None else settings.logprobs
    request = Request(
        settings.max_tokens,
        Sampling(
            settings.temperature, settings.top_k, settings.top_p, settings.min_p,
            settings.repetition_penalty, settings.presence_penalty, settings.frequency_penalty, bias,
        ),
        settings.stop, settings.n, settings.best_of, logprobs, settings.echo,
    )  # fmt: skip
    loaded = [load(directory, settings.device) for directory in directories]
    writers = [(pack(model, settings.precision), tokenizer) for model, tokenizer in loaded]
    single = len(prompts) == len(writers) == settings.n == (settings.best_of or 1) == 1
    if single and not settings.json and settings.beams is None:
        for turn in write_batch(
            *writers[0], prompts, request.max_tokens, request.sampling, [settings.seed], request.stop, echo=request.echo
        ):
            print(turn[0][1], end="", flush=True)
        print(flush=True)
        return 0
    names = [settings.model or "bundled", settings.beside][: len(writers)]
    parts = [written(*writer, prompts, request, settings) for writer in writers]
    # results that come to the same terminal are progress enough
    with cli.bar(total=len(prompts), unit="prompt", disable=sys.stdout.isatty() or not sys.stderr.isatty()) as shown:
        for number, (prompt, *found) in enumerate(zip(prompts, *parts, strict=True)):
            if not settings.json and (len(prompts) > 1 or len(writers) > 1):
                print(f"{chr(10) if number else ''}== {heading(prompt)} ==")
            for name, (_, tokenizer), rows in zip(names, writers, found, strict=True):
                about = {"prompt": prompt} if len(prompts) > 1 else {}
                about |= {"model": name} if len(writers) > 1 else {}
                show(rows, tokenizer, settings, about)
            shown.update()
    return 0


def written(model, tokenizer, prompts, request, settings: Sample):
    """Prompt after prompt, its continuations, each with its score or None."""
    from gpt.beam import beam_search
    from gpt.writing import complete

    if settings.beams is None:
        for rows in complete(model, tokenizer, prompts, request, settings.seed):
            yield [(row, None) for row in rows]
        return
    for prompt in prompts:
        bounds = request.max_tokens, settings.beams, settings.length_penalty
        found = beam_search(model, tokenizer, prompt, *bounds, request.stop, request.n)
        yield [(row, score) for score, row in found]


def heading(prompt: str) -> str:
    """A prompt in a line."""
    line = " ".join(prompt.split()) or "a new document"
    return line if len(line) <= 70 else f"{line[:69]}…"


def show(rows, tokenizer, settings: Sample, about: dict[str, str]) -> None:
    """A prompt's continuations by one model, on stdout."""
    if "model" in about and not settings.json:
        print(f"-- {about['model']} --")
    for number, (row, score) in enumerate(rows):
        if settings.json:
            found = record(row, tokenizer, settings.logprobs is not None)
            cli.emit(about | found | ({} if score is None else {"score": round(score, 6)}))
        else:
            print(f"{'-' * 20 + chr(10) if number else ''}{row.text}", flush=True)


def record(row, tokenizer, everything: bool) -> dict:
    """A continuation for programs; `everything` is what --logprobs asks for."""
    found = {
        "text": row.text,
        "finish_reason": row.finish_reason,
        "tokens": [tokenizer.show(token) for token in row.tokens],
        "token_logprobs": [value if value is None else round(value, 6) for value in row.token_logprobs],
    }
    if everything:
        found["token_ids"], found["text_offset"] = row.tokens, row.text_offsets
        found["top_logprobs"] = [top and named(top, tokenizer) for top in row.top_logprobs]
    return found


def named(top: list[tuple[int, float]], tokenizer) -> dict[str, float]:
    found: dict[str, float] = {}
    for token, value in top:  # of two tokens that look the same, the likelier
        found.setdefault(tokenizer.show(token), round(value, 6))
    return found


def main(argv: list[str] | None = None) -> int:
    return cli.run(sample, cli.parse(Sample, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
