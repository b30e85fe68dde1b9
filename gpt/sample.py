"""Continue a prompt with a language model.

python -m gpt.sample "To be, or not to be"
python -m gpt.sample "ROMEO." --model runs/small --n 3 --json
cat letter.txt | python -m gpt.sample - --max-tokens 50 --stop "." --stop "!"
"""

import sys
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, UseAppendAction

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "gpt.sample"


@dataclass(frozen=True, kw_only=True)
class Sample(Common):
    """Continues a prompt; the text goes to stdout as it is written."""

    prompt: Positional[str]
    """The text to continue; "-" reads it from stdin, "" starts a document."""
    model: str | None = None
    """A run directory, or the name of a bundled model (default: the bundled one)."""
    max_tokens: int = 200
    """Most tokens to write."""
    temperature: float = 0.8
    """0 takes the likeliest token, 1 samples the model's own distribution."""
    top_k: int = 0
    """Only the k likeliest tokens may be chosen; 0 is all."""
    top_p: float = 0.95
    """Only the likeliest tokens that together have this probability may be chosen."""
    stop: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Text that ends the writing and is left out; may be given several times."""
    n: int = 1
    """How many continuations; the i-th has the seed --seed + i."""
    json: bool = False
    """An object a line: text, finish_reason (stop or length), tokens, token_logprobs (the model's own)."""


def sample(settings: Sample) -> int:
    if not 1 <= settings.n <= 1000:
        raise UserError(f"--n {settings.n} is out of range: 1 to 1000 continuations.")
    from multimodal.checkpoint import find

    directory = find(settings.model, "gpt")

    from gpt.model import load
    from gpt.writing import write_batch
    from multimodal.sampling import Sampling

    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    prompt = sys.stdin.read().removesuffix("\n") if settings.prompt == "-" else settings.prompt
    model, tokenizer = load(directory, settings.device)
    seeds = [settings.seed + i for i in range(settings.n)]
    rows = []
    for turn in write_batch(
        model, tokenizer, [prompt] * settings.n, settings.max_tokens, sampling, seeds, settings.stop
    ):
        rows = [row for row, _ in turn]
        if settings.n == 1 and not settings.json:
            print(turn[0][1], end="", flush=True)
    for number, row in enumerate(rows):
        if settings.json:
            cli.emit(
                {
                    "text": row.text,
                    "finish_reason": row.finish_reason,
                    "tokens": [tokenizer.show(token) for token in row.tokens],
                    "token_logprobs": [round(value, 6) for value in row.token_logprobs],
                }
            )
        elif settings.n == 1:
            print(flush=True)
        else:
            print(f"{'' if number == 0 else '-' * 20 + chr(10)}{row.text}", flush=True)
    return 0


def main(argv: list[str] | None = None) -> int:
    return cli.run(sample, cli.parse(Sample, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
