"""Convert a CLIP: a published one in, a directory for --model out; or ours out, as open_clip or ONNX Runtime open it.

    python -m clip.convert open_clip:ViT-B-32/laion2b_s34b_b79k --out runs/vit-b-32
    python -m clip.convert downloads/open_clip_model.safetensors --architecture ViT-B-32 --out runs/vit-b-32
    python -m clip.convert logs/run/checkpoints/epoch_32.pt --architecture ViT-S-32 --out runs/vit-s-32
    python -m clip.convert runs/clip --to open_clip --out exported
    python -m clip.convert runs/clip --to onnx --out exported

Published models are read from safetensors, or from torch's files by its restricted reader, which executes nothing; no number is
changed. open_clip can hold models of the published blocks only; ONNX holds any, and what it computes is compared with torch
before it is kept.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "clip.convert"


@dataclass(frozen=True, kw_only=True)
class Convert(Common):
    """Reads a CLIP of one layout and writes it in another."""

    source: Positional[str]
    """A published model as --model takes it (open_clip:NAME/TAG, hf-hub:OWNER/NAME, a directory of open_clip, a file of
    weights), a run directory, or the name of a bundled model."""
    out: Path
    """The directory to write; it must not hold anything yet."""
    to: Literal["ours", "open_clip", "onnx"] = "ours"
    """ours: what --model takes. open_clip: what create_model_and_transforms("local-dir:OUT") opens, with its tokenizer. onnx:
    image.onnx and text.onnx."""
    architecture: str | None = None
    """The name that open_clip has for the towers, where SOURCE is a file of weights with no settings beside it."""
    json: bool = False
    """Print an object: out, parameters, and for onnx the largest difference from torch."""


def convert(settings: Convert, argv: list[str] | None) -> int:
    out = settings.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} already holds something; choose another, since nothing is overwritten.")
    network, tokenizer, name, is_published = opened(settings)
    if settings.to == "ours" and not is_published:
        raise UserError(
            f"{settings.source} is in our layout already: give it as --model, or add --to open_clip or --to onnx."
        )
    count = sum(parameter.numel() for parameter in network.parameters())
    found = {"out": str(out), "parameters": count}
    about = card(settings, argv, describe(network.config, count), name)
    if settings.to == "ours":
        from clip import model

        model.save(out, network, tokenizer, card=about)
    elif settings.to == "open_clip":
        export(network, tokenizer, out, about)
    else:
        from clip import onnx

        found["difference"] = onnx.export(network, tokenizer, out, about)
    if settings.json:
        cli.emit(found)
    else:
        print(f"{out}: {describe(network.config, count)}")
        if "difference" in found:
            print(f"the vectors of both towers differ from torch's by {found['difference']:.1e} at most")
    return 0


def opened(settings: Convert):
    """(network, tokenizer, name, whether it is a published one) of what is to be converted."""
    from clip import model, openclip
    from multimodal import checkpoint

    path = Path(settings.source)
    if settings.architecture is not None:
        if not path.is_file():
            raise UserError(f"--architecture {settings.architecture} is for a file of weights; {path} is no file.")
        source = openclip.Source(path.stem, openclip.architecture(settings.architecture), {}, path)
    else:
        source = openclip.locate(settings.source)
    if source is None:
        directory = checkpoint.find(settings.source, "clip")
        return *model.load(directory), directory.name, False
    try:
        return *openclip.load(source), source.name, True
    except openclip.NotOurs as reason:
        raise UserError(
            f"{settings.source} cannot be held by our towers: {str(reason).rstrip('.')}. clip.classify and the others use it as "
            "it is, by open_clip's own module: give it as --model."
        ) from None


def export(network, tokenizer, out: Path, about: str) -> None:
    """Writes the directory of open_clip."""
    import json

    from safetensors.torch import save_file

    from clip import model, openclip, published
    from multimodal import checkpoint
    from multimodal.tokenizer import END

    own = tokenizer.pipeline.token_to_id(model.START) is None
    try:
        config = published.to_config(network.config, own)
    except published.NotOurs as error:
        raise UserError(f"open_clip cannot hold this model: {str(error).rstrip('.')}. --to onnx can.") from None

    def write(name: str, content: dict) -> None:
        checkpoint.write_text(out / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    if own:
        write("tokenizer.json", openclip.exported(tokenizer))
        write(
            "tokenizer_config.json",
            {
                # the class that takes tokenizer.json as it is
                "tokenizer_class": "PreTrainedTokenizerFast",
                **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END),
                "model_max_length": network.config.context,
                "clean_up_tokenization_spaces": False,
                "split_special_tokens": True,  # a text that spells the end token does not end there
            },
        )
    with checkpoint.replacing(out / "open_clip_model.safetensors") as aside:
        save_file(published.to_theirs(network.state_dict(), network.config), aside, metadata={"format": "pt"})
        aside.chmod(0o644)  # safetensors lets nobody else read what it writes
    checkpoint.write_text(out / "README.md", about)
    write(openclip.CONFIG, config)


def describe(config, count: int) -> str:
    image, text = config.image, config.text
    return (
        f"{count:,} parameters; pictures of {config.size} pixels in patches of {config.patch}, {image.depth} blocks of width "
        f"{image.width}; texts of {config.context} tokens out of {config.vocabulary:,}, {text.depth} blocks of width "
        f"{text.width}; vectors of {config.embedding}"
    )


def card(settings: Convert, argv: list[str] | None, about: str, name: str) -> str:
    """The README.md of what was converted."""
    from multimodal import cards

    use = {
        "ours": "Use it as --model in clip.classify and the other commands.",
        "open_clip": "Open it by `open_clip.create_model_and_transforms('local-dir:DIR')` and "
        "`open_clip.get_tokenizer('local-dir:DIR')`. Of a picture with unequal sides open_clip may cut its middle a part of a "
        "pixel beside ours, and it mends texts before they are tokens (typographic quotes become straight).",
        "onnx": "image.onnx takes `images` (b 3 h w) in [0, 1], RGB; text.onnx takes `tokens` (t n), n the context, each row "
        "ended and filled up by the end token; out come unit vectors. clip.json holds scale, bias, sizes and the end token, "
        "tokenizer.json the vocabulary. A picture is scaled and its middle cropped; a text is put in lower case, its "
        "underscores become spaces, single spaces stay and one is put in front (published models: a start token instead).",
    }[settings.to]
    return f"""# CLIP, converted from {name}

{about}.

Converted with

    {cards.command(PROG, argv)}

{use}

**Data, figures, licence and limits** are those of the source, which its own card tells: nothing was trained or measured
here, and no weight was changed.
"""


def main(argv: list[str] | None = None) -> int:
    return cli.run(lambda settings: convert(settings, argv), cli.parse(Convert, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
