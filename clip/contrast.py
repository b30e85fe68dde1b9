"""One step of contrastive training, for `fit`: batches of captioned pictures in, the loss of a CLIP on them out.

index -> items of the data (this process's share) -> pictures, tokens, identities -> augmentation, towers, part by part
where that is asked for -> vectors of all processes -> loss; and a watch that says when nothing is learned.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clip import chunks
from clip.augment import Plan, allowed, augment
from clip.loss import contrastive
from clip.model import CLIP, tokenize
from clip.watch import Watch
from multimodal import distributed, images
from multimodal.cli import UserError
from multimodal.data import pairs
from multimodal.tokenizer import Tokenizer
from multimodal.training import Batch, Loss, shuffled

OPPOSED = 4  # at most one in so many pairs of a batch makes room for the opposite of another


def batches(
    take: Callable[[Sequence[int]], Batch],
    count: int,
    tokenizer: Tokenizer,
    context: int,
    batch_size: int,
    seed: int,
    opposite: Callable[[int, pairs.Item], pairs.Item | None] | None = None,
) -> Callable[[int], Batch]:
    """Batch `index` of `count` items, or what this process has of it; `take` gives items by number, as `pairs.batch`, and
    `opposite` of an item and its number the one that differs in no more than a word, if there is one.
    Raises UserError for a batch of one: its loss is 0 whatever the model does."""
    if batch_size < 2:
        raise UserError(
            f"--train.batch-size {batch_size}: pictures and captions learn by being told apart from the others of their batch, "
            "so it needs 2 pairs at least; 32 or more learn much better."
        )

    def batch(index: int) -> Batch:
        items = pairs.share(shuffled(index, batch_size, count, seed), distributed.rank(), distributed.world())
        found = take(items)
        if opposite is not None:
            found = opposed(found, items, opposite)
        tokens = tokenize(tokenizer, found["caption"], context)[0]
        return {
            "image": found["image"],
            "text": tokens,
            "identity": named(found["identity"], tokens),
            "may": allowed(found["caption"]),
        }

    return batch


def opposed(found: Batch, numbers: Sequence[int], opposite: Callable[[int, pairs.Item], pairs.Item | None]) -> Batch:
    """The batch with the opposites of those of its items that have one; as many of its last items go."""
    room, others = len(numbers) // OPPOSED, []
    for i, number in enumerate(numbers):
        if len(others) == room or i >= len(numbers) - len(others) - 1:  # what goes brings none
            break
        item = pairs.Item(found["image"][i], found["caption"][i], tuple(found["identity"][i].tolist()))
        if (other := opposite(number, item)) is not None:
            others.append(other)
    if not others:
        return found
    stays = len(numbers) - len(others)
    return {
        "image": torch.cat((found["image"][:stays], torch.stack([other.image for other in others]))),
        "caption": [*found["caption"][:stays], *(other.caption for other in others)],
        "identity": torch.cat((found["identity"][:stays], torch.tensor([other.identity for other in others]))),
    }


def named(identity: Int[Tensor, "b k"], tokens: Int[Tensor, "b n"]) -> Int[Tensor, "b j"]:
    """Identities with one more: the words as the model reads them. What reads the same cannot be told apart."""
    end = tokens[:, -1:]  # captions are padded with the end token, or end with it
    rows = [
        hash(tuple(row[: row.index(last)])) >> 2 for row, (last,) in zip(tokens.tolist(), end.tolist(), strict=True)
    ]
    return torch.cat((identity, torch.tensor(rows)[:, None]), dim=1)


class Towers(nn.Module):
    """Both towers of a network on a whole batch, in one forward pass, which is what a wrapper around them must see."""

    def __init__(self, network: CLIP, plan: Plan | None, chunk: int):
        super().__init__()
        self.network, self.plan, self.chunk = network, plan, chunk

    def forward(
        self, pictures: Tensor, tokens: Int[Tensor, "b n"], may: Bool[Tensor, "b 2"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """`pictures` are uint8 (b 3 h w), or already vectors (b d) of a frozen tower."""
        seen = pictures
        if pictures.ndim == 4:
            seen = chunks.embed_pictures(self._see, (pictures, may), self.chunk)
        return seen, chunks.embed_captions(self.network.text, tokens, self.network.config.end, self.chunk)

    def _see(self, pictures: Tensor, may: Tensor) -> Tensor:
        with torch.no_grad():
            shown = images.to_float(pictures)
            shown = augment(shown, may, self.plan) if self.plan is not None else shown
        return self.network.image(shown)


def loss_of(network: CLIP, seed: int, plan: Plan | None, chunk: int = 0) -> Loss:
    """What `fit` wants, for a network and how it is trained: how pictures are changed (None: not at all), and how many pairs
    are embedded at once."""
    wrapped: list[nn.Module] = []
    watch = Watch(network.config.scores) if distributed.rank() == 0 else None

    def loss(model: nn.Module, batch: Batch, step: int):
        if not wrapped:  # now the weights are where and what they are to be
            wrapped.append(distributed.wrap(Towers(network, plan, chunk)))
        rank, world = distributed.rank(), distributed.world()
        if world > 1:  # each process changes its pictures in its own way
            torch.manual_seed((seed * 1_000_003 + step) * world + rank)
        network.bound_scale()
        seen, said = wrapped[0](batch["image"], batch["text"], batch["may"])
        value, metrics = contrastive(
            seen, said, network.scale(), batch["identity"], network.bias, distributed.gather if world > 1 else None
        )
        # what is told is the whole batch's, the gradient stays
        value = value + (distributed.mean(value) - value.detach())
        if watch is not None:
            watch(step, world * len(said), value, seen, said, metrics)
        return value, {name: metrics[name] for name in metrics if name != "answers"}

    return loss


def cut_off(tokenizer: Tokenizer, captions: Sequence[str], context: int) -> str | None:
    """A sentence where captions are longer than the model reads."""
    cut = tokenize(tokenizer, captions, context)[1]
    return f"{cut:,} of {len(captions):,} captions are longer than {context} tokens and are cut." if cut else None
