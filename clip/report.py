"""A classification to look at: pictures with their ranked labels as one HTML file, and a confusion matrix as a picture.

The page is self-contained: thumbnails are in it as data, nothing is fetched, nothing runs, and every text of a stranger is
escaped. It has the look of CLIP's announcement: the right label with its rank, a bar for each of the best, ✓ or ✗.
"""

import base64
import html
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from clip.checks import NONE, Tally
from clip.labels import Label
from multimodal import checkpoint, images
from multimodal.data.report import printable

THUMBNAIL = 192  # pixels of the longer side
SHOWN = 2000  # pictures on a page, which then has about 20 MB
NAMED = 120  # classes up to which the matrix has names, and is on the page
SIDE = 1400  # pixels of the largest matrix
INK, PAPER, DEEP = (31, 41, 55), (255, 255, 255), (29, 78, 216)

STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #1f2937; --soft: #667085; --line: #e4e7ec;
  --bar: #4f6bd6; --right: #15803d; --wrong: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --paper: #111418; --card: #1b2027; --ink: #e6e9ee; --soft: #98a2b3;
  --line: #2d343e; --bar: #8098f0; --right: #4ade80; --wrong: #f87171; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 82rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; }
header p, .note { margin: 0.3rem 0; color: var(--soft); overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 0.4rem 2.5rem; margin: 1.2rem 0 0.4rem; }
.figures div { display: flex; flex-direction: column-reverse; }
.figures dd { margin: 0; font-size: 1.7rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.figures dt { font-size: 0.85rem; color: var(--soft); }
.warn { margin: 1rem 0; padding: 0.7rem 1rem; border-left: 4px solid #d97706; background: var(--card); border-radius: 6px;
  overflow-wrap: anywhere; }
details { margin: 0.8rem 0; } details ul { margin: 0.4rem 0; }
summary { cursor: pointer; color: var(--soft); }
.matrix { max-width: 100%; border: 1px solid var(--line); border-radius: 6px; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem; margin-top: 1.5rem; }
article { display: grid; grid-template-columns: 7.5rem 1fr; gap: 0.2rem 1.1rem; align-content: start; padding: 1.1rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; min-width: 0; }
article > img { width: 100%; max-height: 9rem; object-fit: contain; object-position: top; border-radius: 6px; grid-row: span 2; }
article > div { min-width: 0; }
h2 { margin: 0; font-size: 1.1rem; line-height: 1.3; overflow-wrap: anywhere; }
h2 small { display: block; font-size: 0.85rem; font-weight: 400; color: var(--soft); }
.path { grid-column: 1 / 3; margin: 0 0 0.5rem; font-size: 0.8rem; color: var(--soft); overflow-wrap: anywhere; }
ol { list-style: none; margin: 0.6rem 0 0; padding: 0; display: grid; gap: 0.5rem; }
ol li { display: grid; grid-template-columns: 1.2rem minmax(0, 1fr) auto; align-items: baseline; font-size: 0.9rem; }
li .mark { font-weight: 700; }
li .words { overflow-wrap: anywhere; }
li .share { padding-left: 0.6rem; color: var(--soft); font-variant-numeric: tabular-nums; }
li .bar { grid-column: 2 / 4; height: 7px; margin-top: 0.15rem; border-radius: 4px; overflow: hidden; background: var(--line); }
li .bar span { display: block; height: 100%; min-width: 2px; border-radius: 4px; background: var(--bar); }
.right .mark, .hit h2 b { color: var(--right); } .right .bar span { background: var(--right); }
.wrong .mark, .miss h2 b { color: var(--wrong); } .wrong .bar span { background: var(--wrong); }
ol li.none { display: block; padding-left: 1.2rem; color: var(--soft); }
.error { grid-column: 1 / 3; margin: 0; color: var(--wrong); overflow-wrap: anywhere; }
@media print { body { background: none; } article { break-inside: avoid; } }
"""


@dataclass
class Report:
    """What the page will show; cards are added as the pictures come."""

    sentence: str
    """A template, by which the labels are shown."""
    cards: list[str] = field(default_factory=list)
    pictures: int = 0
    """How many there were; only the first SHOWN have a card."""
    wrong: int = 0
    """How many of them could not be read."""

    @property
    def open(self) -> bool:
        """Whether the next picture will have a card."""
        return len(self.cards) < SHOWN

    def add(self, record: dict, count: int, thumbnail: bytes | None) -> None:
        """A picture as `clip.classify --json` prints it, of `count` labels."""
        self.pictures += 1
        self.wrong += "error" in record
        if self.open:
            self.cards.append(_card(record, count, self.sentence, thumbnail))

    def write(
        self,
        path: Path,
        about: Sequence[str],
        warnings: Sequence[str],
        tally: Tally | None = None,
        labels: Sequence[Label] = (),
    ) -> None:
        """The page. `about` tells in paragraphs how the pictures were classified."""
        judged = tally is not None and tally.pictures > 0
        heading = f"{self.pictures:,} picture{'s' * (self.pictures != 1)} classified"
        body = [f"<header><h1>{heading}</h1>", *(f"<p>{_safe(text)}</p>" for text in about)]
        if self.pictures > len(self.cards):
            body.append(f"<p>The first {len(self.cards):,} of them are shown.</p>")
        body.append("</header>")
        if judged:
            body.append(_figures(tally, self.wrong))
        body += [f'<p class="warn">{_safe(text)}</p>' for text in warnings]
        if judged and (mistakes := tally.mistakes(labels, 10)):
            rows = "".join(
                f"<li>{count:,} × {_safe(truth)} named {_safe(said)}</li>" for count, truth, said in mistakes
            )
            body.append(f"<details><summary>Most frequent mistakes</summary><ul>{rows}</ul></details>")
        if judged and (matrix := confusion(tally, labels)) is not None and len(tally.pairs) > 1:
            body.append(
                f'<details><summary>Confusion matrix</summary><img class="matrix" src="{_data(_png(matrix), "png")}" '
                'alt="confusion matrix: rows are the truth, columns what was said"></details>'
            )
        page = (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
            "'unsafe-inline'\">"
            f"<title>{heading}</title><style>{STYLE}</style></head><body>"
            f"{''.join(body)}<main>{''.join(self.cards)}</main></body></html>\n"
        )
        checkpoint.write_text(path, page)


def thumbnail(picture: Image.Image) -> bytes:
    """A small JPEG of the picture."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    kept = io.BytesIO()
    small.convert("RGB").save(kept, "JPEG", quality=80)
    return kept.getvalue()


def _card(record: dict, count: int, sentence: str, small: bytes | None) -> str:
    name = f'<p class="path">{_safe(record["image"])}</p>'
    if "error" in record:
        return f'<article>{name}<p class="error">{_safe(record["error"])}</p></article>'
    truth, rows = record.get("truth"), list(record["predictions"])
    head = rows[0] if truth is None else truth
    if truth is not None and all(row["label"] != truth["label"] for row in rows):
        rows.append(truth)
    rank = "" if truth is None else f"ranked {truth['rank']} out of {count} labels"
    label = "none of these" if record.get("none") and truth is None else head["label"]
    hit = truth is not None and rows[0]["label"] == truth["label"] and not record.get("none")
    known = "" if truth is None else "hit" if hit else "miss"
    small_print = f"<small>({100 * head['probability']:.1f} %) {rank}</small>"
    image = "" if small is None else f'<img src="{_data(small, "jpeg")}" alt="" loading="lazy">'
    lines = "".join(_row(row, sentence, truth) for row in rows)
    title = f"<h2><b>{_safe(label)}</b> {small_print}</h2>"
    if record.get("none"):
        lines += '<li class="none">none of these: no label is probable enough</li>'
    return f'<article class="{known}">{name}{image}<div>{title}<ol>{lines}</ol></div></article>'


def _row(row: dict, sentence: str, truth: dict | None) -> str:
    kind, mark = ("", "") if truth is None else ("right", "✓") if row["label"] == truth["label"] else ("wrong", "✗")
    before, _, after = sentence.partition("{}")
    share = 100 * row["probability"]
    return (
        f'<li class="{kind}"><span class="mark">{mark}</span>'
        f'<span class="words">{_safe(before)}<b>{_safe(row["label"])}</b>{_safe(after.replace("{}", row["label"]))}</span>'
        f'<span class="share">{share:.1f} %</span>'
        f'<span class="bar"><span style="width:{min(100.0, share):.2f}%"></span></span></li>'
    )


def _figures(tally: Tally, unread: int) -> str:
    told = {"accuracy": "right", "top5": "among the first five", "mean_per_class": "right, mean over classes"}
    parts = [f"<div><dd>{100 * value:.1f} %</dd><dt>{told[name]}</dt></div>" for name, value in tally.figures().items()]
    parts.append(f"<div><dd>{tally.pictures:,}</dd><dt>pictures with truth</dt></div>")
    if unread:
        parts.append(f"<div><dd>{unread:,}</dd><dt>could not be read</dt></div>")
    return f'<dl class="figures">{"".join(parts)}</dl>'


def _safe(text: str) -> str:
    return html.escape(printable(text))


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _png(picture: Image.Image) -> bytes:
    kept = io.BytesIO()
    picture.save(kept, "PNG", optimize=True)
    return kept.getvalue()


# ---- the confusion matrix


def confusion(tally: Tally, labels: Sequence[Label]) -> Image.Image | None:
    """Rows are the truth, columns what was said, in the order of the labels; the darker a square, the larger its share of
    the row. Of many labels only those that occur; None where even these are too many to draw."""
    pairs = tally.pairs
    occurring = {place for pair in pairs for place in pair}
    places = [i for i in range(len(labels)) if len(labels) <= NAMED or i in occurring]
    if not pairs or len(places) > SIDE:
        return None
    columns = [*places, *([NONE] if NONE in occurring else [])]
    cell = max(1, min(34, SIDE // len(columns)))
    named = len(columns) <= NAMED
    font = ImageFont.load_default(max(9, min(13, cell - 1)))
    names = [_short("none of these" if place == NONE else labels[place].key) for place in columns] if named else []
    edge = 14 + int(max((font.getlength(name) for name in names), default=0))
    told, small_font, foot = "rows: truth, columns: what was said", ImageFont.load_default(12), 26
    width = edge + max(len(columns) * cell, int(small_font.getlength(told))) + 14
    sheet = Image.new("RGB", (width, edge + len(places) * cell + foot), PAPER)
    pen = ImageDraw.Draw(sheet)
    number = {place: i for i, place in enumerate(columns)}
    rows: Counter[int] = Counter()
    for (truth, _), count in pairs.items():
        rows[truth] += count
    for (truth, said), count in pairs.items():
        x, y = edge + number[said] * cell, edge + number[truth] * cell
        share = count / rows[truth]
        shade = tuple(round(light + (deep - light) * share**0.7) for light, deep in zip(PAPER, DEEP, strict=True))
        pen.rectangle((x, y, x + cell - 1, y + cell - 1), fill=shade)
        if cell >= 20:
            pen.text(
                (x + cell / 2, y + cell / 2), str(count), fill=PAPER if share > 0.4 else INK, font=font, anchor="mm"
            )
    right, bottom = edge + len(columns) * cell, edge + len(places) * cell
    if cell >= 8:
        for i in range(len(columns) + 1):
            pen.line((edge + i * cell, edge, edge + i * cell, bottom), fill=(228, 231, 236))
        for i in range(len(places) + 1):
            pen.line((edge, edge + i * cell, right, edge + i * cell), fill=(228, 231, 236))
    else:
        pen.rectangle((edge - 1, edge - 1, right, bottom), outline=(152, 162, 179))
    for i, name in enumerate(names):
        if i < len(places):
            pen.text((edge - 6, edge + (i + 0.5) * cell), name, fill=INK, font=font, anchor="rm")
        _upwards(sheet, name, edge + (i + 0.5) * cell, edge - 6.0, font)
    pen.text((edge, bottom + 8), told, fill=(102, 112, 133), font=small_font)
    return sheet


def write_confusion(path: Path, tally: Tally, labels: Sequence[Label]) -> bool:
    """The matrix as PNG; tells whether it could be drawn."""
    picture = confusion(tally, labels)
    if picture is None:
        return False
    with checkpoint.replacing(path) as aside:
        picture.save(aside, "PNG", optimize=True)
    return True


def _short(name: str) -> str:
    name = images.plain(printable(name))  # what the font has
    return name if len(name) <= 32 else f"{name[:31]}…"


def _upwards(sheet: Image.Image, text: str, x: float, y: float, font) -> None:
    """Text that reads from bottom to top, its end at the height y."""
    left, top, right, bottom = font.getbbox(text)
    if right <= left or bottom <= top:
        return
    strip = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2), 0)
    ImageDraw.Draw(strip).text((1 - left, 1 - top), text, fill=255, font=font)
    strip = strip.rotate(90, expand=True)
    sheet.paste(INK, (round(x - strip.width / 2), round(y - strip.height)), strip)
