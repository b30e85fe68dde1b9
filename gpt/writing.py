"""Writing: prompts in; text out, piece by piece as it becomes certain, with every token's log-probability.

Rows of different length run as one batch by padding on the left, and each comes out as it would alone; a row that has
ended leaves the batch. Stop strings are looked for in the decoded text, so they match wherever token borders fall; what
might be the beginning of one is held back, and half a UTF-8 character never leaves. Past the context window the oldest
half of a row is dropped, and what is left is read again: learned positions allow nothing else, and all models then behave
alike. What is asked for (n, best_of, echo, logprobs) means what it means in the completions API of GPT-3 (Brown et al.
2020). Legend: b rows, n positions, v vocabulary.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpt.model import GPT
from gpt.scoring import windows
from multimodal.cli import UserError
from multimodal.sampling import Chooser, Sampling, generators
from multimodal.tokenizer import Tokenizer

MAX_STOPS, MAX_STOP_LETTERS = 100, 1_000
MAX_ALTERNATIVES = 100  # likeliest tokens that may be asked for at each position
MAX_CHOICES = 1_000  # continuations of one prompt
MAX_ROWS, MAX_CACHE_BYTES = 64, 2**29  # of one batch of `complete`

Top = list[tuple[int, float]]
"""Tokens and their log-probabilities, the likeliest first; last the one that was chosen, if it is none of the likeliest."""


@dataclass(frozen=True)
class Request:
    """What is asked of the writing, for every prompt alike."""

    max_tokens: int = 16
    """Most tokens to write; 0 with echo scores the prompt and writes nothing."""
    sampling: Sampling = Sampling()
    """How each token is chosen."""
    stop: tuple[str, ...] = ()
    """Texts that end the writing and are left out."""
    n: int = 1
    """Continuations of a prompt."""
    best_of: int | None = None
    """As many are written, and the n with the highest mean log-probability of a token are kept, the best first."""
    logprobs: int | None = None
    """As many of the likeliest tokens are kept for each position, and the prompt is scored where it is echoed."""
    echo: bool = False
    """The text, tokens and log-probabilities begin with the prompt's."""

    def __post_init__(self):
        if not 1 <= self.n <= MAX_CHOICES:
            raise UserError(f"n {self.n} is out of range: 1 to {MAX_CHOICES} continuations.")
        if self.best_of is not None and not self.n <= self.best_of <= MAX_CHOICES:
            raise UserError(f"best_of {self.best_of} is out of range: n, which is {self.n}, to {MAX_CHOICES}.")


class Continuation:
    """One row's text while it is written; `finish_reason` is None until it ends by "stop" or "length".

    `prompt` are the tokens that it follows: they may end in half a character.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), prompt: Sequence[int] = ()):
        if not all(stop):
            raise UserError("a stop string is empty: it would end every text at once; leave it out.")
        if len(stop) > MAX_STOPS or max(map(len, stop), default=0) > MAX_STOP_LETTERS:
            raise UserError(
                f"{len(stop)} stop strings, the longest of {max(map(len, stop)):,} characters, are too many or too long: "
                f"allowed are {MAX_STOPS} of at most {MAX_STOP_LETTERS:,}."
            )
        self.text = ""
        """What has become certain."""
        self.tokens: list[int] = []
        """The tokens of the text; with "stop", those that lie wholly in the stop string are left out."""
        self.token_logprobs: list[float | None] = []
        """The model's own log-probability (nats) of each, before temperature and the like."""
        self.top_logprobs: list[Top | None] = []
        """The likeliest in the place of each, where asked for."""
        self.text_offsets: list[int] = []
        """Where in the text each begins."""
        self.ending: tuple[float, Top | None] | None = None
        """Where the end of the document ended the text: its log-probability and the likeliest in its place."""
        self.finish_reason: str | None = None
        self._stop = tuple(stop)
        self._held = ""  # decoded, but it may be the beginning of a stop string
        self._echoed = 0
        self._chosen: list[float] = []  # of all that was chosen, also what a stop string or the end took away
        self._tokenizer, self._stream = tokenizer, tokenizer.stream()
        for token in prompt[-4:]:  # half a character has three bytes at most
            self._stream.push(token)

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of all that was chosen, the end or a stop string included."""
        return sum(self._chosen) / max(len(self._chosen), 1)

    def echo(self, prompt: Sequence[int], logprobs: Sequence[float | None], top: Sequence[Top | None]) -> str:
        """Begins with the prompt; returns its text."""
        self._stream = self._tokenizer.stream()
        for token, logprob, likeliest in zip(prompt, logprobs, top, strict=True):
            self._append(token, logprob, likeliest)
            self.text += self._stream.push(token)
        self._echoed = len(self.tokens)
        return self.text

    def push(self, token: int, logprob: float, top: Top | None = None) -> str:
        """Takes the next token; returns the text that became certain by it."""
        self._chosen.append(logprob)
        if token == self._tokenizer.end:
            self.ending = (logprob, top)
            return self.finish("stop")
        self._append(token, logprob, top)
        return self._release(self._stream.push(token), at_end=False)

    def _append(self, token: int, logprob: float | None, top: Top | None) -> None:
        self.tokens.append(token)
        self.token_logprobs.append(logprob)
        self.top_logprobs.append(top)
        self.text_offsets.append(len(self.text) + len(self._held))

    def finish(self, reason: str) -> str:
        """Ends the row; returns the text that was held back."""
        self.finish_reason = reason
        return self._release(self._stream.flush(), at_end=True)

    def _release(self, new: str, at_end: bool) -> str:
        text = self._held + new
        found = [place for place in map(text.find, self._stop) if place >= 0]
        if found:
            certain, self._held, self.finish_reason = text[: min(found)], "", "stop"
            kept = bisect_left(self.text_offsets, len(self.text) + len(certain), self._echoed)
            for each in (self.tokens, self.token_logprobs, self.top_logprobs, self.text_offsets):
                del each[kept:]
        else:
            hold = 0 if at_end else _prefix_at_end(text, self._stop)
            certain, self._held = text[: len(text) - hold], text[len(text) - hold :]
        self.text += certain
        return certain


def _prefix_at_end(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins a stop string without being all of it."""
    longest = min(len(text), max((len(s) for s in stop), default=1) - 1)
    return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in stop)), 0)


def read_prompt(tokenizer: Tokenizer, prompt: str | Sequence[int]) -> list[int]:
    """The tokens of a prompt, which may be given as tokens. Raises UserError for one that is none."""
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    for token in prompt:
        if not 0 <= token < tokenizer.vocab_size:
            raise UserError(f"the prompt has the token {token}: allowed are 0 to {tokenizer.vocab_size - 1:,}.")
    return list(prompt)


def judge(
    logits: Float[Tensor, "n v"], tokens: Int[Tensor, "n"], count: int | None
) -> tuple[list[float], list[Top | None]]:
    """The model's own log-probability of each token, and with a `count` that many of the likeliest in its place."""
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(1, tokens[:, None])[:, 0].tolist()
    if count is None:
        return chosen, [None] * len(chosen)
    values, ids = (found.tolist() for found in logprobs.topk(min(count, logits.shape[-1])))
    top = [list(zip(*pair, strict=True)) for pair in zip(ids, values, strict=True)]
    for row, token, logprob in zip(top, tokens.tolist(), chosen, strict=True):
        if all(token != other for other, _ in row):
            row.append((token, logprob))
    return chosen, top


@torch.inference_mode()
def judge_prompt(
    model: GPT, tokenizer: Tokenizer, prompt: Sequence[int], count: int | None
) -> tuple[list[float | None], list[Top | None]]:
    """`judge` for every token of a prompt given those before it; nothing is known of the first.

    A prompt longer than the context is judged by overlapping windows (see `gpt.scoring.windows`).
    """
    ids = torch.tensor(prompt, device=model.embedding.weight.device)
    logprobs, top = [None] * min(len(ids), 1), [None] * min(len(ids), 1)
    for begin, first, end in windows(len(ids), model.config.context):
        logits = model(ids[None, begin:end], last=end - first + 1)[0, :, : tokenizer.vocab_size]
        found = judge(logits, ids[first : end + 1], count)
        logprobs, top = logprobs + found[0], top + found[1]
    return logprobs, top


class Reader:
    """Rows of tokens that a model has read and goes on reading; `logits` (b v) are of what follows each.

    `end` fills the rows up to one length, on the left. `vocabulary`: tokens that may follow, of a model that has more.
    `room`: as many tokens may yet come.
    """

    def __init__(self, model: GPT, rows: Sequence[Sequence[int]], end: int, vocabulary: int, room: int):
        self._model, self._end, self._vocabulary, self._room = model, end, vocabulary, room
        self._rows = [list(row[-model.config.context :]) or [end] for row in rows]
        self.logits = self._read()

    @property
    def full(self) -> bool:
        """Whether the next token will make everything be read again."""
        return self._cache.length == self._cache.capacity

    def _read(self) -> Float[Tensor, "b v"]:
        """All rows from the beginning, into a new cache."""
        weight = self._model.embedding.weight
        distinct = list(map(list, dict.fromkeys(map(tuple, self._rows))))  # many samples of one prompt: read it once
        longest = max(map(len, distinct))
        tokens = torch.tensor([[self._end] * (longest - len(row)) + row for row in distinct], device=weight.device)
        padding = torch.tensor([longest - len(row) for row in distinct], device=weight.device)
        self._valid = torch.arange(longest, device=weight.device) >= padding[:, None]
        size = min(self._model.config.context, longest + self._room)
        self._cache = self._model.cache(len(distinct), size)
        logits = self._forward(tokens, None if bool(self._valid.all()) else self._valid)
        if len(distinct) < len(self._rows):
            places = {tuple(row): place for place, row in enumerate(distinct)}
            rows = [places[tuple(row)] for row in self._rows]
            self._take(rows)
            logits = logits[rows]
        self._valid = None if bool(self._valid.all()) else self._valid
        return logits

    def _forward(self, tokens: Int[Tensor, "b n"], valid: Tensor | None) -> Float[Tensor, "b v"]:
        return self._model(tokens, valid, self._cache, last=1)[:, -1, : self._vocabulary]

    def _take(self, rows: list[int]) -> None:
        self._cache = self._cache.select(torch.tensor(rows, device=self._model.embedding.weight.device))
        if self._valid is not None:
            self._valid = self._valid[rows]

    def select(self, rows: list[int]) -> None:
        """Goes on with these rows, which may be named several times."""
        if rows != list(range(len(self._rows))):
            self._rows = [list(self._rows[row]) for row in rows]
            self._take(rows)

    def advance(self, tokens: Int[Tensor, "b"]) -> None:
        """Adds a token to each row, and reads it."""
        full, context = self.full, self._model.config.context
        for row, token in zip(self._rows, tokens.tolist(), strict=True):
            row.append(token)
            if len(row) > context:
                del row[: -(context // 2)]
        if full:
            self.logits = self._read()
            return
        if self._valid is not None:
            self._valid = torch.cat((self._valid, self._valid.new_ones(len(self._valid), 1)), dim=1)
        self.logits = self._forward(tokens[:, None], self._valid)


@torch.inference_mode()
def write_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    max_tokens: int,
    sampling: Sampling,
    seeds: Sequence[int],
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    echo: bool = False,
) -> Iterator[list[tuple[Continuation, str]]]:
    """Continues every prompt (text or tokens) with its own seed: at each token, every row with the text that became
    certain; with `echo` the prompts come first.

    The rows are the same objects throughout, in the order of the prompts; after the last turn each has its
    finish_reason. An empty prompt starts a document. Raises UserError for values out of range.
    """
    if max_tokens < 1 and not (max_tokens == 0 and echo):
        raise UserError(f"max_tokens {max_tokens} is out of range: 1 or more, or 0 with echo, which scores the prompt.")
    if not prompts or len(prompts) != len(seeds):
        raise UserError(f"{len(prompts)} prompts and {len(seeds)} seeds: give as many of each, 1 or more.")
    if logprobs is not None and not 0 <= logprobs <= MAX_ALTERNATIVES:
        raise UserError(f"logprobs {logprobs} is out of range: 0 to {MAX_ALTERNATIVES}.")
    ids = [read_prompt(tokenizer, prompt) for prompt in prompts]
    rows = [Continuation(tokenizer, stop, prompt) for prompt in ids]
    if echo:
        judged = {}
        for prompt, row in zip(ids, rows, strict=True):
            if tuple(prompt) not in judged:
                unknown = [None] * len(prompt), [None] * len(prompt)
                judged[tuple(prompt)] = (
                    unknown if logprobs is None else judge_prompt(model, tokenizer, prompt, logprobs)
                )
            row.echo(prompt, *judged[tuple(prompt)])
        yield [(row, row.text) for row in rows]
    if max_tokens:
        reader = Reader(model, ids, tokenizer.end, tokenizer.vocab_size, max_tokens)
        chooser = Chooser(sampling, generators(list(seeds)), reader.logits, ids)
    live = list(range(len(rows)))  # which rows the batch holds
    for position in range(max_tokens):
        tokens = chooser(reader.logits)
        pieces = [""] * len(rows)
        for i, token, *found in zip(live, tokens.tolist(), *judge(reader.logits, tokens, logprobs), strict=True):
            if rows[i].finish_reason is None:
                pieces[i] = rows[i].push(token, *found)
        going = [place for place, i in enumerate(live) if rows[i].finish_reason is None]
        yield list(zip(rows, pieces, strict=True))
        if not going:
            return
        if position + 1 < max_tokens:  # the model is asked only when a further token is wanted
            # leaving costs a copy of the cache: not for each row that ends
            if len(going) <= 3 * len(live) / 4 or (reader.full and len(going) < len(live)):
                reader.select(going)
                chooser.select(going)
                live, tokens = [live[place] for place in going], tokens[going]
            reader.advance(tokens)
    yield [(row, row.finish("length") if row.finish_reason is None else "") for row in rows]


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


def complete(
    model: GPT, tokenizer: Tokenizer, prompts: Sequence[str | Sequence[int]], request: Request, seed: int = 0
) -> Iterator[list[Continuation]]:
    """Prompt after prompt, its finished continuations; those of every prompt have the seeds seed, seed + 1 ..."""
    if not prompts:
        raise UserError("there is no prompt to continue: give 1 or more.")
    each = request.best_of or request.n
    jobs = [(read_prompt(tokenizer, prompt), seed + i) for prompt in prompts for i in range(each)]
    longest = min(model.config.context, max(len(prompt) for prompt, _ in jobs) + request.max_tokens)
    config, size = model.config.transformer, model.embedding.weight.element_size()
    at_once = max(1, min(MAX_ROWS, MAX_CACHE_BYTES // (2 * config.depth * config.width * size * max(longest, 1))))
    rows: list[Continuation] = []
    for start in range(0, len(jobs), at_once):
        part = jobs[start : start + at_once]
        turns = write_batch(
            model, tokenizer, [prompt for prompt, _ in part], request.max_tokens, request.sampling,
            [row_seed for _, row_seed in part], request.stop, request.logprobs, request.echo,
        )  # fmt: skip
        (last,) = deque(turns, maxlen=1)
        rows += [row for row, _ in last]
        while len(rows) >= each:
            done, rows = rows[:each], rows[each:]
            if each > request.n:
                done = sorted(done, key=lambda row: -row.mean_logprob)[: request.n]
            yield done
