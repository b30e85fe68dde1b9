"""How well a language model predicts text: token ids in, nats a token and bits a byte of the text out.

Windows overlap by half, and only the second half of each is judged (of the first, all), so every token is
predicted from at least half a context: cutting the text into separate windows would judge the model on their
beginnings. Bits per byte compare models with different tokenizers. Only text counts: the end of a document
has no bytes and no nats.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from gpt.model import GPT
from multimodal.tokenizer import Tokenizer


def windows(count: int, context: int, most: int | None = None) -> list[tuple[int, int, int]]:
    """(begin, judged, end) of windows over `count` ids: begin..end-1 predict begin+1..end.

    From `judged` on they count: together they judge every id but the first once. With `most`, that many of
    them, spread over the whole.
    """
    stride, found, judged = max(1, context // 2), [], 1
    while judged < count:
        end = min(count - 1, max(context, judged - 1 + stride))
        found.append((max(0, end - context), judged, end))
        judged = end + 1
    if most is not None and len(found) > most:
        # not the first, which alone judges predictions from little
        found = [found[1 + i * (len(found) - 1) // most] for i in range(most)]
    return found


@torch.no_grad()
def score(model: GPT, tokenizer: Tokenizer, ids: np.ndarray, most: int | None = None) -> dict[str, float]:
    """{"loss": nats a token, "bpb": bits a byte} over the ids' text, or over `most` windows of it."""
    lengths = torch.tensor([len(piece) for piece in tokenizer.token_bytes])
    device = model.embedding.weight.device
    batch_size = max(1, min(16, 2**25 // (model.config.context * model.config.vocabulary)))  # 130 MB of logits
    nats, tokens, size = 0.0, 0, 0
    todo = windows(len(ids), model.config.context, most)
    while todo:
        # equal lengths go together: all but the windows at the two ends are
        width = todo[0][2] - todo[0][0]
        chunk = [w for w in todo[:batch_size] if w[2] - w[0] == width]
        todo = [w for w in todo[:batch_size] if w[2] - w[0] != width] + todo[batch_size:]
        rows = torch.stack([torch.from_numpy(ids[b : e + 1].astype(np.int64)) for b, _, e in chunk])
        judged = max(e + 1 - j for _, j, e in chunk)
        logits = model(rows[:, :-1].to(device), last=judged)
        loss = F.cross_entropy(
            rearrange(logits.float(), "b n v -> b v n"), rows[:, -judged:].to(device), reduction="none"
        ).cpu()
        targets = rows[:, -judged:]
        firsts = torch.tensor([judged - (e + 1 - j) for _, j, e in chunk])
        counted = (torch.arange(judged) >= firsts[:, None]) & (lengths[targets] > 0)
        nats += loss[counted].double().sum().item()
        tokens += int(counted.sum())
        size += int(lengths[targets][counted].sum())
    return {"loss": nats / max(tokens, 1), "bpb": nats / math.log(2) / max(size, 1)}
