"""How the page shows what the models gave: text, drawings and rankings in, HTML for `page.css` out.

Every word of a visitor or a model is escaped here; pictures travel inside the page, so that no file is left behind.
"""

import base64
import io
from html import escape

from PIL import Image

SHOWN = 5  # bars of a ranking


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


def paper(prompt: str, text: str, writing: bool) -> str:
    """The prompt, and the continuation in darker ink."""
    caret = '<span class="caret"></span>' if writing else ""
    return (
        f'<div class="paper"><span class="given">{escape(prompt)}</span>'
        f'<span class="text">{escape(text)}</span>{caret}</div>'
    )


def sheet(prompt: str, drawings: list[tuple[int, Image.Image]], done: bool) -> str:
    """The drawings side by side, each with its seed, and when done a link to keep it."""
    figures = []
    name = "-".join("".join(c if c.isalnum() else " " for c in prompt[:60]).split()) or "drawing"
    for seed, picture in drawings:
        url = data_url(picture)
        link = f'<a href="{url}" download="{name}-{seed}.png">download</a>' if done else ""
        figures.append(
            f'<figure><img src="{url}" alt="{escape(prompt)}, seed {seed}">'
            f"<figcaption><span>seed {seed}</span>{link}</figcaption></figure>"
        )
    columns = {1: 1, 2: 2, 4: 2}.get(len(drawings), 3)
    return f'<div class="sheet" style="--columns: {columns}">{"".join(figures)}</div>'


def ranking(ranked: list[tuple[str, float]], template: str, truth: str | None) -> str:
    """As in CLIP's announcement: the right label with its rank on top, a bar for each of the best, ✓ or ✗; all below."""
    place, label = 1, ranked[0][0]
    if truth is not None:
        place, label = next((i, name) for i, (name, _) in enumerate(ranked, start=1) if name == truth)
    rank = "" if truth is None else f" ranked {place} out of {len(ranked)} labels"
    head = f"<h3>{escape(label)} <small>({ranked[place - 1][1]:.1%}){rank}</small></h3>"
    rows = ranked[:SHOWN] if place <= SHOWN else [*ranked[:SHOWN], ranked[place - 1]]
    bars = "".join(_bar(name, share, template, truth) for name, share in rows)
    table = "".join(
        f"<tr><td>{i}</td><td>{escape(name)}</td><td>{share:.2%}</td></tr>"
        for i, (name, share) in enumerate(ranked, start=1)
    )
    return (
        f'<div class="ranking">{head}<ol>{bars}</ol><details><summary>All {len(ranked)} labels</summary><table><thead>'
        f"<tr><th>rank</th><th>label</th><th>probability</th></tr></thead><tbody>{table}</tbody></table></details></div>"
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
