"""Writing: prompts in; text out, piece by piece as it becomes certain, with every token's log-probability.

Rows of different length run as one batch by padding on the left, and each comes out as it would alone. Stop
strings are looked for in the decoded text, so they match wherever token borders fall; what might be the
beginning of one is held back, and half a UTF-8 character never leaves. Past the context window the oldest
half of a row is dropped, and what is left is read again: learned positions allow nothing else, and all models
then behave alike.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpt.model import GPT
from multimodal.cli import UserError
from multimodal.sampling import Sampling, decode, generators
from multimodal.tokenizer import Tokenizer


class Continuation:
    """One row's text while it is written; `finish_reason` is None until it ends by "stop" or "length"."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        if not all(stop):
            raise UserError("a stop string is empty: it would end every text at once; leave it out.")
        self.text = ""
        """What has become certain."""
        self.tokens: list[int] = []
        """The tokens of the text; with "stop", those that lie wholly in the stop string are left out."""
        self.token_logprobs: list[float] = []
        """The model's own log-probability (nats) of each, before temperature and the like."""
        self.finish_reason: str | None = None
        self._stop = tuple(stop)
        self._held = ""  # decoded, but it may be the beginning of a stop string
        self._starts: list[int] = []  # where in the text each token begins
        self._stream = tokenizer.stream()
        self._end = tokenizer.end

    def push(self, token: int, logprob: float) -> str:
        """Takes the next token; returns the text that became certain by it."""
        if token == self._end:
            return self.finish("stop")
        self.tokens.append(token)
        self.token_logprobs.append(logprob)
        self._starts.append(len(self.text) + len(self._held))
        return self._release(self._stream.push(token), at_end=False)

    def finish(self, reason: str) -> str:
        """Ends the row; returns the text that was held back."""
        self.finish_reason = reason
        return self._release(self._stream.flush(), at_end=True)

    def _release(self, new: str, at_end: bool) -> str:
        text = self._held + new
        found = [place for place in map(text.find, self._stop) if place >= 0]
        if found:
            certain, self._held, self.finish_reason = text[: min(found)], "", "stop"
            kept = sum(start < len(self.text) + len(certain) for start in self._starts)
            del self.tokens[kept:], self.token_logprobs[kept:]
        else:
            hold = 0 if at_end else _prefix_at_end(text, self._stop)
            certain, self._held = text[: len(text) - hold], text[len(text) - hold :]
        self.text += certain
        return certain


def _prefix_at_end(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins a stop string without being all of it."""
    longest = min(len(text), max((len(s) for s in stop), default=1) - 1)
    return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in stop)), 0)


@torch.inference_mode()
def write_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_tokens: int,
    sampling: Sampling,
    seeds: Sequence[int],
    stop: Sequence[str] = (),
) -> Iterator[list[tuple[Continuation, str]]]:
    """Continues every prompt with its own seed: at each token, every row with the text that became certain.

    The rows are the same objects throughout, in the order of the prompts; after the last turn each has its
    finish_reason. An empty prompt starts a document. Raises UserError for values out of range.
    """
    if max_tokens < 1:
        raise UserError(f"max_tokens {max_tokens} is out of range: 1 or more.")
    if not prompts or len(prompts) != len(seeds):
        raise UserError(f"{len(prompts)} prompts and {len(seeds)} seeds: give as many of each, 1 or more.")
    # the newest that fit; an empty prompt is the end of the document before
    seen = [(tokenizer.encode(prompt) or [tokenizer.end])[-model.config.context :] for prompt in prompts]
    rows = [Continuation(tokenizer, stop) for _ in prompts]
    logits, advance = _reader(model, seen, tokenizer.end)

    def step(tokens: Int[Tensor, "b"]) -> Float[Tensor, "b v"]:
        nonlocal logits
        logits = advance(tokens)
        return logits

    for tokens in decode(logits, step, max_tokens, sampling, generators(list(seeds))):
        # decode() steps only when asked for more: `logits` are still those the tokens were chosen from
        logprobs = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        turn = []
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            turn.append((row, row.push(token, logprob) if row.finish_reason is None else ""))
        over = all(row.finish_reason for row in rows)
        if over:
            yield turn
            return
        yield turn
    yield [(row, row.finish("length") if row.finish_reason is None else "") for row in rows]


def _reader(model: GPT, seen: list[list[int]], end: int):
    """(logits after the rows of `seen`, a function that adds a token to each row and gives the next)."""
    context, device = model.config.context, model.embedding.weight.device
    cache = valid = None

    def read() -> Float[Tensor, "b v"]:
        """All rows from the beginning, into a new cache."""
        nonlocal cache, valid
        distinct = list(map(list, dict.fromkeys(map(tuple, seen))))  # many samples of one prompt: read it once
        longest = max(map(len, distinct))
        tokens = torch.tensor([[end] * (longest - len(row)) + row for row in distinct], device=device)
        padding = torch.tensor([longest - len(row) for row in distinct], device=device)
        valid = torch.arange(longest, device=device) >= padding[:, None]
        cache = model.cache(len(distinct))
        logits = model(tokens, None if bool(valid.all()) else valid, cache, last=1)[:, -1]
        if len(distinct) < len(seen):
            rows = torch.tensor([distinct.index(row) for row in seen], device=device)
            logits, valid, cache = logits[rows], valid[rows], cache.select(rows)
        valid = None if bool(valid.all()) else valid
        return logits

    def advance(tokens: Int[Tensor, "b"]) -> Float[Tensor, "b v"]:
        nonlocal valid
        for row, token in zip(seen, tokens.tolist(), strict=True):
            row.append(token)
        if max(map(len, seen)) > context:
            for row in seen:
                if len(row) > context:
                    del row[: -(context // 2)]
            return read()
        if valid is not None:
            valid = torch.cat((valid, valid.new_ones(len(seen), 1)), dim=1)
        return model(tokens[:, None], valid, cache, last=1)[:, -1]

    return read(), advance


def write(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    max_tokens: int,
    sampling: Sampling,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """Continues one prompt; yields pieces of text as they become certain, without the stop string."""
    for turn in write_batch(model, tokenizer, [prompt], max_tokens, sampling, [seed], stop):
        if turn[0][1]:
            yield turn[0][1]
