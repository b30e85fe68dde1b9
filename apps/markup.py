"""How the page shows what the models gave: text, drawings and rankings in, HTML for `page.css` out.

Every word of a visitor or a model is escaped here; pictures travel inside the page, so that no file is left behind.
"""

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from html import escape

from PIL import Image

from apps.answers import Drawing, Judged, Row, Token, Told, is_part
from multimodal.tokenizer import END

SHOWN = 5  # bars of a ranking
CARD_BARS, THUMBNAIL = 3, 96  # of one of several pictures
FOUND = 200  # pixels of a picture that a search found, at most
SIGNS = str.maketrans(" \n\t", "␣↵⇥")
SHADES = (0.5, 0.1, 0.01, 0.001)  # a token's colour tells which of these its probability reaches


def data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def hint(text: str) -> str:
    """What stands where something will appear."""
    return f'<div class="hint">{escape(text)}</div>'


def note(text: str) -> str:
    """The line under an output."""
    return f'<div class="note" role="status">{escape(text)}</div>'


def visible(text: str) -> str:
    """A token by itself: spaces, ends of lines and the like as signs."""
    text = re.sub(" {4,}", lambda found: f"␣×{len(found[0])}", text)
    text = text.translate(SIGNS)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def legend() -> str:
    names = [*(f"≥ {100 * share:g}%" for share in SHADES), "less"]
    shades = "".join(f'<span class="p{i}">{name}</span>' for i, name in enumerate(names))
    return f'<div class="legend"><span>Probability of a token:</span>{shades}</div>'


def tokens(found: Sequence[Token], branch: int | None = None) -> str:
    """Every token on the colour of its probability, with what `tokens.js` shows of it.

    With `branch`, the number of a candidate, one may go on from what else was likely.
    """
    spans = []
    for place, token in enumerate(found):
        part = not token.text
        if part and not (is_part(token.shown) or token.shown == END):
            continue  # held back: it may begin what ends the text
        share = math.exp(min(token.logprob, 0.0))
        shade = sum(share < least for least in SHADES)
        kind = " part" if is_part(token.shown) and part else " end" if part else ""
        likely = [
            [visible(each.shown), round(each.logprob, 3), int(each.chosen), int(each.text is not None)]
            for each in token.likeliest
        ]
        data = json.dumps(
            [visible(token.shown), round(token.logprob, 3), likely], ensure_ascii=False, separators=(",", ":")
        )
        spans.append(
            f'<span class="token p{shade}{kind}" role="option" tabindex="{-1 if spans else 0}" data-place="{place}" '
            f"data-token='{escape(data, quote=False).replace(chr(39), '&#39;')}'>{_lines(token.text)}</span>"
        )
    where = "" if branch is None else f' data-row="{branch}"'
    label = "Tokens: arrow keys move, Enter shows what else was likely"
    return f'<span class="tokens" role="listbox" aria-label="{label}"{where}>{"".join(spans)}</span>'


def _lines(text: str) -> str:
    """The text with a sign at each end of a line, to carry its colour; copied, it is the text."""
    return escape(text).replace("\n", "<i></i>\n")


def papers(prompt: str, rows: Sequence[Row], seed: int, writing: bool, coloured: bool) -> str:
    """The prompt, and its continuations in darker ink: one behind it, several below it side by side."""
    given = f'<span class="given">{escape(prompt)}</span>'
    head = legend() if coloured and rows else ""
    if len(rows) < 2:
        text = "".join(_text(row, 0, coloured) for row in rows)
        foot = "".join(_foot(row, 0, "", writing) for row in rows)
        return f'{head}<div class="paper">{given}{text}{_caret(writing)}</div>{foot}'
    best = max(range(len(rows)), key=lambda i: rows[i].mean_logprob)
    articles = []
    for i, row in enumerate(rows):
        mark = "lowest" if i == best and not writing else ""
        text = f'<div class="paper">{_text(row, i, coloured)}{_caret(writing)}</div>'
        label = f"Candidate {i + 1}, seed {seed + i}"
        articles.append(f'<article aria-label="{label}">{text}{_foot(row, i, mark, writing)}</article>')
    return f'{head}<div class="paper short">{given}</div><div class="candidates">{"".join(articles)}</div>'


def _text(row: Row, number: int, coloured: bool) -> str:
    shown = tokens(row.tokens, number) if coloured else escape(row.text)
    return f'<span class="text">{shown}</span>'


def _caret(writing: bool) -> str:
    return '<span class="caret"></span>' if writing else ""


def _foot(row: Row, number: int, mark: str, writing: bool) -> str:
    """How likely a candidate is, and the button that takes it."""
    told = f"perplexity {math.exp(-row.mean_logprob):,.1f}"
    mark = f" · <b>{mark}</b>" if mark else ""
    take = "" if writing else f'<button type="button" data-take="{number}">Add to the text</button>'
    mean = f"mean log-probability of a token: −{abs(row.mean_logprob):.2f}"
    return f'<div class="foot"><span title="{mean}">{told}{mark}</span>{take}</div>'


def prompt(told: Told) -> str:
    """The very prompt that the model gets, and how much of its context it takes."""
    shots = told.prompt.shots
    examples = f"{shots} {'example' if shots == 1 else 'examples'}"
    left_out = f", the first {told.left_out} left out, since they do not fit" if told.left_out else ""
    share = min(100, 100 * told.tokens / told.context)
    return (
        f'<div class="prompt"><h3>The prompt</h3><pre tabindex="0" aria-label="The prompt">{escape(told.prompt.text)}</pre>'
        f'<div class="bar"><span style="width:{share:.1f}%"></span></div>'
        f"<p>{told.tokens:,} of the {told.context:,} tokens that the model reads · {examples}{left_out}</p></div>"
    )


def answer(row: Row, writing: bool) -> str:
    """An answer to a prompt, every token with its probability."""
    return f'{legend()}<div class="paper answer">{tokens(row.tokens)}{_caret(writing)}</div>'


def scores(found: Sequence[Judged]) -> str:
    """One text with its figures, or two with which is the likelier, and by how much."""
    head = ""
    if len(found) == 2:
        bits = (found[0].totals.logprob - found[1].totals.logprob) / math.log(2)
        times = (
            f"{2 ** abs(bits):,.3g} times as probable"
            if abs(bits) < 30
            else f"2<sup>{abs(bits):,.0f}</sup> times as probable"
        )
        which = "The first" if bits > 0 else "The second"
        said = (
            f"{which} is the likelier, by {abs(bits):,.1f} bits <small>({times})</small>" if abs(bits) >= 0.05 else ""
        )
        head = f'<h3 class="verdict">{said or "Both are as likely, to a twentieth of a bit"}</h3>'
    texts = []
    for each in found:
        totals = each.totals
        figures = (
            (f"{totals.tokens:,}", "tokens"),
            (f"{-totals.logprob / math.log(2):,.1f}", "bits in all"),
            (f"{totals.perplexity:,.1f}", "perplexity"),
            (f"{totals.bits_per_byte:.2f}", "bits a byte"),
        )
        cells = "".join(f"<div><dd>{value}</dd><dt>{name}</dt></div>" for value, name in figures)
        texts.append(f'<div class="paper short">{tokens(each.tokens)}</div><dl class="figures">{cells}</dl>')
    return f'{head}{legend()}<div class="scores">{"".join(texts)}</div>'


def sheet(prompt: str, drawings: list[Drawing], done: bool) -> str:
    """The drawings side by side, each with its seed, its score if it has one, and when done a link to keep it."""
    figures = []
    name = "-".join("".join(c if c.isalnum() else " " for c in prompt[:60]).split()) or "drawing"
    for drawing in drawings:
        seed, url = drawing.seed, data_url(drawing.picture)
        score = "" if drawing.score is None else f"<b>{drawing.score:.3f}</b>"
        link = f'<a href="{url}" download="{name}-{seed}.png">download</a>' if done else ""
        figures.append(
            f'<figure><img src="{url}" alt="{escape(prompt)}, seed {seed}">'
            f"<figcaption><span>seed {seed}</span>{score}{link}</figcaption></figure>"
        )
    columns = {1: 1, 2: 2, 4: 2}.get(len(drawings), 3)
    return f'<div class="sheet" style="--columns: {columns}">{"".join(figures)}</div>'


def ranking(ranked: list[tuple[str, float]], template: str, truth: str | None, what: str = "labels") -> str:
    """As in CLIP's announcement: the right label with its rank on top, a bar for each of the best, ✓ or ✗; all below."""
    place, label = 1, ranked[0][0]
    if truth is not None:
        place, label = next((i, name) for i, (name, _) in enumerate(ranked, start=1) if name == truth)
    rank = "" if truth is None else f" ranked {place} out of {len(ranked)} {what}"
    head = f"<h3>{escape(label)} <small>({ranked[place - 1][1]:.1%}){rank}</small></h3>"
    rows = ranked[:SHOWN] if place <= SHOWN else [*ranked[:SHOWN], ranked[place - 1]]
    bars = "".join(_bar(name, share, template, truth) for name, share in rows)
    table = "".join(
        f"<tr><td>{i}</td><td>{escape(name)}</td><td>{share:.2%}</td></tr>"
        for i, (name, share) in enumerate(ranked, start=1)
    )
    return (
        f'<div class="ranking">{head}<ol>{bars}</ol><details><summary>All {len(ranked)} {what}</summary><table><thead>'
        f"<tr><th>rank</th><th>{what.removesuffix('s')}</th><th>probability</th></tr></thead><tbody>{table}</tbody></table></details></div>"
    )


def _bar(label: str, share: float, template: str, truth: str | None) -> str:
    kind, mark = ("", "") if truth is None else ("right", "✓") if label == truth else ("wrong", "✗")
    before, _, after = template.partition("{}")
    return (
        f'<li class="{kind}"><span class="mark">{mark}</span>'
        f'<span class="words">{escape(before)}<b>{escape(label)}</b>{escape(after)}</span>'
        f'<span class="share">{share:.1%}</span>'
        f'<span class="bar"><span style="width:{100 * share:.2f}%"></span></span></li>'
    )


def map_of(covered: Image.Image, label: str) -> str:
    """Beside a ranking: the picture with what speaks for and against a name."""
    said = f"What {label} depends on: red places speak for it, blue ones against it"
    image = f'<img src="{data_url(covered)}" alt="{escape(said)}">'
    return f'<figure class="depends">{image}<figcaption>{escape(said)}</figcaption></figure>'


def card_of(picture: Image.Image, name: str, ranked: list[tuple[str, float]], truth: str | None) -> str:
    """One of several pictures: small, with its likeliest names."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    bars = "".join(_bar(label, share, "{}", truth) for label, share in ranked[:CARD_BARS])
    return (
        f'<figure class="ranking"><img src="{data_url(small)}" alt="{escape(name)}"><figcaption>'
        f'<span class="name" title="{escape(name)}">{escape(name)}</span><ol>{bars}</ol></figcaption></figure>'
    )


def unreadable(name: str, why: str) -> str:
    said = f'<span class="name">{escape(name)}</span><p>{escape(why)}</p>'
    return f'<figure class="ranking"><figcaption>{said}</figcaption></figure>'


def found_card(picture: Image.Image, name: str, score: float) -> str:
    """A picture that a search found."""
    small = picture.copy()
    small.thumbnail((FOUND, FOUND), Image.Resampling.LANCZOS)
    said = f'<span class="name" title="{escape(name)}">{escape(name)}</span><b>{score:.3f}</b>'
    return f'<figure><img src="{data_url(small)}" alt="{escape(name)}"><figcaption>{said}</figcaption></figure>'


def cards(found: Sequence[str], kind: str = "") -> str:
    return f'<div class="cards {kind}">{"".join(found)}</div>'
