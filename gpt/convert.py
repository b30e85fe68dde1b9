"""Convert a language model: GPT-2 as transformers or nanoGPT keep it in, a directory for --model out; or back.

    python -m gpt.convert openai-community/gpt2 --out runs/gpt2
    python -m gpt.convert downloads/gpt2-medium --out runs/medium
    python -m gpt.convert out/ckpt.pt --tokenizer downloads/gpt2 --out runs/owt
    python -m gpt.convert out-shakespeare-char/ckpt.pt --characters input.txt --out runs/characters
    python -m gpt.convert runs/gpt2 --to hf --out exported

What SOURCE is tells the direction. Weights are read from safetensors, or from nanoGPT's ckpt.pt by torch's restricted
reader, which executes nothing; no number is changed. What GPT-2 cannot represent exactly is refused.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "gpt.convert"


@dataclass(frozen=True, kw_only=True)
class Convert(Common):
    """Reads a model of one layout and writes it in another."""

    source: Positional[str]
    """A directory of transformers (config.json, safetensors, tokenizer), nanoGPT's ckpt.pt, a name on the hub (needs the
    network), or with --to hf a run directory."""
    out: Path
    """The directory to write; it must not hold anything yet."""
    to: Literal["ours", "hf"] = "ours"
    """ours: what --model takes. hf: what transformers' AutoModelForCausalLM and AutoTokenizer open."""
    tokenizer: str | None = None
    """A tokenizer.json, or a directory or a name on the hub that has one, where SOURCE has none."""
    characters: Path | None = None
    """The text that nanoGPT's prepare.py made the characters from (input.txt), in place of its meta.pkl."""
    shortcuts: bool = False
    """Add value residual and embedding shortcut. They start at 0, so nothing changes until they are trained."""
    json: bool = False
    """Print an object: out, parameters, vocabulary, context, width, depth, heads."""


def convert(settings: Convert, argv: list[str] | None) -> int:
    from gpt import foreign
    from multimodal.checkpoint import find

    out, source = settings.out, Path(settings.source)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} already holds something; choose another, since nothing is overwritten.")
    kind = foreign.layout(settings.source)
    if settings.to == "hf":
        if kind in ("transformers", "nanogpt"):
            raise UserError(f"{source} is in the layout of {kind}; --to hf takes a run directory of gpt.")
        if settings.tokenizer or settings.characters or settings.shortcuts:
            raise UserError("--tokenizer, --characters and --shortcuts are for converting to ours, not for --to hf.")
        config, count = export(find(settings.source, "gpt"), out)
    elif kind == "ours":
        raise UserError(f"{source} is in our layout already: give it as --model, or add --to hf to export it.")
    else:
        if settings.characters and (kind != "nanogpt" or settings.tokenizer):
            raise UserError("--characters is for a character model of nanoGPT, in place of --tokenizer.")
        if kind == "nanogpt" and source.is_dir():
            source = source / "ckpt.pt"
        config, count = take(settings, argv, kind, source)
    blocks = config.transformer
    if settings.json:
        sizes = {"width": blocks.width, "depth": blocks.depth, "heads": blocks.heads}
        cli.emit(
            {"out": str(out), "parameters": count, "vocabulary": config.vocabulary, "context": config.context, **sizes}
        )
    else:
        print(f"{out}: {describe(config, count)}")
    return 0


def take(settings: Convert, argv: list[str] | None, kind: str, source: Path):
    """Writes our directory; returns (settings of the model, number of parameters)."""
    import dataclasses

    import torch

    from gpt import foreign, published
    from gpt import model as gpt

    if kind == "nanogpt":
        config, tensors = foreign.read_nanogpt(source)
    else:
        source = foreign.fetch(settings.source) if kind == "hub" else source
        config, tensors = foreign.read_config(source), foreign.read_safetensors(source)
    in_out = kind != "nanogpt"
    try:
        theirs = {plain: tensors[name] for plain, name in published.plain_names(tensors).items()}
        published.check(theirs, config, in_out)
    except ValueError as error:
        raise UserError(f"{settings.source}: {error}") from None
    if settings.characters:
        tokenizer = foreign.read_characters(settings.characters, config.vocabulary)
    else:
        tokenizer = foreign.read_tokenizer(tokenizer_place(settings, kind, source, config.vocabulary))
        config = dataclasses.replace(config, vocabulary=kept_rows(config.vocabulary, tokenizer.vocab_size))
    ours = published.to_ours(theirs, config, in_out)
    if settings.characters:
        start = tokenizer.encode("\n")[0]  # what nanoGPT begins a text with
        ours, silent = published.add_tokens(ours, max(start - 2, 0))
        config = dataclasses.replace(config, vocabulary=config.vocabulary + 2)
        if not silent:
            cli.say(
                f"{tokenizer.vocab_size - 2:,} characters fill the width of {config.transformer.width}: the end of a text, "
                "which nanoGPT's characters have not, now and then comes by chance."
            )
    if settings.shortcuts:
        ours = published.add_shortcuts(ours, config.transformer.depth)
        config = dataclasses.replace(config, transformer=dataclasses.replace(config.transformer, shortcuts=True))
    with torch.device("meta"):
        model = gpt.GPT(config)
    model.load_state_dict(ours, assign=True)
    count = sum(p.numel() for p in model.parameters())
    gpt.save(model, tokenizer, settings.out, card=card(settings, argv, config, count))
    return config, count


def tokenizer_place(settings: Convert, kind: str, source: Path, vocabulary: int) -> Path:
    """Where the tokenizer is to be read from: --tokenizer, or the source itself."""
    from gpt import foreign

    if settings.tokenizer is not None:
        place = Path(settings.tokenizer)
        return place if place.exists() else foreign.fetch(settings.tokenizer, weights=False)
    if kind == "nanogpt":
        raise UserError(
            f"{source} holds no tokenizer for its {vocabulary:,} tokens: give --tokenizer with GPT-2's, or for a character "
            "model --characters with the text it was made from (meta.pkl is a pickle, and not read)."
        )
    return source


def kept_rows(vocabulary: int, tokens: int) -> int:
    """Rows of the embedding to keep; those that only pad it to a round number stand for nothing, yet could be written."""
    if not 0 <= vocabulary - tokens <= max(127, vocabulary // 50):
        raise UserError(
            f"the tokenizer has {tokens:,} tokens, the model {vocabulary:,}: they do not belong together; "
            "give the model's own with --tokenizer."
        )
    if vocabulary > tokens:
        cli.say(f"left out: {vocabulary - tokens} rows of the embedding that stand for no token")
    return tokens


def export(source: Path, out: Path):
    """Writes the directory of transformers; returns (settings of the model, number of parameters)."""
    import json
    import shutil

    from safetensors.torch import save_file

    from gpt import foreign, published
    from gpt import model as gpt
    from multimodal import checkpoint
    from multimodal.tokenizer import END, MAX_FILE_BYTES

    model, tokenizer = gpt.load(source, "cpu")
    try:
        config = published.to_transformers_config(model.config, tokenizer.end)
    except ValueError as error:
        raise UserError(f"{source} cannot be exported: {error}") from None

    def write(name: str, content: dict) -> None:
        checkpoint.write_text(out / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    with checkpoint.replacing(out / "tokenizer.json") as aside:
        tokenizer.save(aside)
    with checkpoint.replacing(out / foreign.WEIGHTS) as aside:
        tensors = published.to_transformers(model.state_dict(), model.config.transformer.depth)
        save_file(tensors, aside, metadata={"format": "pt"})
        aside.chmod(0o644)  # safetensors lets nobody else read what it writes
    unknown = checkpoint.read_json(out / "tokenizer.json", MAX_FILE_BYTES)["model"].get("unk_token")
    write(
        "tokenizer_config.json",
        {
            # the class that takes tokenizer.json as it is
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END,
            "eos_token": END,
            "unk_token": unknown or END,
            "model_max_length": model.config.context,
            "clean_up_tokenization_spaces": False,
        },
    )
    write("generation_config.json", {"bos_token_id": tokenizer.end, "eos_token_id": tokenizer.end})
    if (source / "README.md").is_file():
        shutil.copyfile(source / "README.md", out / "README.md")
    write("config.json", config)
    return model.config, sum(p.numel() for p in model.parameters())


def describe(config, count: int) -> str:
    blocks = config.transformer
    return (
        f"{count:,} parameters, {blocks.depth} blocks of width {blocks.width} with {blocks.heads} heads, "
        f"{config.vocabulary:,} tokens, context {config.context:,}"
    )


def card(settings: Convert, argv: list[str] | None, config, count: int) -> str:
    """The README.md of what was converted."""
    from multimodal import cards

    return f"""# GPT-2's blocks, converted from {settings.source}

{describe(config, count)}.

Converted with

    {cards.command(PROG, argv)}

**Data, figures, licence and limits** are those of the source, which its own card tells: nothing was trained or measured
here, and no weight was changed{" (tokens for the end and the unknown were added)" if settings.characters else ""}.
"""


def main(argv: list[str] | None = None) -> int:
    return cli.run(lambda settings: convert(settings, argv), cli.parse(Convert, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
