"""The bundled models beside their baselines, on what was held out of their training.

    python benchmarks/bundled.py                            all four
    python benchmarks/bundled.py gpt dvae --json out.json   some, and as JSON too
    python benchmarks/bundled.py clip --font /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf

gpt    bits a byte of the held-out documents; beside it a byte 6-gram (Witten and Bell 1991) of the same training text
dvae   PSNR of held-out scenes from their codes; beside it the scenes as 16x16 thumbnails, and as JPEG of that size or more
dalle  every everyday concept drawn once: is the real rendering nearest in pixels the one asked for? Beside it chance, and
       the real renderings after a passage through the dVAE; then pairs never seen together, each thing in its place
clip   drawings of an artist never trained on, in a colour emoji font (apt install fonts-noto-color-emoji), named among
       all concepts, in English and in French; beside it nearest neighbours in pixels among all drawings trained on
"""

import argparse
import io
import json
import sys
import time
from itertools import count as count_up
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
BITMAP = 109  # the one size, in pixels, of the bitmaps in Noto Color Emoji
ORDER = 6
SAID = {"left": "to the left of", "above": "above"}  # a relation in plain words


def ngram_bits(train: list[str], held: list[str], order: int = ORDER) -> float:
    """Bits a byte of the held-out documents under a byte n-gram of the training documents.

    Witten-Bell: p(w | h) = (count(h w) + kinds(h) p(w | shorter h)) / (count(h) + kinds(h)), 1/256 at the bottom. A
    context is its bytes as one number, so that numpy counts all of them by sorting.
    """
    import numpy as np

    def ends(documents: list[str], length: int):
        """For every byte, it and the `length` - 1 before it as a number; documents begin with zeros."""
        parts = []
        for document in documents:
            data = np.frombuffer(bytes(order) + document.encode(), np.uint8).astype(np.uint64)
            number = np.zeros(len(data) - order, np.uint64)
            for i in range(length):
                number = number * np.uint64(256) + data[order - length + 1 + i : len(data) - length + 1 + i]
            parts.append(number)
        return np.concatenate(parts)

    def counted(keys, counts, wanted):
        place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where(keys[place] == wanted, counts[place], 0).astype(np.float64)

    p = np.full(len(ends(held, 1)), 1 / 256)
    for length in range(1, order + 1):
        grams, times = np.unique(ends(train, length), return_counts=True)
        contexts, begins, kinds = np.unique(grams // np.uint64(256), return_index=True, return_counts=True)
        total = np.add.reduceat(times, begins)
        wanted = ends(held, length)
        seen, different = (counted(contexts, values, wanted // np.uint64(256)) for values in (total, kinds))
        p = np.where(seen > 0, (counted(grams, times, wanted) + different * p) / np.maximum(seen + different, 1), p)
    return float(-np.log2(p).mean())


def judge_gpt(settings) -> dict:
    import tempfile

    from gpt.model import load
    from gpt.scoring import score
    from multimodal import checkpoint
    from multimodal.data import text, tokens

    network, tokenizer = load(checkpoint.find(settings.gpt, "gpt"))
    figures = {}
    print(f"\n{'held-out text':<16}{'bytes':>12}{'GPT':>8}{f'{ORDER}-gram':>8}   bits a byte")
    with tempfile.TemporaryDirectory() as scratch:
        for name, documents in text.default_corpora().items():
            train, held = ([document.text for document in part] for part in text.split(documents))
            file = tokens.write(Path(scratch) / name, held, tokenizer)
            found = score(network, tokenizer, file.ids, 100_000)["bpb"]
            figures[name] = {"bytes": file.text_bytes, "bpb": found, "ngram_bpb": ngram_bits(train, held)}
            print(f"{name:<16}{file.text_bytes:>12,}{found:>8.3f}{figures[name]['ngram_bpb']:>8.3f}", flush=True)
    return figures


def judge_dvae(settings) -> dict:
    import math

    import torch
    import torch.nn.functional as F

    from dalle import dvae
    from multimodal import checkpoint, images
    from multimodal.data import pairs
    from multimodal.data.drawings import Drawings

    directory = Path(settings.dalle) if settings.dalle else checkpoint.find(None, "dalle")
    model = dvae.load(directory / "dvae")
    size, bits = model.config.size, model.config.length * math.log2(model.config.vocabulary)
    figures = {}
    print(f"\n{'held-out scenes':<18}{'dVAE':>8}{'16x16':>8}{'JPEG':>8}   PSNR in dB ({bits / 8:.0f} bytes of codes)")
    for split, concepts in (("pairs", "all"), ("colours", "all"), ("pairs", "everyday"), ("colours", "everyday")):
        source = Drawings(split=split, concepts=concepts)
        pictures = images.to_float(pairs.batch(source, list(range(256)), size)["image"])
        ours = torch.cat([model.decode(model.encode(part)) for part in pictures.split(64)])
        small = F.interpolate(pictures, (16, 16), mode="area")
        small = F.interpolate(small, (size, size), mode="bicubic").clamp(0, 1)
        packed, length = zip(*(jpeg(picture, bits / 8) for picture in pictures), strict=True)
        row = {
            "psnr": dvae.psnr(ours, pictures).mean().item(),
            "thumbnail_psnr": dvae.psnr(small, pictures).mean().item(),
            "jpeg_psnr": dvae.psnr(torch.stack(packed), pictures).mean().item(),
            "jpeg_bytes": sum(length) / len(length),
        }
        figures[f"{split}, {concepts}"] = row
        print(
            f"{f'{split}, {concepts}':<18}{row['psnr']:>8.2f}{row['thumbnail_psnr']:>8.2f}{row['jpeg_psnr']:>8.2f}"
            f"   (JPEG {row['jpeg_bytes']:.0f} bytes)",
            flush=True,
        )
    return figures


def jpeg(picture, budget: float):
    """The picture after the smallest JPEG of at least `budget` bytes, headers not counted, and its bytes."""
    import torch
    from PIL import Image

    from multimodal import images

    for quality in range(1, 96):
        file = io.BytesIO()
        images.to_pil(picture).save(file, "JPEG", quality=quality, optimize=True)
        scan = len(file.getvalue()) - file.getvalue().index(b"\xff\xda")
        if scan >= budget:
            break
    return images.to_float(images.square(Image.open(file).convert("RGB"), picture.shape[-1]).to(torch.uint8)), scan


def judge_dalle(settings) -> dict:
    import torch

    from dalle import judge
    from dalle.drawing import draw_each
    from dalle.model import load
    from dalle.train import SHOWN, renderings
    from multimodal import checkpoint, images
    from multimodal.data.drawings import Drawings

    artist = load(checkpoint.find(settings.dalle, "dalle"))

    def drawings(prompts: list[str]):
        """One of each prompt, the i-th with seed i."""
        parts = [range(i, min(i + 64, len(prompts))) for i in range(0, len(prompts), 64)]
        return torch.cat([draw_each(artist, prompts[part.start : part.stop], list(part)) for part in parts])

    references, names = renderings(Drawings(concepts="everyday"), artist.dvae.config.size)
    prompts = sorted(set(names))
    began = time.perf_counter()
    drawn = drawings(prompts)
    seconds = (time.perf_counter() - began) / len(prompts)
    passed = torch.cat([artist.dvae.decode(artist.dvae.encode(part)) for part in references.split(64)])
    ranks = judge.ranks(drawn, references, names, prompts)
    most = judge.ranks(passed, references, names, names)
    pairs = pairs_ranks(drawings)
    figures = {
        "concepts": len(prompts),
        "top1": (ranks == 1).float().mean().item(),
        "top5": (ranks <= 5).float().mean().item(),
        "real_top1": (most == 1).float().mean().item(),
        "chance": 1 / len(prompts),
        "seconds": seconds,
        "pairs_one_top1": (pairs == 1).float().mean().item(),
        "pairs_both_top1": (pairs == 1).all(0).float().mean().item(),
        "pairs_both_top5": (pairs <= 5).all(0).float().mean().item(),
    }
    if settings.sheet:
        spread = slice(None, None, max(1, len(prompts) // SHOWN))
        images.grid(drawn[spread][:SHOWN], 8, prompts[spread][:SHOWN]).save(settings.sheet)
    print(
        f"\n{'drawings':<12}{'top-1':>8}{'top-5':>8}{'real ones through the dVAE':>28}{'chance':>9}{'seconds each':>14}"
    )
    print(
        f"{len(prompts):<12}{figures['top1']:>8.1%}{figures['top5']:>8.1%}{figures['real_top1']:>28.1%}"
        f"{figures['chance']:>9.2%}{seconds:>14.2f}"
    )
    print(
        f"{pairs.shape[1]} pairs never seen together: a thing in its place {figures['pairs_one_top1']:.1%}, "
        f"both {figures['pairs_both_top1']:.1%}, both among the first five {figures['pairs_both_top5']:.1%}",
        flush=True,
    )
    return figures


def pairs_ranks(drawings, count: int = 256):
    """Ranks (2, count) of the two things of held-out pairs, each looked for where it was asked to be."""
    import torch

    from dalle import judge
    from multimodal import images
    from multimodal.data.drawings import LATTICE, STYLES, Drawings, Scene, Thing, render

    source = Drawings("pairs", concepts="everyday")
    # only where the words give both their places, and in plain words: how much phrasing is understood is dalle.evaluate's to say
    ordered = (scene for scene in map(source.scene, count_up()) if scene.relation in SAID)
    scenes = list(islice(ordered, count))
    both = [[thing.concept.phrase for thing in scene.things] for scene in scenes]
    pictures = drawings([f"{a} {SAID[scene.relation]} {b}" for scene, (a, b) in zip(scenes, both, strict=True)])
    size = pictures.shape[-1]

    def cut(picture, place):
        x, y, side = (value * size // LATTICE for value in place)
        return picture[:, y : y + side, x : x + side]

    place = (0, 0, LATTICE // 2)  # things of a pair are half as large as the picture
    alone = [Scene("", (Thing(c, style, place),), "white", "", 0) for c in source.concepts for style in STYLES]
    alone = [cut(images.to_float(torch.from_numpy(render(scene, size)).permute(2, 0, 1)), place) for scene in alone]
    names = [c.name for c in source.concepts for _ in STYLES]
    found = []
    for which in (0, 1):
        seen = torch.stack([cut(p, s.things[which].place) for p, s in zip(pictures, scenes, strict=True)])
        wanted = [scene.things[which].concept.name for scene in scenes]
        found.append(judge.ranks(seen, torch.stack(alone), names, wanted))
    return torch.stack(found)


def rendered(font, emoji: str, size: int):
    """The emoji as a plain scene shows a concept, uint8 (3 size size); None where the font has no glyph of its own."""
    from PIL import Image, ImageDraw

    from multimodal import images
    from multimodal.data.drawings import LATTICE, STANDARD

    if len(emoji.rstrip("\ufe0f")) > 1:  # joined sequences are one glyph only where Pillow has raqm
        return None
    left, top, right, bottom = font.getbbox(emoji)
    if right <= left or bottom <= top:
        return None
    art = Image.new("RGBA", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(art).text((-left, -top), emoji, font=font, embedded_color=True)
    if art.getextrema()[3][1] == 0:
        return None
    x, y, side = (round(value * size / LATTICE) for value in STANDARD)
    art.thumbnail((side, side), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), "white")
    canvas.alpha_composite(art, (x + (side - art.width) // 2, y + (side - art.height) // 2))
    return images.square(canvas.convert("RGB"), size)


def told_apart(model, count: int = 200) -> dict[str, float]:
    """Of pairs never shown together: how often the right caption is nearer to the picture than one with the opposite word, and
    than one with the two things exchanged. Chance is half."""
    import torch

    from multimodal.data.drawings import Drawings

    source, opposite, found = Drawings("pairs", concepts="everyday"), {"left": "to the right of", "above": "below"}, {}
    for relation, said in SAID.items():
        items = list(islice((i for i in count_up() if source.scene(i).relation == relation), count))
        scenes = [source.scene(i) for i in items]
        seen = model.embed_images(torch.stack([source.item(i, model.size).image for i in items]))
        both = [[thing.concept.phrase for thing in scene.things] for scene in scenes]

        def nearness(captions: list[str], seen=seen):
            return (seen * model.embed_texts(captions)).sum(1)

        right = nearness([f"{a} {said} {b}" for a, b in both])
        for what, wrong in (
            ("word", [f"{a} {opposite[relation]} {b}" for a, b in both]), ("order", [f"{b} {said} {a}" for a, b in both])
        ):  # fmt: skip
            found[f"{relation}_{what}"] = (right > nearness(wrong)).float().mean().item()
    return found


def judge_clip(settings) -> dict:
    import torch
    from PIL import ImageFont

    from clip import encoder, judge
    from clip.material import drawn
    from multimodal import images
    from multimodal.data.art import foreign_names
    from multimodal.data.drawings import STYLES, concepts_of

    if not settings.font.is_file():
        print(f"\nclip: left out, {settings.font} does not exist: name a colour emoji font with --font")
        return {}
    model = encoder.find(settings.clip)
    size, font = model.size, ImageFont.truetype(str(settings.font), BITMAP)
    figures = {}
    print(f"\n{'unseen artist':<20}{'drawings':>9}{'CLIP top-1':>12}{'top-5':>8}{'pixels top-1':>14}{'chance':>9}")
    french = foreign_names("fr")
    for which, said in (("all", None), ("all", french), ("everyday", None), ("everyday", french)):
        concepts = [concept for concept in concepts_of(which) if said is None or concept.key in said]
        pictures = [rendered(font, concept.emoji, size) for concept in concepts]
        # the judges count picture i as thing i: names without a picture stand last
        order = sorted(range(len(concepts)), key=lambda i: pictures[i] is None)
        shown = torch.stack([pictures[i] for i in order if pictures[i] is not None])
        names = [said[concepts[i].key] if said else concepts[i].name for i in order]
        named = judge.naming(model, shown, names, ("{}",)) if said else judge.naming(model, shown, names)
        known = drawn([concepts[i] for i in order], STYLES, size)
        floor, chance = judge.nearest_pixels(known, shown, len(names)), 1 / len(names)
        row = f"{which}, in French" if said else which
        figures[row] = {"drawings": len(shown), "names": len(names), **named, "pixels_top1": floor, "chance": chance}
        print(f"{row:<20}{len(shown):>9,}{named['top1']:>12.1%}{named['top5']:>8.1%}{floor:>14.1%}{chance:>9.2%}")
        if settings.sheet and row == "everyday":
            images.grid(images.to_float(shown[:64]), 8, names[:64]).save(settings.sheet)
    figures["told_apart"] = told_apart(model)
    words = ", ".join(f"{name.replace('_', ', ')} {value:.1%}" for name, value in figures["told_apart"].items())
    print(f"200 unseen pairs each, the right caption before one with the other word or order (chance half): {words}")
    return figures


JUDGES = {"gpt": judge_gpt, "dvae": judge_dvae, "dalle": judge_dalle, "clip": judge_clip}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=[*JUDGES, []], help="which to judge (default: all)")
    for name in ("gpt", "dalle", "clip"):
        parser.add_argument(f"--{name}", help=f"a run directory of {name}.train (default: the bundled model)")
    parser.add_argument("--font", type=Path, default=FONT, help="a colour emoji font with bitmaps")
    parser.add_argument("--sheet", type=Path, help="write what is judged of dalle or clip as a picture")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    settings = parser.parse_args()
    figures = {name: JUDGES[name](settings) for name in settings.models or JUDGES}
    if settings.json:
        settings.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
