"""Claims about Muon: it is torch's, matrix by matrix, and its updates are nearly orthogonal."""

import copy

import pytest
import torch
from torch import nn

from multimodal.muon import Muon, orthogonalised

SHAPES = [(16, 16), (16, 16), (48, 16), (16, 48), (16, 16), (48, 16)]


def test_many_steps_are_those_of_torch_up_to_the_rounding_of_16_bits():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = copy.deepcopy(ours)
    mine = Muon(ours, 0.02, 0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = copy.deepcopy(ours)
    for step in range(10):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(step))
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.02 * (a - before).norm()


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 64, 16), (2, 16, 64)])
def test_singular_values_come_near_one_however_different_they_were(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape) @ torch.diag(torch.logspace(-1, 1, shape[2]))
    values = torch.linalg.svdvals(orthogonalised(matrices).float())
    assert values.max() < 1.3 and values.median() > 0.6


def test_in_32_bits_it_is_the_same_update_more_precisely():
    torch.manual_seed(0)
    matrices = torch.randn(3, 24, 40)
    exact, precise = orthogonalised(matrices.double(), torch.float64), orthogonalised(matrices, torch.float32)
    coarse = orthogonalised(matrices)
    assert (coarse.dtype, precise.dtype) == (torch.bfloat16, torch.float32)
    assert (precise - exact).norm() < 1e-5 * exact.norm() < (coarse - exact).norm() < 0.02 * exact.norm()


def test_a_matrix_moves_as_it_would_alone():
    torch.manual_seed(0)
    matrices = torch.randn(4, 24, 24)
    together = orthogonalised(matrices)
    for matrix, found in zip(matrices, together, strict=True):
        assert (orthogonalised(matrix[None])[0] - found).float().norm() < 0.02 * found.float().norm()


def test_a_matrix_without_a_gradient_stays_where_it_is():
    moved, still = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([moved, still], 0.1, 0.1)
    moved.grad = torch.randn(4, 4)
    optimizer.step()
    assert torch.equal(still, torch.ones(4, 4)) and not torch.equal(moved, torch.ones(4, 4))


def test_no_gradient_at_all_is_no_number_neither():
    parameter = nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([parameter], 0.1, 0.0)
    parameter.grad = torch.zeros(4, 4)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(4, 4))
