"""Judges of a classification: right and wrong counted, and what looks wrong with the question itself.

Names or truth in another order than the classes are what spoils published figures most often, and no accuracy tells it
from a weak model. Here each suspicion is a sentence, and needs evidence: a permutation is found on one half of the
pictures and must be better on the other half.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from clip.labels import Label, finder, words
from clip.templates import PromptSet

NONE = -1  # the place of no class: nothing reached the threshold
ENOUGH = 3.0  # standard deviations that a better permutation must be better by
MOST = 1000  # classes that are permuted; the time grows with the cube
MOST_PAIRS = 4000  # classes whose vectors are compared with one another
ALIKE, ALL_ALIKE = 0.995, 0.97  # cosines of two classes' vectors, and on average of all
FEW = 4  # examples in a sentence


class Tally:
    """What was right: add a picture at a time."""

    def __init__(self, count: int):
        self.count = count
        self.pictures = self.top5 = 0
        self.halves: tuple[Counter, Counter] = (Counter(), Counter())
        self._seen: Counter[int] = Counter()

    def add(self, truth: int, predicted: int, place: int) -> None:
        """A picture of class `truth` was named `predicted`, or NONE; its truth came at `place`, 1 for the first."""
        self.pictures += 1
        self.top5 += place <= 5
        self.halves[self._seen[truth] % 2][truth, predicted] += 1
        self._seen[truth] += 1

    @property
    def pairs(self) -> Counter:
        """How often each (truth, predicted) came."""
        return self.halves[0] + self.halves[1]

    def figures(self) -> dict[str, float]:
        """Shares of pictures: named rightly, with the truth among the first five (where there are more), and the mean
        over the classes of the share named rightly."""
        pairs = self.pairs
        right = {truth: pairs[truth, truth] for truth in self._seen}
        found = {"accuracy": sum(right.values()) / self.pictures}
        if self.count > 5:
            found["top5"] = self.top5 / self.pictures
        found["mean_per_class"] = float(np.mean([right[truth] / seen for truth, seen in self._seen.items()]))
        return found

    def summary(self) -> str:
        """The figures in a sentence."""
        found = self.figures()
        parts = [f"{100 * found['accuracy']:.1f} % right"]
        if "top5" in found:
            parts.append(f"{100 * found['top5']:.1f} % among the first five")
        if len(self._seen) > 1:
            parts.append(f"{100 * found['mean_per_class']:.1f} % as the mean of {len(self._seen)} classes")
        return f"{self.pictures:,} picture{'s' * (self.pictures != 1)} with truth: {', '.join(parts)}"

    def mistakes(self, labels: Sequence[Label], most: int = 5) -> list[tuple[int, str, str]]:
        """The most frequent ones: how often, the truth, what was said."""
        wrong = [(count, *pair) for pair, count in self.pairs.items() if pair[0] != pair[1]]
        wrong.sort(key=lambda entry: (-entry[0], entry[1:]))
        return [(count, labels[truth].key, called(labels, said)) for count, truth, said in wrong[:most]]


def called(labels: Sequence[Label], place: int) -> str:
    return "none of these" if place == NONE else labels[place].key


# ---- the order of classes


def assignment(gain: Float[np.ndarray, "n n"]) -> list[int]:
    """For each row a column, no column twice, so that the sum of the gains is the largest: the Hungarian method (Kuhn
    1955), row by row along shortest augmenting paths (Jonker and Volgenant 1987)."""
    n = len(gain)
    cost = gain.max(initial=0.0) - gain
    row_price, column_price = np.zeros(n), np.zeros(n)
    row_of = np.full(n, -1)
    for row in range(n):
        distance, before, done = np.full(n, np.inf), np.full(n, -1), np.zeros(n, bool)
        at, column = row, -1
        while True:
            reduced = cost[at] - row_price[at] - column_price
            base = 0.0 if column < 0 else distance[column]
            better = ~done & (base + reduced < distance)
            distance[better], before[better] = base + reduced[better], column
            column = int(np.where(done, np.inf, distance).argmin())
            done[column] = True
            if row_of[column] < 0:
                break
            at = row_of[column]
        shortest = distance[column]
        ended = done.copy()
        ended[column] = False
        row_price[row] += shortest
        row_price[row_of[ended]] += shortest - distance[ended]
        column_price[ended] -= shortest - distance[ended]
        while column >= 0:
            earlier = before[column]
            row_of[column] = row if earlier < 0 else row_of[earlier]
            column = earlier
    found = np.empty(n, int)
    found[row_of] = np.arange(n)
    return found.tolist()


def cycles(order: Sequence[int]) -> list[list[int]]:
    """A permutation's circles of two and more."""
    found, seen = [], set()
    for start in range(len(order)):
        circle, at = [], start
        while at not in seen:
            seen.add(at)
            circle.append(at)
            at = order[at]
        if len(circle) > 1:
            found.append(circle)
    return found


def order_of(tally: Tally, labels: Sequence[Label]) -> list[str]:
    """Sentences where the classes look permuted: where, of the half of the pictures by which a permutation was not
    chosen, it makes more right than can be chance."""
    places = sorted({place for pair in tally.pairs for place in pair} - {NONE})
    if not 2 <= len(places) <= MOST:
        return []
    number = {place: i for i, place in enumerate(places)}
    gain = np.eye(len(places)) * (0.5 / len(places))  # in doubt a class stays itself
    for (truth, said), count in tally.halves[0].items():
        if said != NONE:
            gain[number[truth], number[said]] += count
    order = assignment(gain)
    other, found, before, after, seen = tally.halves[1], [], 0, 0, 0
    for circle in cycles(order):
        names = [places[i] for i in circle]
        now = sum(other[name, name] for name in names)
        then = sum(other[places[i], places[order[i]]] for i in circle)
        if then - now >= ENOUGH * max(1.0, (now + then) ** 0.5):
            found.append(names)
            before, after = before + now, after + then
            seen += sum(count for (truth, _), count in other.items() if truth in set(names))
    if not found:
        return []
    moved = [(names[i], names[(i + 1) % len(names)]) for names in found for i in range(len(names))]
    told = ", ".join(f"{labels[truth].key!r} is named {labels[said].key!r}" for truth, said in moved[:FEW])
    return [
        f"the order of {len(moved)} classes looks wrong: of {seen} pictures that were not used to find it out, {after} would be "
        f"right in another order, and {before} are in this one ({told}{', ...' if len(moved) > FEW else ''}). Are labels and "
        "truth in the same order, and the names right?"
    ]


def one_answer(tally: Tally, labels: Sequence[Label]) -> list[str]:
    """A sentence if everything is called the same although it is not."""
    said = {said for _, said in tally.pairs}
    truths = {truth for truth, _ in tally.pairs}
    if len(said) == 1 and len(truths) > 2 and tally.pictures >= 20:
        return [f"every picture was named {called(labels, said.pop())!r}: do the labels say what can be seen?"]
    return []


# ---- the names


def names_of(labels: Sequence[Label]) -> list[str]:
    """Sentences about names that say little to a model."""
    plain = [label.names[0] for label in labels if not label.prompts]
    synsets = [name for name in plain if re.fullmatch(r"n\d{8}", name)]
    numbers = [name for name in plain if name.isdecimal()]
    raw = [name for name in plain if words(name) != " ".join(name.split())]
    found = []
    if synsets:
        found.append(
            f"{_many(synsets)} as in WordNet, which says nothing to a model: --templates imagenet knows the names, and "
            "these as their folders."
        )
    if len(numbers) > 1:
        found.append(f"{_many(numbers)} a number: pictures are named by words, unless they show numbers.")
    if raw:
        found.append(
            f"{_many(raw)} the name of a folder or a variable: write it as people do, such as {words(raw[0])!r}; a table "
            "with the columns label and names (--labels-file) keeps both."
        )
    return found


def published_names(labels: Sequence[Label], published: PromptSet | None) -> list[str]:
    """A sentence where the data set whose templates are used has better names for just these classes."""
    if published is None:
        return []
    place = finder(published.classes)
    said = lambda label: {name.lower() for name in label.names}  # noqa: E731
    pairs = [(label, published.classes[i]) for label in labels if (i := place(label.key)) is not None]
    better = [(label, other) for label, other in pairs if not label.prompts and said(label) != said(other)]
    if not better:
        return []
    label, other = better[0]
    return [
        f"{published.title} has names of its own for {len(better)} of the labels, such as {other.names[0]!r} for "
        f"{label.key!r}: without --labels, --labels-file and --labels-from they are used."
    ]


def _many(names: Sequence[str]) -> str:
    first = repr(names[0])
    return f"label {first} is" if len(names) == 1 else f"{len(names)} labels, {first} being the first, are each"


def alike(classes: Float[Tensor, "c d"], labels: Sequence[Label]) -> list[str]:
    """Sentences about labels that look the same to the model, from their vectors."""
    if not 2 <= len(labels) <= MOST_PAIRS:
        return []
    cosines = classes.float().cpu() @ classes.float().cpu().T
    count = len(labels)
    mean = (cosines.sum() - cosines.trace()).item() / (count * (count - 1))
    if count > 2 and mean > ALL_ALIKE:
        return [
            f"the labels look all alike to the model (their cosines are {mean:.3f} on average): does it know this language, "
            "and these words?"
        ]
    same = {(label.names, label.prompts): i for i, label in enumerate(labels)}
    pairs: Int[Tensor, "p 2"] = (cosines.triu(1) > ALIKE).nonzero()
    told = [(labels[i], labels[j], cosines[i, j].item()) for i, j in pairs.tolist()]
    twice = [one.names[0] for one, two, _ in told if one.names == two.names and one.prompts == two.prompts]
    found = []
    if len(same) < count:
        found.append(f"the source gives {', '.join(map(repr, twice[:FEW]))} to two classes each: the first is taken.")
    near = [(one, two, cosine) for one, two, cosine in told if one.names != two.names or one.prompts != two.prompts]
    if near:
        pairs_told = ", ".join(f"{one.key!r} and {two.key!r} ({cosine:.4f})" for one, two, cosine in near[:FEW])
        more = f" and {len(near) - FEW} more pairs" if len(near) > FEW else ""
        found.append(
            f"the model can hardly tell some labels apart, by the cosine of their vectors: {pairs_told}{more}."
        )
    return found
