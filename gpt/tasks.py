"""The tasks that come along, each made by a pure function of a seed out of what is installed; a task has examples to
show and queries to answer, apart from each other.

Translation: the emoji dictionary (multimodal/data/text.py); its queries are words of the part that is held out of the
bundled model's training, in every language. Arithmetic and word scrambles: after GPT-3 (Brown et al. 2020, sections
3.9.1 and 3.9.2), with three wrong options beside the right one. Sentiment: sentences put together from words, which are
other words in the queries.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial

from gpt import demonstrations
from gpt.prompting import Item, Task
from multimodal.cli import UserError
from multimodal.data import text

EXAMPLES, QUERIES = 200, 200
WORDS = 2000  # the most frequent ones are scrambled; GPT-3's are the first 10,000 of a list we do not have


def make(name: str, seed: int = 0) -> Task:
    """The task of that name. Raises UserError when what it is made of is not installed."""
    return SHIPPED[name][1](seed)


def options(right: str, wrong: Sequence[str], generator: random.Random) -> tuple[str, ...]:
    """The right answer among the wrong ones, anywhere."""
    mixed = [right, *wrong]
    generator.shuffle(mixed)
    return tuple(mixed)


def corpora(*wanted: str) -> list[list[text.Document]]:
    """The default texts of these names, all of which are needed."""
    found = text.default_corpora()
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"the text {missing[0]!r}, of which the task is made, is not installed (see above).")
    return [found[name] for name in wanted]


@cache
def dictionary(language: str) -> tuple[dict[str, str], dict[str, str]]:
    """(words to learn from, held-out words), English to the language.

    Names in capitals are left out: flags are the country's name, which needs no translation.
    """
    return tuple(
        {
            english: foreign
            for document in half
            if document.name.startswith(f"{language}-")
            for english, foreign in (line.split(" => ", 1) for line in document.text.splitlines()[1:])
            if english[0].islower()
        }
        for half in text.split(*corpora("emoji"))
    )


@cache
def frequent_words() -> list[str]:
    """Words of Shakespeare and the Bible of 5 to 14 letters, as GPT-3's are long, the most frequent first."""
    counts: Counter[str] = Counter()
    for documents in corpora("shakespeare", "bible"):
        for document in documents:
            counts.update(re.findall(r"\b[a-z]{5,14}\b", document.text))
    return sorted(counts, key=lambda word: (-counts[word], word))[:WORDS]


def translation(language: str, seed: int) -> Task:
    """English words and their translations; the options of a query are translations of other held-out words."""
    training, held = dictionary(language)
    generator = random.Random(seed)
    answers = sorted(set(held.values()))
    queries = []
    for english, foreign in held.items():
        wrong = generator.sample([answer for answer in answers if answer != foreign], 3)
        queries.append(Item(english, foreign, options(foreign, wrong, generator)))
    return Task(
        f"translate-{language}",
        tuple(Item(*pair) for pair in training.items()),
        tuple(queries),
        f"Translate English to {text.LANGUAGES[language]}:",
    )


NEAR = (-20, -11, -10, -9, -2, -1, 1, 2, 9, 10, 11, 20)  # mistakes in a digit or two


def arithmetic(name: str, question: Callable[[random.Random], tuple[str, int]], seed: int) -> Task:
    """Sums as questions; the wrong options are near, and negative only where the answer is."""
    generator = random.Random(seed)
    found = distinct(lambda: question(generator), EXAMPLES + QUERIES)
    queries = []
    for asked, result in found[EXAMPLES:]:
        near = [result + step for step in NEAR if (result + step < 0) == (result < 0)]
        wrong = [str(number) for number in generator.sample(near, 3)]
        queries.append(Item(asked, str(result), options(str(result), wrong, generator)))
    return Task(
        name,
        tuple(Item(asked, str(result)) for asked, result in found[:EXAMPLES]),
        tuple(queries),
        template="Q: What is {input}?\nA: {output}",
        separator="\n\n",
    )


def distinct(make: Callable[[], tuple[str, object]], count: int) -> list[tuple]:
    """`count` pairs with different first members."""
    found: dict[str, object] = {}
    while len(found) < count:
        asked, result = make()
        found.setdefault(asked, result)
    return list(found.items())


def two_numbers(word: str, digits: int, generator: random.Random) -> tuple[str, int]:
    """For example ("48 plus 76", 124): numbers from 0 up to as many digits."""
    a, b = generator.randrange(10**digits), generator.randrange(10**digits)
    return f"{a} {word} {b}", {"plus": a + b, "minus": a - b, "times": a * b}[word]


def three_digits(generator: random.Random) -> tuple[str, int]:
    """For example ("6+(4*8)", 38): three one-digit numbers."""
    operations = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
    a, b, c = (generator.randrange(10) for _ in range(3))
    first, second = (generator.choice(sorted(operations)) for _ in range(2))
    return f"{a}{first}({b}{second}{c})", operations[first](a, operations[second](b, c))


def cycle(word: str, generator: random.Random) -> str:
    """The letters moved around by some places: "inevitably" as "lyinevitab"."""
    at = generator.randrange(1, len(word))
    return word[at:] + word[:at]


def anagram(ends: int, word: str, generator: random.Random) -> str:
    """All letters but the first `ends` and the last `ends` in random order."""
    middle = list(word[ends:-ends])
    generator.shuffle(middle)
    return word[:ends] + "".join(middle) + word[-ends:]


def insertion(word: str, generator: random.Random) -> str:
    """A random mark or space after every letter but the last."""
    return "".join(letter + generator.choice(" .,!?;:/-'") for letter in word[:-1]) + word[-1]


def backwards(word: str, generator: random.Random) -> str:
    return word[::-1]


def scramble(name: str, change: Callable[[str, random.Random], str], seed: int) -> Task:
    """Frequent words, changed; the wrong options are others about as long."""
    words = frequent_words()
    generator = random.Random(seed)
    found: dict[str, str] = {}
    for word in generator.sample(words, len(words)):
        changed = change(word, generator)
        if changed != word and len(found) < EXAMPLES + QUERIES:
            found.setdefault(changed, word)
    pairs, queries = list(found.items()), []
    for changed, word in pairs[EXAMPLES:]:
        others = generator.sample([other for other in words if other != word], 100)
        wrong = sorted(others, key=lambda other: abs(len(other) - len(word)))[:3]
        queries.append(Item(changed, word, options(word, wrong, generator)))
    return Task(
        name,
        tuple(Item(*pair) for pair in pairs[:EXAMPLES]),
        tuple(queries),
        "Please unscramble the letters into a word, and write that word:",
        "{input} = {output}",
    )


def sentiment(seed: int) -> Task:
    """Sentences of praise or blame; the queries use words that no example has (gpt/demonstrations.py)."""
    generator = random.Random(seed)
    shown, asked = (
        [(row.texts[0], row.label) for row in generator.sample(rows, count)]
        for rows, count in zip(demonstrations.sentiment(), (EXAMPLES, QUERIES), strict=True)
    )
    labels = ("positive", "negative")
    return Task(
        "sentiment",
        tuple(Item(*pair) for pair in shown),
        tuple(Item(*pair, labels) for pair in asked),
        template="Review: {input}\nSentiment: {output}",
        separator="\n\n",
    )


def shipped() -> dict[str, tuple[str, Callable[[int], Task]]]:
    """{name: (what it asks for, the function that makes it)}."""
    found: dict[str, tuple[str, Callable[[int], Task]]] = {}
    for code, language in text.LANGUAGES.items():
        found[f"translate-{code}"] = (f"English words to {language}, held-out ones", partial(translation, code))
    for name, word, most in (("add", "plus", 5), ("subtract", "minus", 5), ("multiply", "times", 2)):
        for digits in range(2, most + 1):
            sentence = f"numbers of up to {digits} digits: What is 48 {word} 76?"
            question = partial(two_numbers, word, digits)
            found[f"{name}-{digits}"] = (sentence, partial(arithmetic, f"{name}-{digits}", question))
    found["three-numbers"] = (
        "three one-digit numbers: What is 6+(4*8)?",
        partial(arithmetic, "three-numbers", three_digits),
    )
    for name, sentence, change in (
        ("cycle", "letters moved around: lyinevitab", cycle),
        ("anagram-1", "all letters mixed but the first and the last", partial(anagram, 1)),
        ("anagram-2", "all letters mixed but the first two and the last two", partial(anagram, 2)),
        ("insertion", "marks between the letters: s.u!c/c e.s,s", insertion),
        ("backwards", "words spelled from their end: stcejbo", backwards),
    ):
        found[name] = (sentence, partial(scramble, name, change))
    found["sentiment"] = ("whether a sentence is positive or negative, with unseen adjectives", sentiment)
    return found


SHIPPED = shipped()
