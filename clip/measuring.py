"""The figures of clip.evaluate: settings, an encoder and paths in; each part's figures by name, and how they were measured.

Every part works on features that were computed once (features.py), so that what is beside zero-shot costs seconds.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clip import cache, features, fewshot, figures, index, labelled, probe, templates, zeroshot
from clip.encoder import Encoder, Ours
from clip.labels import UNDECODED, Label, finder, from_file, words
from multimodal import cli
from multimodal.cli import UserError
from multimodal.data import pairs
from multimodal.data.report import FEW, printable

Figures = dict[str, Any]


# ---- labelled pictures


def of_classes(settings, encoder: Encoder, paths: Sequence[Path], parts: Sequence[str]) -> tuple[Figures, Figures, int]:
    """(the figures of each part, the protocol, how many pictures could not be used)."""
    found, lost = labelled.read(paths)
    count = len(found.classes)
    labels, sentences, named = prompts_of(settings, encoder, found.classes)
    groups = zeroshot.class_prompts(labels, sentences)  # what is wrong with them is told before any work
    # one pass over the pictures for all parts
    before = isinstance(encoder, Ours)
    reader = features.Unprojected(encoder) if before else encoder
    read, places, errors = features.of_pictures(
        reader, found.files, index.contents, settings.features, key("labels", paths)
    )
    tell(errors)
    if not places:
        raise UserError(f"none of the {len(found.files):,} pictures could be read.")
    found = labelled.chosen(found, places)
    right, vectors = found.labels, read[:, : encoder.width]
    division = labelled.divide(found, settings.seed)
    whole = not any(found.splits)
    judged = torch.arange(len(right)) if whole else division.test
    classes, cut = cache.class_embeddings(encoder, groups)
    if cut:
        cli.say(f"{cut} prompts are longer than the {encoder.context} tokens the model reads and were cut.")
    logits = encoder.scale * vectors @ classes.cpu().T
    sizes = {name: len(getattr(division, name)) for name in ("train", "validation", "test")}
    protocol = {
        "split": f"zero-shot: all pictures; the rest: {division.sentence}" if whole else division.sentence,
        "templates": list(sentences),
        "class_names": named,
        "scores": f"softmax over the {count} classes of {encoder.scale:.4g} x cosine",
        "classes": count,
        "pictures": {"in_all": len(right), **sizes},
    }
    if settings.templates is not None:
        protocol["metric"] = f"the paper reports for this data set: {templates.find(settings.templates).metric}"
    told: Figures = {}
    if "zeroshot" in parts:
        shares = accuracies(logits[judged], right[judged])
        told["zeroshot"] = {"pictures": len(judged), **shares, "chance": 1 / count}
    if "calibration" in parts:
        told["calibration"] = calibration(logits, right, division, judged)
    for part in (part for part in ("probe", "fewshot") if part in parts):
        if not all(sizes.values()):
            sentence = (
                f"{part} learns from some pictures of each class and is judged on others: {sizes['train']} to train on, "
                f"{sizes['validation']} to choose by and {sizes['test']} to judge on are too few"
            )
            if settings.parts:
                raise UserError(f"{sentence}.")
            cli.say(f"{sentence}; it was left out.")
        elif part == "probe":
            where = "before the projection, as in the paper" if before else "after the projection"
            x = read[:, encoder.width :] if before else vectors
            told["probe"] = probed(x, right, division, count) | {"features": f"{x.shape[1]}, {where}"}
        else:
            told["fewshot"] = few_shots(settings, vectors, right, logits, division, count)
    return told, protocol, lost + len(errors)


def key(kind: str, paths: Sequence[Path]) -> str:
    """What names a data set among the features that are kept."""
    return "\0".join((kind, *sorted(os.path.abspath(path) for path in paths)))


def tell(errors: Sequence[str]) -> None:
    for error in errors[:FEW]:
        cli.say(printable(f"not used: {error}"))
    if len(errors) > FEW:
        cli.say(f"not used: {len(errors) - FEW:,} more pictures that cannot be read.")


def prompts_of(settings, encoder: Encoder, classes: Sequence[str]) -> tuple[list[Label], tuple[str, ...], str]:
    """(a label for each class of the data, the templates, where the names are from)."""
    published = templates.find(settings.templates) if settings.templates is not None else None
    sentences = published.templates if published else settings.template or zeroshot.templates_for(encoder)
    if settings.labels_file is not None:
        source, said = from_file(settings.labels_file), f"of {settings.labels_file}"
    elif published is not None and published.classes:
        source, said = list(published.classes), f"of --templates {published.name}"
    else:
        said = [words(UNDECODED.sub("?", name)) for name in classes]
        labels = [Label(name, (text or name,)) for name, text in zip(classes, said, strict=True)]
        return labels, sentences, "of the data, in words"
    place = finder(source)
    where = [place(name) for name in classes]
    if unknown := [name for name, i in zip(classes, where, strict=True) if i is None]:
        some = ", ".join(map(repr, unknown[:5]))
        raise UserError(
            f"{len(unknown)} of the {len(classes)} classes of the data are not among the names {said}: {some}; give a table "
            "with the columns label and names as --labels-file."
        )
    if both := [i for i in where if where.count(i) > 1]:
        same = [name for name, i in zip(classes, where, strict=True) if i == both[0]]
        raise UserError(f"the classes {same[0]!r} and {same[1]!r} have one name {said}: {source[both[0]].names[0]!r}.")
    return [source[i] for i in where], sentences, said


def accuracies(scores: Float[Tensor, "b c"], right: Int[Tensor, "b"]) -> dict[str, float]:
    """Without the first five of five or fewer classes, among which everything is."""
    found = figures.accuracies(figures.places(scores, right), right)
    return {name: value for name, value in found.items() if name != "top5" or scores.shape[1] > 5}


def calibration(
    logits: Float[Tensor, "b c"], right: Int[Tensor, "b"], division: labelled.Division, judged: Int[Tensor, "j"]
) -> Figures:
    """On the test pictures, with the temperature of the validation pictures; as it is on those judged if there are none."""
    rows = division.test if len(division.validation) else judged
    error, bins = figures.calibration_error(logits[rows].softmax(1), right[rows])
    found = {
        "pictures": len(rows),
        "bins_of": figures.BINS,
        "error": error,
        "nats": figures.nats(logits[rows], right[rows]),
    }
    if len(division.validation):
        best = figures.temperature(logits[division.validation], right[division.validation])
        mended = logits[rows] / best
        found |= {
            "temperature": best,
            "error_at_temperature": figures.calibration_error(mended.softmax(1), right[rows])[0],
            "nats_at_temperature": figures.nats(mended, right[rows]),
        }
    return found | {"bins": bins}


def probed(x: Float[Tensor, "b d"], right: Int[Tensor, "b"], division: labelled.Division, count: int) -> Figures:
    """The linear probe on the test pictures."""
    train, validation, test = ((x[i], right[i]) for i in (division.train, division.validation, division.test))
    cli.say(f"fitting linear probes on {len(train[0]):,} pictures")
    fitted, strength = probe.fit(train, validation, count)
    shares = accuracies(fitted(test[0]), test[1])
    return {"pictures": len(test[1]), **shares, "c": strength, "fitted_on": len(train[0]) + len(validation[0])}


def few_shots(
    settings,
    vectors: Float[Tensor, "b d"],
    right: Int[Tensor, "b"],
    logits: Float[Tensor, "b c"],
    division: labelled.Division,
    count: int,
) -> Figures:
    """Accuracy with each number of known pictures, beside that with none."""
    (train, labels), (held, held_right), (test, test_right) = (
        (vectors[i], right[i]) for i in (division.train, division.validation, division.test)
    )
    texts, most = logits[division.test], int(labels.bincount(minlength=count).max())
    shots = sorted({k for k in settings.shots if k <= most})
    if left := sorted(set(settings.shots) - set(shots)):
        cli.say(f"no class has more than {most} pictures to train on: {', '.join(map(str, left))} shots were left out.")
    rows: list[Figures] = [{"shots": k, "draws": []} for k in shots]
    with cli.bar(total=len(rows) * settings.draws, unit="draw", desc="few-shot", leave=False) as shown:
        for row in rows:
            for draw in range(settings.draws):
                chosen = fewshot.draw(labels, row["shots"], settings.seed + draw)
                known = fewshot.Known(train[chosen], labels[chosen], count)
                alpha, beta = fewshot.choose(known, logits[division.validation], held, held_right)
                hits = accuracies(texts + alpha * known.scores(test, beta), test_right)["top1"]
                row["draws"].append({"top1": hits, "alpha": alpha, "beta": beta, "pictures": len(chosen)})
                shown.update()
            values = [draw["top1"] for draw in row["draws"]]
            row |= {"top1": fmean(values), "deviation": pstdev(values)}
    zero = accuracies(texts, test_right)["top1"]
    return {"pictures": len(test), "chosen_on": len(held), "zeroshot": zero, "rows": rows}


# ---- captioned pictures


def of_captions(settings, encoder: Encoder, paths: Sequence[Path]) -> tuple[Figures, str, int]:
    """(recall both ways, the protocol, how many pictures could not be used)."""
    files, captions, read_file, unused = captioned(paths, settings.captions)
    vectors, places, errors = features.of_pictures(encoder, files, read_file, settings.features, key("captions", paths))
    tell(errors)
    if not places:
        raise UserError(f"none of the {len(files):,} captioned pictures could be read.")
    texts = [text for i in places for text in captions[i]]
    owner = torch.tensor([row for row, i in enumerate(places) for _ in captions[i]])
    if cut := encoder.too_long(texts):
        cli.say(
            f"{cut:,} of {len(texts):,} captions are longer than the {encoder.context} tokens the model reads and were cut."
        )
    if twice := len(texts) - len(set(texts)):
        cli.say(
            f"{twice:,} captions are those of another picture too; only their own counts as right, as in the papers."
        )
    found = figures.retrieval(vectors, features.of_texts(encoder, texts, settings.features), owner)
    each = sorted({len(captions[i]) for i in places})
    protocol = (
        f"{len(places):,} pictures with {' to '.join(map(str, dict.fromkeys((each[0], each[-1]))))} captions each; picture to "
        "text: a hit if any of its captions is among the first K; text to picture: one target; cosines, captions as they are"
    )
    return {"pictures": len(places), "captions": len(texts), **found}, protocol, unused + len(errors)


def captioned(
    paths: Sequence[Path], most: int | None
) -> tuple[list[index.File], list[tuple[str, ...]], Callable[[str], bytes], int]:
    """(files, captions of each, what reads a file's bytes by its name, how much is not used)."""
    source, report = pairs.read_pairs(paths)
    if report.unused:
        report.tell()
    if not len(source):
        given = ", ".join(map(str, paths))
        raise UserError(f"{given}: no labelled and no captioned pictures were found there.")
    store, files, captions, where = source.store, [], [], {}
    for picture in source.chosen.tolist():
        path, offset, *seen = store.stamp(picture)
        name = os.path.abspath(path) + (f":{offset}" if offset >= 0 else "")  # names in an archive may occur twice
        files.append(index.File(name, *(seen or (0, 0))))
        captions.append(store.captions(picture)[:most])
        where[name] = picture

    def read_file(name: str) -> bytes:
        number, offset, length = store._where[3 * where[name] : 3 * where[name] + 3]
        place = store.places[number]
        return index.contents(name) if isinstance(place, Path) else place.read(offset, length)

    return files, captions, read_file, sum(report.unused.values())
