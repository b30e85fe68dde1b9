"""Locked-image tuning: an image tower that knows pictures already, and a text tower that learns to speak of them.

Zhai et al. 2022, "LiT: Zero-Shot Transfer with Locked-image text Tuning". The image tower is frozen, so what it says of a
picture never changes: its vectors are computed once, kept on disk, and from then on a step costs the text tower alone.
The result is a CLIP like any other, both towers in one directory.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clip.encoder import Encoder, Ours
from clip.model import CLIP
from clip.presets import CLIPConfig
from multimodal import checkpoint, cli
from multimodal.data import pairs

CHUNK = 64  # pictures read and embedded together
DRAWINGS = 20_000  # of the default drawings, of which there is no end, so many are embedded


class Features:
    """Vectors, captions and identities of a source's items, on disk."""

    def __init__(self, folder: Path, count: int, width: int):
        self.folder = folder
        self._vectors = np.memmap(folder / "features.f32", np.float32, "r", shape=(count, width))
        self._captions = pairs.Strings()
        identity = []
        with open(folder / "items.jsonl", encoding="utf-8") as file:
            for line in file:
                found = json.loads(line)
                self._captions.append(found["caption"])
                identity.append(found["identity"])
        self._identity = torch.tensor(identity)

    def __len__(self) -> int:
        return len(self._vectors)

    def batch(self, items: Sequence[int]) -> dict[str, Tensor | list[str]]:
        """Like `pairs.batch`, with vectors (b d) in the pictures' place."""
        return {
            "image": torch.from_numpy(self._vectors[items]),
            "caption": [self._captions[i] for i in items],
            "identity": self._identity[items],
        }


def features(encoder: Encoder, source: pairs.PairSource, cache: Path) -> Features:
    """Of every item of the source, from the cache or computed now. The folder's name is a digest of all that they depend
    on: the encoder, the pictures and captions. So another run finds them again, and never finds others."""
    asked = f"{source.fingerprint()} {len(source)} {encoder.digest}"
    folder, count = cache / hashlib.sha256(asked.encode()).hexdigest()[:16], len(source)
    if not (folder / "items.jsonl").is_file():  # the one that is finished last
        with (
            checkpoint.replacing(folder / "items.jsonl") as lines,
            checkpoint.replacing(folder / "features.f32") as vectors,
            open(lines, "w", encoding="utf-8") as said,
            open(vectors, "wb") as seen,
            cli.bar(total=count, unit="picture", desc="embedding") as shown,
        ):
            for start in range(0, count, CHUNK):
                batch = pairs.batch(source, range(start, min(start + CHUNK, count)), encoder.size)
                seen.write(encoder.embed_images(batch["image"]).cpu().numpy().tobytes())
                for caption, identity in zip(batch["caption"], batch["identity"].tolist(), strict=True):
                    said.write(json.dumps({"caption": caption, "identity": identity}) + "\n")
                shown.update(len(batch["caption"]))
    else:
        cli.say(f"the pictures' vectors were computed before, and are in {folder}")
    return Features(folder, count, encoder.width)


def locked(encoder: Ours, asked: CLIPConfig) -> CLIP:
    """A CLIP with the encoder's image tower, frozen, and a new text tower as `asked`."""
    theirs = encoder.network.config
    config = replace(
        theirs, text=asked.text, vocabulary=asked.vocabulary, context=asked.context, end=asked.end, scores=asked.scores
    )
    network = CLIP(config)
    network.image.load_state_dict(encoder.network.image.state_dict())
    network.image.requires_grad_(False)
    return network
