"""Text in, token ids out, and back: byte-level BPE (as GPT-2), characters (as char-rnn), or bytes, one class
for all.

All three are pipelines of the `tokenizers` library in one tokenizer.json. Encoding is the library's; decoding
is by the bytes each token stands for, so that a stream of tokens never shows half a UTF-8 character and
equals the decoding of the whole. Id 0 is <|endoftext|>, which separates documents; it is never made from text
that merely spells it. BPE: Sennrich et al. 2016; over bytes: Radford et al. 2019.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from multimodal.cli import UserError

END, UNKNOWN = "<|endoftext|>", "<|unknown|>"
MAX_LETTERS = 100_000  # of one caption; what is beyond could not fit in any context
MAX_FILE_BYTES = 64_000_000  # GPT-2's 50,257 tokens take 1.4 MB, the largest vocabularies in use about 20 MB


def byte_symbols() -> dict[str, int]:
    """The visible character that stands for each byte in a byte-level vocabulary (GPT-2's table): its byte.

    Printable Latin-1 bytes stand for themselves, the others take the characters from U+0100 on, in order.
    """
    visible = [i for first, last in ("!~", "¡¬", "®ÿ") for i in range(ord(first), ord(last) + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def caption(text: str) -> str:
    """A caption or prompt as picture models read it: lower case, no underscores, single spaces, and one in front.

    The space makes a word the same token at the start of a caption as inside it.
    """
    return " " + " ".join(text[:MAX_LETTERS].lower().replace("_", " ").split())


class Tokenizer:
    """One vocabulary. Build it with `bpe`, `characters` or `bytes`, or `load` a saved one."""

    def __init__(self, pipeline: tokenizers.Tokenizer):
        self.pipeline = pipeline
        # text that spells <|endoftext|> is text, not the end of a document
        pipeline.encode_special_tokens = True
        pipeline.no_truncation()
        pipeline.no_padding()
        if pipeline.token_to_id(END) is None:
            raise UserError(f"the tokenizer has no {END}, which separates documents.")
        self.end: int = pipeline.token_to_id(END)
        self.vocab_size: int = pipeline.get_vocab_size()
        self.token_bytes = bytes_of_tokens(pipeline)

    @classmethod
    def bpe(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Byte-level BPE of at most `vocab_size` tokens (257 are the end and the bytes); takes any text."""
        if vocab_size < 257:
            raise UserError(f"a vocabulary of {vocab_size} is too small for byte-level BPE, which needs 257 or more.")
        pipeline = tokenizers.Tokenizer(models.BPE())
        pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        pipeline.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=32,  # keeps rulers such as "=======" from eating the vocabulary
            show_progress=False,
        )
        pipeline.train_from_iterator((piece for text in texts for piece in pieces(_clean(text))), trainer)
        return cls(pipeline)

    @classmethod
    def characters(cls, texts: Iterable[str]) -> "Tokenizer":
        """A token for each character of the texts; any other becomes <|unknown|>, which decodes to U+FFFD."""
        seen = sorted(set().union(*(set(_clean(text)) for text in texts)))
        vocabulary = {token: i for i, token in enumerate([END, UNKNOWN, *seen])}
        pipeline = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        pipeline.pre_tokenizer = pre_tokenizers.FixedLength(1)
        pipeline.decoder = decoders.Fuse()
        pipeline.add_special_tokens([END, UNKNOWN])
        return cls(pipeline)

    @classmethod
    def bytes(cls) -> "Tokenizer":
        """A token for each byte: id = byte + 1. Any text round-trips."""
        vocabulary = {END: 0} | {symbol: byte + 1 for symbol, byte in byte_symbols().items()}
        pipeline = tokenizers.Tokenizer(models.BPE(vocabulary, merges=[]))
        pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        pipeline.decoder = decoders.ByteLevel()
        pipeline.add_special_tokens([END])
        return cls(pipeline)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """A saved tokenizer, or a published byte-level one such as GPT-2's tokenizer.json."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path} is not a file; a tokenizer is a tokenizer.json.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, a tokenizer at most {MAX_FILE_BYTES:,}.")
        try:
            text = path.read_text(encoding="utf-8")
            kind = (json.loads(text).get("decoder") or {}).get("type")
            pipeline = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain Exception for what it cannot read
            raise UserError(f"{path} could not be read as a tokenizer: {error}") from None
        if kind not in ("ByteLevel", "Fuse"):
            raise UserError(f"{path} decodes by {kind!r}; byte-level and character tokenizers can be read.")
        return cls(pipeline)

    def save(self, path: Path) -> None:
        Path(path).write_text(self.pipeline.to_str(), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        return [i for piece in pieces(_clean(text)) for i in self.pipeline.encode(piece, add_special_tokens=False).ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text; <|endoftext|> is left out, bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.token_bytes[i] for i in ids).decode("utf-8", "replace")

    def stream(self) -> "Stream":
        return Stream(self)

    def show(self, token: int) -> str:
        r"""One token by itself, for people and JSON; part of a character is written as bytes:\xf0\x9f."""
        if token == self.end:
            return END
        raw = self.token_bytes[token]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def bytes_of_tokens(pipeline: tokenizers.Tokenizer) -> list[bytes]:
    """The bytes that each id stands for; the end of a document has none."""
    symbols = byte_symbols()
    byte_level = isinstance(pipeline.decoder, decoders.ByteLevel)
    table = []
    for i in range(pipeline.get_vocab_size()):
        token = pipeline.id_to_token(i)
        if token is None or token == END:
            table.append(b"")
        elif token == UNKNOWN:
            table.append("\ufffd".encode())
        elif byte_level and all(symbol in symbols for symbol in token):
            table.append(bytes(symbols[symbol] for symbol in token))
        else:
            table.append(token.encode())
    return table


class Stream:
    """Decodes ids as they come: only whole characters leave it, and together they equal `decode`."""

    def __init__(self, tokenizer: Tokenizer):
        self._bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(self._bytes[token])

    def flush(self) -> str:
        """What is left at the end: U+FFFD where a character was cut off."""
        return self._decoder.decode(b"", final=True)


def pieces(text: str, size: int = 500_000) -> Iterable[str]:
    """The text in parts of about `size` characters, since the library takes some hundred bytes for a token.

    A cut is made after a line that is followed directly by text: there byte-level BPE never joins, so the ids
    are those of the whole. Where none comes for another `size` characters, the text is cut anyway.
    """
    begin = 0
    while len(text) - begin > 2 * size:
        cut = begin + size
        while True:
            cut = text.find("\n", cut, begin + 2 * size) + 1
            if cut == 0:
                cut = begin + 2 * size
                break
            if not text[cut - 2].isspace() and not text[cut].isspace():
                break
        yield text[begin:cut]
        begin = cut
    yield text[begin:]


def _clean(text: str) -> str:
    """Half surrogate pairs, which no encoding holds, become "?" (odd bytes of a command line bring them)."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
