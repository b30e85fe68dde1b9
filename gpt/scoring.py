"""How well a language model predicts text: token ids in; log-probabilities, nats a token and bits a byte out.

Windows overlap by half, and only the second half of each is judged (of the first, all), so every token is
predicted from at least half a context: cutting the text into separate windows would judge the model on their
beginnings. Bits per byte compare models with different tokenizers. Only text counts: the end of a document
has no bytes and no nats.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from gpt.model import GPT
from multimodal.data.tokens import Joined
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


@dataclass(frozen=True)
class Scored:
    """Tokens, and what the model thought of each given those before it."""

    tokens: list[int]
    logprobs: list[float]
    """Log-probability of each, in nats."""
    likeliest: list[bool]
    """Whether the model held no other token for likelier."""

    @property
    def logprob(self) -> float:
        """Of all of them, in nats."""
        return math.fsum(self.logprobs)


@torch.inference_mode()
def judged(model: GPT, spans: Sequence[tuple[Sequence[int] | np.ndarray, int]]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each span (ids, first): its index, the log-probability of every id from `first` on given those before it in the
    span (nats), and whether it was the likeliest. In an order of its own: spans of like length share a pass.

    A span has at most context + 1 ids, and 1 <= first < len(ids).
    """
    device, vocabulary = model.embedding.weight.device, model.config.vocabulary
    order = sorted(range(len(spans)), key=lambda i: -len(spans[i][0]))
    while order:
        longest = len(spans[order[0]][0])
        count = 0
        for i in order[:64]:  # as many as 130 MB of logits hold
            tail = max(longest - spans[k][1] for k in order[: count + 1])
            if count and ((count + 1) * tail * vocabulary > 2**25 or longest - len(spans[i][0]) > longest // 4):
                break
            count += 1
        chunk, order = order[:count], order[count:]
        # padding on the right: a causal model never looks there
        rows = torch.zeros(count, longest, dtype=torch.long)
        for row, i in zip(rows, chunk, strict=True):
            row[: len(spans[i][0])] = torch.as_tensor(np.asarray(spans[i][0], dtype=np.int64))
        first = min(spans[i][1] for i in chunk)
        rows = rows.to(device)
        logits = model(rows[:, :-1], last=longest - first).float()
        found, best = -_nats(logits, rows[:, first:]), logits.argmax(-1) == rows[:, first:]
        for found_, best_, i in zip(found.cpu(), best.cpu(), chunk, strict=True):
            part = slice(spans[i][1] - first, len(spans[i][0]) - first)
            yield i, found_[part], best_[part]


def _nats(logits: Float[Tensor, "b n v"], targets: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    return F.cross_entropy(rearrange(logits, "b n v -> b v n"), targets, reduction="none")


@torch.inference_mode()
def branches(
    model: GPT, end: int, groups: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Of each group (ids of a context, the continuations that may follow it): its index, the continuation's, the
    log-probability of every id of that, and whether it was the likeliest. Every context is read once.

    A context has at least one id; with its longest continuation it has at most context + 1.
    """
    weight, vocabulary = model.embedding.weight, model.config.vocabulary
    config = model.config.transformer
    order = sorted(range(len(groups)), key=lambda g: -len(groups[g][0]))
    while order:
        longest, count, rows, most = len(groups[order[0]][0]), 0, 0, 0
        for g in order[:64]:
            wider, more = max(most, max(map(len, groups[g][1]))), rows + len(groups[g][1])
            size = 2 * config.depth * config.width * (longest + wider)  # numbers of a row in the cache
            if count and (
                more * max(size, wider * vocabulary) > 2**26
                or longest - len(groups[g][0]) > longest // 4
                or longest + wider > model.config.context + 1
            ):
                break
            count, rows, most = count + 1, more, wider
        chunk, order = order[:count], order[count:]
        # padding on the left, so that every continuation begins at one place
        tokens = torch.tensor([[end] * (longest - len(groups[g][0])) + [*groups[g][0]] for g in chunk])
        padding = torch.tensor([longest - len(groups[g][0]) for g in chunk], device=weight.device)
        valid = torch.arange(longest, device=weight.device) >= padding[:, None]
        cache = model.cache(count, longest + most)
        logits = model(tokens.to(weight.device), None if bool(valid.all()) else valid, cache, last=1)

        names = [(g, i) for g in chunk for i in range(len(groups[g][1]))]
        owner = torch.tensor([k for k, g in enumerate(chunk) for _ in groups[g][1]], device=weight.device)
        after = torch.zeros(len(names), most, dtype=torch.long)
        for row, (g, i) in zip(after, names, strict=True):
            row[: len(groups[g][1][i])] = torch.as_tensor(groups[g][1][i])
        after = after.to(weight.device)
        logits, valid = logits[owner], torch.cat((valid[owner], valid.new_ones(len(names), most - 1)), dim=1)
        if most > 1:
            rest = model(after[:, :-1], None if bool(valid.all()) else valid, cache.select(owner))
            logits = torch.cat((logits, rest), dim=1)
        found, best = -_nats(logits.float(), after).cpu(), (logits.argmax(-1) == after).cpu()
        for (g, i), found_, best_ in zip(names, found, best, strict=True):
            yield g, i, found_[: len(groups[g][1][i])], best_[: len(groups[g][1][i])]


def continuations(model: GPT, end: int, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]:
    """Of each row (ids of a context, ids of its continuation): the continuation, scored; `end` is the tokenizer's.

    An empty context is the end of the document before. A context too long loses its oldest ids; a continuation that is
    itself too long is judged by overlapping windows (see `windows`). A context that several rows share is read once.
    """
    context = model.config.context
    spans, owners = [], []
    shared: dict[tuple[int, ...], list[int]] = {}
    for row, (before, after) in enumerate(rows):
        if after and len(before or [end]) + len(after) <= context + 1:
            shared.setdefault((*(before or [end]),), []).append(row)
    together = [(before, members) for before, members in shared.items() if len(members) > 1]
    found: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
    for group, i, *judgement in branches(model, end, [(b, [rows[row][1] for row in m]) for b, m in together]):
        found[together[group][1][i]] = [(0, *judgement)]
    for row, (before, after) in enumerate(rows):
        if row in found:
            continue
        ids = [*(before or [end]), *after]
        first = len(ids) - len(after)
        if len(after) <= context and (over := len(ids) - context - 1) > 0:
            ids, first = ids[over:], first - over
        for begin, judged_from, stop in windows(len(ids), context):
            if stop >= first:
                spans.append((ids[begin : stop + 1], max(judged_from, first) - begin))
                owners.append(row)
    for span, logprobs, likeliest in judged(model, spans):
        found.setdefault(owners[span], []).append((span, logprobs, likeliest))
    result = []
    for row, (_, after) in enumerate(rows):
        parts = sorted(found.get(row, []), key=lambda part: part[0])
        result.append(Scored(list(after), *([v for part in parts for v in part[k].tolist()] for k in (1, 2))))
    return result


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of a context and of what follows it, encoded as one text: a word keeps its token, and its space before it.

    A token that spans the border belongs to what follows.
    """
    text = context.rstrip()
    continuation = context[len(text) :] + continuation
    whole, before = tokenizer.encode(text + continuation), tokenizer.encode(text)
    shared = next(
        (i for i, (a, b) in enumerate(zip(whole, before, strict=False)) if a != b), min(len(whole), len(before))
    )
    return whole[:shared], whole[shared:]


def score(model: GPT, tokenizer: Tokenizer, ids: np.ndarray | Joined, most: int | None = None) -> dict[str, float]:
    """{"loss": nats a token, "bpb": bits a byte} over the ids' text, or over `most` windows of it."""
    lengths = torch.tensor([len(piece) for piece in tokenizer.token_bytes])
    nats, tokens, size = 0.0, 0, 0
    plan = windows(len(ids), model.config.context, most)
    for number, logprobs, _ in judged(model, [(ids[begin : end + 1], first - begin) for begin, first, end in plan]):
        _, first, end = plan[number]
        bytes_ = lengths[torch.from_numpy(ids[first : end + 1].astype(np.int64))]
        nats -= logprobs[bytes_ > 0].double().sum().item()
        tokens += int((bytes_ > 0).sum())
        size += int(bytes_.sum())
    return {"loss": nats / max(tokens, 1), "bpb": nats / math.log(2) / max(size, 1)}
