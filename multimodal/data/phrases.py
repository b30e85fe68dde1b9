"""Words for scenes: for every meaning the ways to say it, in English, and the simplest of them in other languages.

In a template {a}, {b}, {c} are things with their article, {name} is one without, {colour}, {number} and {style} are what
they say; `said` makes "an" of "a" where it must. Of two things that stand beside or above each other, {a} is the left or
upper one, whoever is spoken of first.
"""

import re
from dataclasses import dataclass

OPENINGS = (
    "a drawing of {}", "a picture of {}", "an image of {}", "an illustration of {}", "a cartoon of {}", "an emoji of {}",
    "an icon of {}", "draw {}", "draw me {}", "show me {}", "please draw {}", "can you draw {}", "i want {}",
)  # fmt: skip
STYLED = (
    "{} in the style of {style}", "a {style} drawing of {}", "{} in {style} style", "{} drawn by {style}",
    "{} as drawn by {style}", "a {style} emoji of {}", "{style} style, {}", "{}, {style}",
)  # fmt: skip
LOOKS = {
    "outline": (
        "a line drawing of {}", "an outline of {}", "the outline of {}", "{} in black lines", "a sketch of {}",
        "a colouring page of {}", "{} drawn with a pen", "{} as an outline",
    ),
    "silhouette": (
        "a silhouette of {}", "the silhouette of {}", "a black silhouette of {}", "the shadow of {}",
        "{} as a silhouette", "{}, only its silhouette",
    ),
    "grey": (
        "{} in black and white", "a black and white drawing of {}", "a grey drawing of {}", "{} in shades of grey",
        "a grayscale picture of {}", "{} without colours",
    ),
    "pixels": (
        "{} as pixel art", "pixel art of {}", "a pixel art drawing of {}", "{} in 8-bit style", "{} made of pixels",
        "a pixelated {name}",
    ),
}  # fmt: skip
BACKGROUND = (
    "{a} on a {colour} background", "{a} on a {colour} background", "{a} in front of a {colour} background",
    "{a} with a {colour} background", "{a} against a {colour} background", "{a} on {colour}", "{a}, {colour} background",
    "a {colour} background with {a}", "{a}, the background is {colour}", "{a} on a {colour} wall",
)  # fmt: skip
PAINTED = (
    "{painted}", "{painted}", "{painted}", "{painted}", "{a} painted {colour}", "{a} in {colour}", "{a} dyed {colour}",
    "{colour} {name}",
)  # fmt: skip
SHAPES = {
    "circle": ("{a} in a {colour} circle", "{a} on a {colour} circle", "{a} on a {colour} disc", "a {colour} circle with {a}"),
    "square": ("{a} in a {colour} square", "{a} on a {colour} square", "{a} in a {colour} box", "a {colour} square with {a}"),
}  # fmt: skip
PLACES = {
    "top left": ("{a} in the top left corner", "{a} in the upper left corner", "{a} at the top left"),
    "top right": ("{a} in the top right corner", "{a} in the upper right corner", "{a} at the top right"),
    "bottom left": ("{a} in the bottom left corner", "{a} in the lower left corner", "{a} at the bottom left"),
    "bottom right": ("{a} in the bottom right corner", "{a} in the lower right corner", "{a} at the bottom right"),
    "top": ("{a} at the top", "{a} at the top of the picture", "{a} in the upper half"),
    "bottom": ("{a} at the bottom", "{a} at the bottom of the picture", "{a} in the lower half"),
    "left": ("{a} on the left", "{a} on the left side", "{a} in the left half"),
    "right": ("{a} on the right", "{a} on the right side", "{a} in the right half"),
}  # fmt: skip
SIZES = {
    "tiny": ("a tiny {name}", "a very small {name}", "a teeny {name}", "a {name} far away"),
    "small": ("a small {name}", "a little {name}", "a small {name} in the middle"),
    "large": ("a large {name}", "a big {name}", "a huge {name}", "a {name} that fills the picture", "a giant {name}"),
}
BIGGER = (
    "a big {first} next to a small {second}", "a large {first} and a small {second}", "a big {first} beside a little {second}",
    "a {first} that is bigger than a {second}", "a huge {first} and a tiny {second}",
)  # fmt: skip
SMALLER = (
    "a small {first} next to a big {second}", "a small {first} and a large {second}", "a little {first} beside a big {second}",
    "a {first} that is smaller than a {second}", "a tiny {first} and a huge {second}",
)  # fmt: skip
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
COUNTS = ("{number} {plural}", "{number} {plural}", "{number} {plural}", "{digit} {plural}", "exactly {number} {plural}",
          "a group of {number} {plural}", "{number} {plural} together")  # fmt: skip
ONE = ("one {name}", "a single {name}", "1 {name}", "just one {name}", "exactly one {name}")
TWO = ("a pair of {plural}", "a couple of {plural}")
TOGETHER = (
    "{a} and {b}", "{a} and {b}", "{a} next to {b}", "{a} next to {b}", "{a} beside {b}", "{a} with {b}", "{a} by {b}",
    "{a} together with {b}", "{a}, {b}", "{a} near {b}", "{a} side by side with {b}",
)  # fmt: skip
RELATIONS = {
    "left": (
        "{a} to the left of {b}", "{b} to the right of {a}", "{a} to the left of {b}", "{b} to the right of {a}",
        "{a} left of {b}", "{b} right of {a}", "{a} on the left of {b}", "{b} on the right of {a}",
        "{a} on the left and {b} on the right", "{b} on the right and {a} on the left", "{b} with {a} to its left",
        "{a} with {b} to its right", "{a} on the left, {b} on the right", "{b} on the right, {a} on the left",
    ),
    "above": (
        "{a} above {b}", "{b} below {a}", "{a} above {b}", "{b} below {a}", "{a} on top of {b}", "{b} under {a}",
        "{a} over {b}", "{b} underneath {a}", "{b} beneath {a}", "{a} at the top and {b} at the bottom",
        "{b} at the bottom and {a} at the top", "{b} with {a} on top", "{a} with {b} below it", "{a} standing on {b}",
    ),
}  # fmt: skip
THREE = {
    "between": ("{b} between {a} and {c}", "{b} between {a} and {c}", "{a} and {c} with {b} between them"),
    "row": ("{a}, {b} and {c}", "{a}, {b} and {c} in a row", "{a} and {b} and {c}", "{a}, {b}, {c}"),
    "above both": ("{a} above {b} and {c}", "{a} on top, below it {b} and {c}", "{b} and {c} under {a}"),
    "below both": ("{c} below {a} and {b}", "{a} and {b} above {c}", "{c} under {a} and {b}"),
}
COLOUR_WORDS = {"grey": ("grey", "gray"), "purple": ("purple", "violet")}


@dataclass(frozen=True)
class Language:
    """How one language says that a thing is on a background or in a style, without articles; `colours` in the form
    that stands in the template."""

    on: str
    styled: str
    colours: str

    def colour(self, name: str) -> str:
        return dict(zip(COLOUR_ORDER, self.colours.split(), strict=True))[name].replace("_", " ")


COLOUR_ORDER = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "black")
LANGUAGES = {
    "fr": Language(
        "{a} sur fond {c}", "{a} façon {style}", "rouge orange jaune vert bleu violet rose marron gris noir"
    ),
    "de": Language(
        "{a} auf {c} hintergrund", "{a} im stil von {style}",
        "rotem orangem gelbem grünem blauem violettem rosafarbenem braunem grauem schwarzem",
    ),
    "es": Language(
        "{a} sobre fondo {c}", "{a} al estilo de {style}",
        "rojo naranja amarillo verde azul morado rosa marrón gris negro",
    ),
    "it": Language(
        "{a} su sfondo {c}", "{a} in stile {style}", "rosso arancione giallo verde blu viola rosa marrone grigio nero"
    ),
    "pt": Language(
        "{a} em fundo {c}", "{a} no estilo {style}", "vermelho laranja amarelo verde azul roxo rosa marrom cinza preto"
    ),
    "id": Language(
        "{a} dengan latar belakang {c}", "{a} dengan gaya {style}",
        "merah oranye kuning hijau biru ungu merah_muda cokelat abu-abu hitam",
    ),
    "tr": Language(
        "{c} arka planda {a}", "{style} tarzında {a}",
        "kırmızı turuncu sarı yeşil mavi mor pembe kahverengi gri siyah",
    ),
    "ru": Language(
        "{a} на {c} фоне", "{a} в стиле {style}",
        "красном оранжевом жёлтом зелёном синем фиолетовом розовом коричневом сером чёрном",
    ),
    "ar": Language(
        "{a} على خلفية {c}", "{a} بأسلوب {style}",
        "حمراء برتقالية صفراء خضراء زرقاء بنفسجية وردية بنية رمادية سوداء",
    ),
    "fa": Language(
        "{a} روی پس‌زمینه {c}", "{a} به سبک {style}", "قرمز نارنجی زرد سبز آبی بنفش صورتی قهوه‌ای خاکستری سیاه"
    ),
    "zh": Language(
        "{c}背景上的{a}", "{style}风格的{a}", "红色 橙色 黄色 绿色 蓝色 紫色 粉色 棕色 灰色 黑色"
    ),
    "ja": Language(
        "{c}背景の{a}", "{style}風の{a}", "赤い オレンジ色の 黄色い 緑の 青い 紫の ピンクの 茶色の 灰色の 黒い"
    ),
    "ko": Language(
        "{c} 배경의 {a}", "{style} 스타일의 {a}",
        "빨간색 주황색 노란색 초록색 파란색 보라색 분홍색 갈색 회색 검은색",
    ),
}  # fmt: skip

OPEN_PROMPTS = (
    "an armchair in the shape of an avocado", "a snail made of harp", "a baby daikon radish in a tutu walking a dog",
    "a blue cat with a hat", "a cat riding a bicycle", "a robot eating pizza", "a giraffe with the legs of a turtle",
    "a penguin on the moon", "a teapot in the shape of a brain", "a dragon made of fire", "a fox reading a book",
    "a strawberry elephant", "a sad robot", "the letter a", "a red cube on top of a green cube", "a rainbow over a castle",
    "a photograph of a mountain at night", "a dog with sunglasses", "seven bananas", "a city", "a portrait of a woman",
    "something sweet", "a cat without a tail", "colourless green ideas sleep furiously",
)  # fmt: skip
"""What people try and training never shows, to see honestly what happens: the first three are of Ramesh et al. 2021."""

IRREGULAR = {
    "bison": "bison", "deer": "deer", "die": "dice", "fish": "fish", "goose": "geese", "jellyfish": "jellyfish",
    "knife": "knives", "leaf": "leaves", "moose": "moose", "mouse": "mice", "ox": "oxen", "potato": "potatoes",
    "scarf": "scarves", "snowman": "snowmen", "squid": "squid", "tomato": "tomatoes", "tooth": "teeth", "wolf": "wolves",
}  # fmt: skip


def said(template: str, *parts: str, **words: str | int) -> str:
    """The template with its parts, and "an" where "a" stands before a vowel."""
    return re.sub(r"\ba (?=([aeioux8]\S*))", lambda found: f"{article(found[1])} ", template.format(*parts, **words))


def plural(name: str) -> str:
    """cats, ears of corn, houses with garden, forks and knives."""
    for joint in (" of ", " with ", " on ", " in "):
        if joint in name:
            head, rest = name.split(joint, 1)
            return f"{_plural(head)}{joint}{rest}"
    return " and ".join(map(_plural, name.split(" and ")))


def _plural(words: str) -> str:
    """The last word in its plural."""
    first, space, last = words.rpartition(" ")
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last = f"{last}es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last = f"{last}s"
    return f"{first}{space}{last}"


def article(word: str) -> str:
    """By the sound of the word: an hour, a unicorn, an x-ray."""
    if word.startswith(("hour", "heir", "x-", "8")):
        return "an"
    return "a" if word[0] not in "aeiou" or word.startswith(("uni", "ewe", "euro", "one")) else "an"


def is_plural(name: str) -> bool:
    last = name.split(" of ")[0].split()[-1]
    if last in ("maracas", "s"):
        return last == "maracas"
    return last.endswith("s") and not last.endswith(("ss", "us", "is", "as", "os"))


def with_article(name: str, mass: bool = False) -> str:
    """a cat, an owl, scissors, bread."""
    return name if mass or is_plural(name) else f"{article(name)} {name}"
