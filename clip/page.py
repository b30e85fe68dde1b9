"""Pictures as a page: paths with a line of text each in, one HTML file with thumbnails out, which needs nothing else.

What a page shows is a stranger's: every text is escaped, thumbnails are made anew from the pixels, and the page may load
and run nothing.
"""

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from multimodal import images
from multimodal.data.report import printable

SIDE = 240  # pixels of a thumbnail, at most
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1.5rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1rem; margin: 2rem 0 .75rem; }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: 1.25rem 1rem;
     grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); }
a { color: inherit; text-decoration: none; display: block; } a:hover .name, a:focus .name { text-decoration: underline; }
.box { aspect-ratio: 1; border-radius: 8px; background: color-mix(in srgb, currentColor 7%, transparent);
       display: grid; place-items: center; overflow: hidden; }
img { max-width: 100%; max-height: 100%; width: 100%; height: 100%; object-fit: contain; display: block; }
.none { padding: 1rem; font-size: .8rem; opacity: .7; overflow-wrap: anywhere; }
.name { overflow-wrap: anywhere; font-size: .85rem; } .note { opacity: .7; font-size: .85rem; display: block; }
"""


def thumbnail(path: Path) -> str:
    """A small JPEG as an address that holds it. Raises ImageError where there is no picture."""
    picture = images.read(path, SIDE)
    picture.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def item(path: Path, name: str, note: str) -> str:
    """One picture with its name and a note, which leads to the file."""
    name = escape(printable(name))
    try:
        box = f'<img src="{thumbnail(path)}" alt="{name}">'
    except images.ImageError as error:
        box = f'<span class="none">{escape(printable(str(error)))}</span>'
    return (
        f'<li><a href="{escape(Path(os.path.realpath(path)).as_uri())}"><span class="box">{box}</span>'
        f'<span class="note">{escape(note)}</span><span class="name">{name}</span></a></li>'
    )


def page(title: str, sections: Sequence[tuple[str, Sequence[tuple[Path, str, str]]]]) -> str:
    """A heading and any number of sections (heading or "", [(path, name, note), ...])."""
    title, body = escape(printable(title)), []
    for heading, entries in sections:
        body.append(f"<h2>{escape(printable(heading))}</h2>" if heading else "")
        body.append(f"<ul>{''.join(item(*entry) for entry in entries)}</ul>")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title><style>{STYLE}</style></head>
<body><h1>{title}</h1>
{"".join(body)}
</body></html>
"""
