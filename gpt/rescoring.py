"""Rescoring: hypotheses in; what a language model thinks of them, the weights to add that by, and word errors, out.

score = acoustic + lm_weight * lm_logprob + word_insertion * words, and the highest of an utterance is chosen. By Bayes'
rule (the noisy channel of Bahl, Jelinek and Mercer 1983) the weights are 1 and 0; they are tuned, since the models are
not equally right about how sure they are. Tuning counts the word errors of a development list along lines in the plane of
the weights. On a line every score is linear, so the choice changes at a few known places, and the count is exact (Och
2003, for translation): no grid, and no assumption on the unit of the acoustic scores.
Legend: n hypotheses of all utterances in a row.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from gpt.model import GPT
from gpt.nbest import Hypothesis
from gpt.scoring import continuations, encode_pair
from multimodal.tokenizer import Tokenizer

TOGETHER = 512  # texts that are encoded before they are scored

End = Literal["nothing", "line", "document"]
Case = Literal["keep", "lower", "sentence"]


def words_of(text: str, fold: bool = False) -> list[str]:
    """The words that are counted and compared; with `fold` without capitals and without punctuation around them."""
    if not fold:
        return text.split()
    bare = (_bare(word) for word in text.casefold().split())
    return [word for word in bare if word]


def _bare(word: str) -> str:
    inside = [i for i, letter in enumerate(word) if letter.isalnum()]
    return word[inside[0] : inside[-1] + 1] if inside else ""


@dataclass(frozen=True)
class WordErrors:
    """What has to be done to hypotheses to make their references of them."""

    substitutions: int = 0
    insertions: int = 0
    """Words that nobody said."""
    deletions: int = 0
    """Words that were said and are missing."""
    words: int = 0
    """Of the references."""

    def __add__(self, other: "WordErrors") -> "WordErrors":
        return WordErrors(
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.words + other.words,
        )

    @property
    def errors(self) -> int:
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        return self.errors / max(self.words, 1)


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> WordErrors:
    """The fewest errors (Levenshtein 1966), and of the ways to have as few the one with most words right."""
    count, begin = len(reference), 0
    while begin < min(len(reference), len(hypothesis)) and reference[begin] == hypothesis[begin]:
        begin += 1
    reference, hypothesis = reference[begin:], hypothesis[begin:]
    ending = 0
    while ending < min(len(reference), len(hypothesis)) and reference[-1 - ending] == hypothesis[-1 - ending]:
        ending += 1
    said, heard = len(reference) - ending, len(hypothesis) - ending
    if not said or not heard:
        return WordErrors(0, heard, said, count)
    # costs are errors * one + substitutions, so that one number holds both; the insertions of a row are all made
    # at once: cost[j] = min over i <= j of (cost before them)[i] + (j - i) * one
    one = said + heard + 1
    number = {word: i for i, word in enumerate({*reference[:said], *hypothesis[:heard]})}
    target = np.array([number[word] for word in hypothesis[:heard]])
    steps = np.arange(heard + 1, dtype=np.int64) * one
    cost = steps.copy()
    for word in reference[:said]:
        through = cost[:-1] + np.where(target == number[word], 0, one + 1)
        cost = cost + one
        np.minimum(cost[1:], through, out=cost[1:])
        cost = np.minimum.accumulate(cost - steps) + steps
    errors, substitutions = divmod(int(cost[-1]), one)
    # the others are insertions and deletions, whose difference is that of the lengths
    deletions = (errors - substitutions + said - heard) // 2
    return WordErrors(substitutions, errors - substitutions - deletions, deletions, count)


def errors_of(
    lists: Mapping[str, Sequence[Hypothesis]], references: Mapping[str, str], fold: bool = False
) -> dict[str, list[WordErrors]]:
    """The errors of every hypothesis, for the utterances that have a reference."""
    found = {}
    for utterance, hypotheses in lists.items():
        if utterance in references:
            said = words_of(references[utterance], fold)
            found[utterance] = [word_errors(said, words_of(hypothesis.text, fold)) for hypothesis in hypotheses]
    return found


def total(errors: Mapping[str, Sequence[WordErrors]], chosen: Mapping[str, int]) -> WordErrors:
    """The errors of what was chosen of each utterance, together."""
    return sum((each[chosen[utterance]] for utterance, each in errors.items()), WordErrors())


def cased(text: str, case: Case) -> str:
    """The text as the language model reads it: as it is, in lower case, or so but for its first letter."""
    text = text if case == "keep" else text.lower()
    return text[:1].upper() + text[1:] if case == "sentence" else text


def language_scores(
    model: GPT,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    context: str = "",
    end: End = "nothing",
    case: Case = "keep",
    tick: Callable[[int], object] = lambda count: None,
) -> dict[str, float]:
    """{text: log-probability in nats} after `context`, or at the start of a document; `end` adds that of its end.

    A context that ends without white space is given a space. `tick` is told how many more different texts are done.
    """
    context = context if not context or context[-1].isspace() else f"{context} "
    scores: dict[str, float] = {}
    # like lengths share a pass, the same text is read once, and the order of the texts does not matter
    waiting = sorted(set(texts), key=lambda text: (len(text), text))
    for begin in range(0, len(waiting), TOGETHER):
        chunk, rows = waiting[begin : begin + TOGETHER], []
        for text in chunk:
            read = cased(text, case) + ("\n" if end == "line" else "")
            before, after = encode_pair(tokenizer, context, read)
            rows.append((before, [*after, tokenizer.end] if end == "document" else after))
        found = continuations(model, tokenizer.end, rows)
        scores.update((text, scored.logprob) for text, scored in zip(chunk, found, strict=True))
        tick(len(chunk))
    return scores


@dataclass(frozen=True)
class Weights:
    """Of what is added to an acoustic score; as they stand, those of Bayes' rule."""

    lm_weight: float = 1.0
    """Of the language model's log-probability in nats."""
    word_insertion: float = 0.0
    """What every word adds: below 0 a penalty, above 0 a reward."""

    def score(self, hypothesis: Hypothesis, logprob: float) -> float:
        words = len(hypothesis.text.split())
        return hypothesis.acoustic + self.lm_weight * logprob + self.word_insertion * words


ACOUSTIC = Weights(0.0, 0.0)  # the recogniser alone


def choose(
    lists: Mapping[str, Sequence[Hypothesis]], logprobs: Mapping[str, float], weights: Weights
) -> dict[str, int]:
    """The place of each utterance's best hypothesis; of equally good ones the first. `logprobs` are by text."""
    chosen = {}
    for utterance, hypotheses in lists.items():
        scores = [weights.score(hypothesis, logprobs[hypothesis.text]) for hypothesis in hypotheses]
        chosen[utterance] = scores.index(max(scores))
    return chosen


def tune(
    lists: Mapping[str, Sequence[Hypothesis]],
    logprobs: Mapping[str, float],
    errors: Mapping[str, Sequence[WordErrors]],
) -> Weights:
    """The weights with the fewest word errors on a development list, the lm_weight at least 0.

    Lines run along both axes and in between, where a word adds a share of what the language model takes for one, and
    through the origin: first from there, then from the best place for as long as that helps. Where a stretch of a line
    is equally good, its middle is taken.
    """
    owner = np.repeat(np.arange(len(errors)), [len(each) for each in errors.values()])
    hypotheses = [hypothesis for utterance in errors for hypothesis in lists[utterance]]
    acoustic = np.array([hypothesis.acoustic for hypothesis in hypotheses])
    lm = np.array([logprobs[hypothesis.text] for hypothesis in hypotheses])
    words = np.array([float(len(hypothesis.text.split())) for hypothesis in hypotheses])
    wrong = np.array([found.errors for each in errors.values() for found in each])

    def search(at: tuple[float, float], direction: tuple[float, float]) -> tuple[int, tuple[float, float]]:
        low = -at[0] / direction[0] if direction[0] else -math.inf
        start, slope = acoustic + at[0] * lm + at[1] * words, direction[0] * lm + direction[1] * words
        found, t = fewest_on_line(owner, start, slope, wrong, low)
        return found, (max(0.0, at[0] + t * direction[0]), at[1] + t * direction[1])

    nats = -lm.sum() / max(words.sum(), 1.0)
    directions = [(1.0, share * nats) for share in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)] + [(0.0, 1.0)]
    fewest, at = min((search((0.0, 0.0), direction) for direction in directions), key=lambda found: found[0])
    for _ in range(20):
        before = fewest
        for direction in (*directions, at):
            found, place = search(at, direction)
            if found <= fewest:
                fewest, at = found, place
        if fewest == before:
            break
    return Weights(float(at[0]), float(at[1]))


def fewest_on_line(
    owner: Int[np.ndarray, "n"],
    start: Float[np.ndarray, "n"],
    slope: Float[np.ndarray, "n"],
    errors: Int[np.ndarray, "n"],
    low: float,
) -> tuple[int, float]:
    """(errors, t): the fewest errors that the hypotheses highest by start + t * slope have for any t >= low, and the
    middle of the widest stretch of t with as few; 0 where t changes nothing. `owner` numbers the utterances, in order.
    """
    borders = np.flatnonzero(np.diff(owner, prepend=-1))

    def highest(values: Float[np.ndarray, "n"]) -> np.ndarray:
        """The place of each utterance's first highest value."""
        top = np.maximum.reduceat(values, borders)[owner]
        return np.minimum.reduceat(np.where(values == top, np.arange(len(values)), len(values)), borders)

    # as t grows, ever steeper hypotheses are highest: from the one that is so at `low`, follow each utterance's chain
    if math.isinf(low):
        flattest = slope == np.minimum.reduceat(slope, borders)[owner]
        chosen = highest(np.where(flattest, start, -np.inf))
    else:
        chosen = highest(start + low * slope)
    initial, changes = int(errors[chosen].sum()), []
    while True:
        gain = slope - slope[chosen][owner]
        ahead = start[chosen][owner] - start
        crossing = np.divide(ahead, gain, out=np.full(len(start), np.inf), where=gain > 0)
        nearest = np.minimum.reduceat(crossing, borders)
        moves = np.isfinite(nearest)
        if not moves.any():
            break
        # of those that cross at the same place the steepest stays highest
        following = highest(np.where(crossing == nearest[owner], slope, -np.inf))
        changes.append((nearest[moves], (errors[following] - errors[chosen])[moves]))
        chosen = np.where(moves, following, chosen)
    if not changes:
        return initial, 0.0
    places, which = np.unique(np.concatenate([place for place, _ in changes]), return_inverse=True)
    deltas = np.bincount(which, weights=np.concatenate([delta for _, delta in changes]))
    counts = np.concatenate(([0.0], deltas.cumsum())).round().astype(np.int64) + initial
    # stretches between the changes, on an axis bent so that infinity is at 1 and half of the changes within 1/2
    unit = float(np.median(np.abs(places))) or 1.0
    edges = np.clip(np.concatenate(([low], places, [math.inf])), -1e300, 1e300)
    bent = edges / (np.abs(edges) + unit)
    wide = np.diff(bent) > 1e-9  # what is narrower is rounding
    begins, ends, counts = bent[:-1][wide], bent[1:][wide], counts[wide]
    few = counts == counts.min()
    first, last = few & ~np.roll(few, 1), few & ~np.roll(few, -1)
    first[0], last[-1] = few[0], few[-1]
    widest = (ends[last] - begins[first]).argmax()
    middle = (begins[first][widest] + ends[last][widest]) / 2
    return int(counts.min()), float(unit * middle / (1 - abs(middle)))
