"""Labelled sets made here, so that fine-tuning and probing need no file: a name and a kind in, two lists of rows out, to
train on and to judge on.

Each is a pure function. `authors` is cut from default texts that no language model of this toolkit was trained on, and
judged on other books than trained on; it is one question, asked in each of GPT-1's four ways. `sentiment` are sentences
put together from words, judged on other words.
"""

import random
import re
from collections.abc import Sequence

from gpt.labelled import Row
from multimodal.cli import UserError
from multimodal.data import text as corpora

Halves = tuple[list[Row], list[Row]]
# of each default text, the books to train on and to judge on; all are among those held out of the models' training
BOOKS = {
    "shakespeare": (("macbeth", "twelfth_night"), ("richard_iii",)),
    "bible": (("Ruth", "Proverbs", "Mark", "1 Samuel"), ("Romans",)),
    "python": (("argparse", "heapq", "shutil", "statistics"), ("textwrap",)),
}
WORDS_OF_A_PIECE = 6
PIECES = (200, 100)  # of each text, to train on and to judge on


def authors(kind: str = "classification") -> Halves:
    """Six words in lower case: by Shakespeare, from the Bible, or from Python's library? The kinds ask it as
    classification (which?), entailment ("this is from the bible": true or false?), similarity (two pieces: the same
    source?) and multiple choice (three pieces: which one is "from the bible"?)."""
    found = corpora.default_corpora()
    return _authors(found, kind, 0), _authors(found, kind, 1)


def _authors(found: dict[str, list[corpora.Document]], kind: str, half: int) -> list[Row]:
    pieces = {name: _pieces(found.get(name, []), name, half) for name in BOOKS}
    draw, rows = random.Random(half), []
    for name in BOOKS:
        for i in range(PIECES[half]):
            piece, right = pieces[name][i], i % 2 == 0
            said = name if right else draw.choice([other for other in BOOKS if other != name])
            if kind == "classification":
                rows.append(Row((piece,), name))
            elif kind == "entailment":
                rows.append(Row((piece, f"this is from {said}"), str(right).lower()))
            elif kind == "similarity":
                others = [other for other in pieces[said] if other != piece]
                rows.append(Row((piece, draw.choice(others)), "same" if right else "different"))
            else:
                order = draw.sample(list(BOOKS), len(BOOKS))
                choices = (pieces[other][i] for other in order)
                rows.append(Row((f"from {name}", *choices), "ABC"[order.index(name)]))
    return draw.sample(rows, len(rows))


def _pieces(documents: Sequence[corpora.Document], name: str, half: int) -> list[str]:
    """So many words in a row out of a text's books, without capitals and marks, which would tell too much."""
    found = {document.name: document for document in documents}
    pool = set()
    for book in BOOKS[name][half]:
        if book not in found:
            raise UserError(f"--example authors: the default text {name!r} with {book} is not installed; give --data.")
        for line in found[book].text.splitlines():
            words, n = re.findall(r"[a-z']+", line.lower()), WORDS_OF_A_PIECE
            pool |= {" ".join(words[i : i + n]) for i in range(0, len(words) - n + 1, n)}
    return random.Random(name).sample(sorted(pool), PIECES[half])


# of praise and of blame; the first three quarters are trained on
WORDS = {
    "positive": """good fair sweet gentle noble blessed merry happy joyful glad kind gracious holy righteous faithful
        honest lovely precious worthy valiant wise pleasant glorious true pure virtuous excellent tender merciful perfect
        goodly loyal beautiful brave cheerful just humble innocent generous bountiful comfortable honourable delicate
        fortunate upright patient constant healthy""".split(),
    "negative": """evil wicked vile foul cruel bloody false cursed wretched sad bitter sorrowful angry base ugly filthy
        corrupt unclean foolish sinful miserable dreadful grievous envious hateful sick monstrous deadly unjust shameful
        mad rotten wrathful traitorous villanous damned greedy lewd hideous idle unkind horrible perverse drunken
        deceitful froward barbarous ungodly""".split(),
}
NOUNS = (
    "man woman king servant house day word heart city voice face night child deed friend daughter brother song".split()
)
SENTENCES = (
    "The {noun} was {word}.",
    "What a {word} {noun} is this!",
    "He spake of a {word} {noun}.",
    "I never saw so {word} a {noun} in my life.",
    "They say that the {noun} is {word}.",
    "This {word} {noun} is known to all men.",
    "And behold, the {noun} was very {word} in his eyes.",
    "Is not the {noun} of that country {word}?",
)


def sentiment() -> Halves:
    """A sentence about something good or bad: positive or negative? Judged on words of praise and blame never trained on."""
    return _sentences(0, 300), _sentences(1, 120)


def _sentences(half: int, count: int) -> list[Row]:
    rows = []
    for label, words in WORDS.items():
        border = len(words) * 3 // 4
        every = [
            Row((sentence.format(noun=noun, word=word),), label, group=word)
            for word in (words[border:] if half else words[:border])
            for noun in NOUNS
            for sentence in SENTENCES
        ]
        rows += random.Random(label).sample(every, count)
    return random.Random(half).sample(rows, len(rows))


def make(name: str, kind: str) -> Halves:
    """(rows to train on, rows to judge on) of the set with that name, asked as that kind."""
    if name == "authors":
        return authors(kind)
    if name == "sentiment" and kind == "classification":
        return sentiment()
    there = "authors and sentiment" if kind == "classification" else "authors"
    raise UserError(f"--example {name}: for {kind} there is {there}.")
