"""Beam search: a prompt in; the likeliest texts that follow, with their scores, out.

GPT-3 writes its free-form answers so, with 4 beams and a length penalty alpha of 0.6 (Brown et al. 2020, section 2.4).
score = log-probability / ((5 + tokens) / 6)^alpha (Wu et al. 2016, section 7), the end of the document counted as a token.
At every length the `beams` likeliest of all continuations of all beams go on; a text that ends while it is among them is
set aside. The search ends when no beam can still become one of the n best: it is exact with as many beams as there are
texts, and with one beam it is greedy. Legend: k beams, v vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gpt.model import GPT
from gpt.writing import Continuation, Reader, read_prompt
from multimodal.cli import UserError
from multimodal.tokenizer import Tokenizer

BEAMS, LENGTH_PENALTY = 4, 0.6  # those of GPT-3
MAX_BEAMS = 100


@dataclass(frozen=True)
class Hypothesis:
    """A text on the way, as its tokens and the log-probability of each."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        return math.fsum(self.logprobs)


def score(total: float, length: int, length_penalty: float) -> float:
    """What texts of different length are compared by."""
    return total / ((5 + length) / 6) ** length_penalty


@torch.inference_mode()
def beam_search(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    max_tokens: int,
    beams: int = BEAMS,
    length_penalty: float = LENGTH_PENALTY,
    stop: Sequence[str] = (),
    n: int = 1,
) -> list[tuple[float, Continuation]]:
    """The n best continuations that the search found, each with its score, the best first.

    A stop string, like the end of the document, ends a text at the token that completes it. Past the context window the
    writing's policy holds. Raises UserError for values out of range.
    """
    if max_tokens < 1:
        raise UserError(f"max_tokens {max_tokens} is out of range: 1 or more.")
    if not 1 <= beams <= MAX_BEAMS:
        raise UserError(f"beams {beams} is out of range: 1 (the likeliest token each time) to {MAX_BEAMS}.")
    if not 1 <= n <= beams:
        raise UserError(f"n {n} is out of range: 1 to the number of beams, which is {beams}.")
    if not 0 <= length_penalty <= 10:
        raise UserError(f"length_penalty {length_penalty} is out of range: 0 (the likeliest text) to 10 (long texts).")
    ids = read_prompt(tokenizer, prompt)
    Continuation(tokenizer, stop)  # stop strings are checked before any work

    def ends(tokens: tuple[int, ...]) -> bool:
        if tokens[-1] == tokenizer.end:
            return True
        text = tokenizer.decode(tokens) if stop else ""
        return any(s in text for s in stop)

    def rank(hypothesis: Hypothesis) -> float:
        return score(hypothesis.total, len(hypothesis.tokens), length_penalty)

    reader = Reader(model, [ids], tokenizer.end, tokenizer.vocab_size, max_tokens)
    running, ended = [Hypothesis((), ())], []
    for length in range(1, max_tokens + 1):
        going, parents = [], []
        for place, (parent, token, logprob) in enumerate(_ranked(running, reader.logits, 2 * beams)):
            old = running[parent]
            longer = Hypothesis((*old.tokens, token), (*old.logprobs, logprob))
            if ends(longer.tokens):
                # beyond the beams nothing counts: an end that the beam would not have kept is no find
                ended += [longer] if place < beams else []
            else:
                going.append(longer)
                parents.append(parent)
            if len(going) == beams:
                break
        running, last = going, length == max_tokens
        ended = sorted(ended + (running if last else []), key=rank, reverse=True)[:n]
        # log-probabilities only fall, and no text becomes longer than max_tokens
        hope = max((score(h.total, max_tokens, length_penalty) for h in running), default=-math.inf)
        if last or not running or (len(ended) == n and rank(ended[-1]) >= hope):
            break
        reader.select(parents)
        reader.advance(torch.tensor([h.tokens[-1] for h in running], device=reader.logits.device))
    return [(rank(hypothesis), _written(tokenizer, ids, stop, hypothesis)) for hypothesis in ended]


def _ranked(running: list[Hypothesis], logits: Float[Tensor, "k v"], count: int) -> Iterator[tuple[int, int, float]]:
    """(beam, token, log-probability of the token) of all continuations, the likeliest text first; `count` are looked up
    at first, and more when they are asked for."""
    logprobs = logits.float().log_softmax(-1).cpu().double()
    totals = (logprobs + torch.tensor([h.total for h in running], dtype=torch.float64)[:, None]).flatten()
    seen = 0
    while seen < len(totals):
        count = min(count, len(totals))
        for place in totals.topk(count).indices[seen:].tolist():
            parent, token = divmod(place, logits.shape[-1])
            yield parent, token, logprobs[parent, token].item()
        seen, count = count, 4 * count


def _written(tokenizer: Tokenizer, prompt: list[int], stop: Sequence[str], found: Hypothesis) -> Continuation:
    row = Continuation(tokenizer, stop, prompt)
    for token, logprob in zip(found.tokens, found.logprobs, strict=True):
        row.push(token, logprob)
    if row.finish_reason is None:
        row.finish("length")
    return row
