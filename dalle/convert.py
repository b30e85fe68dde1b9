"""Convert what others published: their weights in, a directory out that this toolkit trains on or draws with.

    python -m dalle.convert downloads/dall-e --out runs/openai-dvae
    python -m dalle.convert encoder.pkl --decoder decoder.pkl --out runs/openai-dvae --size 128
    python -m dalle.convert logs/vqgan_imagenet_f16_16384 --out runs/vqgan
    python -m dalle.convert vqgan_gumbel_f8.ckpt --out runs/vqgan-gumbel
    python -m dalle.convert downloads/minDALL-E/1.3B --out runs/mindalle

Known are OpenAI's dVAE (encoder.pkl and decoder.pkl), taming-transformers' VQGAN and gumbel VQGAN (also within a transformer's
checkpoint) and minDALL-E. What the file holds tells which it is; a pickle is read without executing anything of it, sizes
are told by the shapes of the weights, and no weight is changed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "dalle.convert"
SIZE = 256
SUFFIXES = (".ckpt", ".pt", ".pth", ".pkl", ".safetensors")
STAGES = ("stage1_last.ckpt", "stage2_last.ckpt")  # of minDALL-E
ORIGINS = {
    "openai-dvae": (
        "OpenAI's dVAE",
        "OpenAI published it with DALL·E (Ramesh et al. 2021) in the repository openai/DALL-E, under a modified MIT licence.",
    ),
    "vqgan": (
        "VQGAN",
        "Models of this layout come from CompVis/taming-transformers (Esser et al. 2021, MIT licence) and from others who "
        "trained with it; the licence is that of the source.",
    ),
    "mindalle": (
        "minDALL-E",
        "Kakao Brain published it in kakaobrain/minDALL-E (Kim et al. 2021): the weights under CC BY-NC-SA 4.0, that is not for "
        "commercial use.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Convert(Common):
    """Reads published weights of a picture tokenizer, or of minDALL-E, and writes them as a directory of ours."""

    source: Positional[str]
    """A file of weights, or the directory that holds them; on this machine, since nothing is downloaded."""
    out: Path
    """The directory to write; it must not hold anything yet."""
    size: int | None = None
    """Pixels of a side of the pictures (default: 256): the networks are convolutions, the codes of a side follow. minDALL-E has
    its own size."""
    decoder: Path | None = None
    """OpenAI's decoder, where SOURCE is the encoder and no decoder lies beside it."""
    json: bool = False
    """Print an object: out, kind, parameters, size, grid, vocabulary."""


def convert(settings: Convert, argv: list[str] | None) -> int:
    from dalle import mindalle, openai, tokenizers

    out, source = settings.out, Path(settings.source)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} already holds something; choose another, since nothing is overwritten.")
    if not source.exists():
        raise UserError(
            f"{source}: there is no such file or directory; nothing is downloaded here, give what lies on this machine."
        )
    if source.is_dir() and (source / "config.json").is_file():
        raise UserError(f"{source} has a config.json already: what is converted here are the files of others.")
    if source.is_dir() and any((source / name).is_file() for name in STAGES):
        model, pictures, captions = take_mindalle(source, settings)
        kind = mindalle.KIND
        mindalle.save(out, model, pictures, captions, card(settings, argv, kind, describe(pictures, model)))
    else:
        model = pictures = take_tokenizer(source, settings)
        kind = openai.KIND if isinstance(model, openai.OpenAIDVAE) else "vqgan"
        tokenizers.save(out, model, card(settings, argv, kind, describe(pictures)))
    if settings.json:
        sizes = {name: getattr(pictures.config, name) for name in ("size", "grid", "vocabulary")}
        cli.emit({"out": str(out), "kind": kind, "parameters": count(model), **sizes})
    else:
        print(f"{out}: {ORIGINS[kind][0]}, {describe(pictures, None if model is pictures else model)}")
    return 0


def weights(source: Path) -> Path:
    """The file itself, or the only file of weights in a directory and those that taming-transformers makes in it."""
    if source.is_file():
        return source
    folders = (source, source / "checkpoints", source / "ckpts")
    found = sorted(p for folder in folders if folder.is_dir() for p in folder.iterdir() if p.suffix in SUFFIXES)
    last = [path for path in found if path.name == "last.ckpt"]
    if len(found) == 1 or len(last) == 1:
        return (last or found)[0]
    some = f"{len(found)} files of weights ({', '.join(p.name for p in found[:4])})" if found else "no file of weights"
    raise UserError(
        f"{source} holds {some}; give the file, or a directory with encoder.pkl and decoder.pkl (OpenAI's dVAE), or with "
        f"{' and '.join(STAGES)} (minDALL-E)."
    )


def take_tokenizer(source: Path, settings: Convert):
    """Our class with the weights of a tokenizer for pictures, judged by their names."""
    from dalle import foreign, openai, vqgan

    pair = [path for path in source.iterdir() if path.stem == "encoder"] if source.is_dir() else []
    path = pair[0] if len(pair) == 1 and pair[0].suffix in SUFFIXES else weights(source)
    theirs, size = foreign.read(path), settings.size or SIZE
    parts = {
        p: {n.removeprefix(f"{p}."): t for n, t in theirs.items() if n.startswith(f"{p}.")}
        for p in ("encoder", "decoder")
    }
    other = settings.decoder or path.with_name(path.name.replace("encoder", "decoder"))
    if settings.decoder and openai.is_part(theirs) != "encoder":
        raise UserError(f"--decoder goes with the encoder of OpenAI's dVAE, and {path} is something else.")
    try:
        if openai.is_part(parts["encoder"]):  # both in one file
            return openai.from_published(parts["encoder"], parts["decoder"], size)
        if openai.is_part(theirs) == "decoder":
            raise UserError(f"{path} is the decoder of OpenAI's dVAE: give the encoder, and this one as --decoder.")
        if openai.is_part(theirs) == "encoder":
            if settings.decoder is None and (other == path or not other.is_file()):
                raise UserError(f"{path} is the encoder of OpenAI's dVAE: give its decoder with --decoder.")
            return openai.from_published(theirs, foreign.read(other), size)
        if found := vqgan.own_tensors(theirs):
            return vqgan.from_published(found, size)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}.") from None
    if "tok_emb_img.weight" in theirs:
        raise UserError(f"{path} is the transformer of minDALL-E: give the directory that holds it and its VQGAN.")
    raise UserError(
        f"{path} is of no model known here: {len(theirs):,} tensors, the first {next(iter(theirs))!r}; known are OpenAI's dVAE, "
        "VQGAN and minDALL-E."
    )


def take_mindalle(source: Path, settings: Convert):
    """The three parts of minDALL-E: transformer, VQGAN and the tokenizer of captions."""
    from dalle import foreign, mindalle, vqgan

    captions = mindalle.CaptionTokenizer.read(
        source / "tokenizer" / "bpe-16k-vocab.json", source / "tokenizer" / "bpe-16k-merges.txt"
    )
    found = foreign.read_yaml(source / "config.yaml").get("stage2")
    hparams = found.get("hparams", {}) if isinstance(found, dict) else None
    if not isinstance(hparams, dict):
        raise UserError(f"{source / 'config.yaml'} has no stage2.hparams, the settings of the transformer.")
    path = source / "stage2_last.ckpt"
    try:
        model = mindalle.from_published(foreign.read(path), hparams, captions.end)
        path = source / "stage1_last.ckpt"
        theirs = vqgan.own_tensors(foreign.read(path))
        size = model.config.grid * vqgan.factor(theirs)  # the transformer has a place for each code
        pictures = vqgan.from_published(theirs, size)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}.") from None
    mindalle.check_fit(model.config, pictures.config, captions, source)
    if settings.size not in (None, size):
        raise UserError(f"--size {settings.size}: minDALL-E draws pictures of {size} pixels only; leave --size out.")
    return model, pictures, captions


def count(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def describe(pictures, model=None) -> str:
    config = pictures.config
    sizes = f"{config.size}x{config.size} pictures as {config.grid}x{config.grid} codes out of {config.vocabulary:,}"
    text = f"{count(pictures):,} parameters, {sizes}"
    if model is None:
        return text
    blocks = model.config.transformer
    return (
        f"{count(model):,} parameters in {blocks.depth} blocks of width {blocks.width} with {blocks.heads} heads, "
        f"captions of {model.config.text_length} tokens out of {model.config.text_vocabulary:,}; its VQGAN: {text}"
    )


def card(settings: Convert, argv: list[str] | None, kind: str, about: str) -> str:
    """The README.md of what was converted."""
    from multimodal import cards

    title, origin = ORIGINS[kind]
    return f"""# {title}, converted from {settings.source}

{about}.

Converted with

    {cards.command(PROG, argv)}

**Source and licence.** {origin}

**Data, figures and limits** are those of the source: nothing was trained or measured here, and no weight was changed.
"""


def main(argv: list[str] | None = None) -> int:
    return cli.run(lambda settings: convert(settings, argv), cli.parse(Convert, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
