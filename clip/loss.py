"""The contrastive loss: unit vectors of pictures and of captions in, one number out.

Every picture must find its caption among the batch's and every caption its picture: two cross-entropies over the
similarities (Radford et al. 2021, figure 3). Pairs that share an identity (of k: what they mean, or their picture and
their caption) are right answers for each other, as in supervised contrastive learning (Khosla et al. 2020); otherwise two
drawings of a cat would be taught to differ. With all identities different it is CLIP's loss exactly.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor


def matches(one: Int[Tensor, "a k"], other: Int[Tensor, "b k"]) -> Bool[Tensor, "a b"]:
    """Which pairs share an identity."""
    return (rearrange(one, "a k -> a 1 k") == rearrange(other, "b k -> 1 b k")).any(dim=-1)


def contrastive(
    images: Float[Tensor, "b d"],
    texts: Float[Tensor, "b d"],
    scale: Float[Tensor, ""],
    identity: Int[Tensor, "b k"],
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The loss and what to watch: `accuracy` (share of pictures whose nearest caption is right), `scale`.

    Not learning shows as a loss of ln(b). The least loss is the mean ln(number of right answers), not 0.
    """
    # similarities times 100 need more digits than bf16 has
    with torch.autocast(images.device.type, enabled=False):
        logits = scale.float() * images.float() @ texts.float().T
    same = matches(identity, identity)
    targets = same / same.sum(dim=1, keepdim=True)  # symmetric in the two directions, as `same` is
    loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    with torch.no_grad():
        nearest = rearrange(logits.argmax(dim=1), "b -> b 1")
        accuracy = same.gather(1, nearest).float().mean()
    return loss, {"accuracy": accuracy, "scale": scale.detach()}
