"""What a picture model trains on: the user's captioned pictures, or the default drawings; and what is held out."""

from pathlib import Path

from multimodal.cli import UserError


def captioned(paths: tuple[Path, ...], seed: int, concepts: str, captions: bool = True, run: Path | None = None):
    """(training source, held-out source). What of the user's files is used and what is not is told, and written as
    report.json in the folder `run` where there is one. With `captions` False pictures without a caption are used too."""
    if not paths:
        from multimodal.data.drawings import Drawings

        return Drawings(split="train", seed=seed, concepts=concepts), Drawings(
            split="pairs", seed=seed, concepts=concepts
        )
    from multimodal.data.pairs import read_pairs

    source, report = read_pairs(paths, captions)
    report.tell()
    if run is not None:
        report.write(run / "report.json")
    if report.pictures < 2:
        kind = "captioned pictures" if captions else "pictures"
        raise UserError(f"--data {' '.join(map(str, paths))}: {report.pictures} {kind} were found, 2 are needed.")
    return source.split("train"), source.split("held_out")
