"""What a picture model trains on: the user's captioned pictures, or the default drawings; and what is held out."""

from pathlib import Path

from multimodal import cli
from multimodal.cli import UserError


def captioned(paths: tuple[Path, ...], seed: int, concepts: str, captions: bool = True):
    """(training source, held-out source). The user's unreadable files are named with the reason; the rest is used.
    With `captions` False pictures without a caption are used too."""
    if not paths:
        from multimodal.data.drawings import Drawings

        return Drawings(split="train", seed=seed, concepts=concepts), Drawings(
            split="pairs", seed=seed, concepts=concepts
        )
    from multimodal.data.pairs import read_pairs

    source, unread = read_pairs(paths, captions)
    for item in unread:
        cli.say(f"not used: {item.path}: {item.reason}")
    if len(source.pairs) < 2:
        kind = "captioned pictures" if captions else "pictures"
        raise UserError(f"--data {' '.join(map(str, paths))}: {len(source.pairs)} {kind} were found, 2 are needed.")
    return source.split("train"), source.split("held_out")
