"""Muon: orthogonal updates, as PyTorch's own makes them in bfloat16."""

from __future__ import annotations

import copy

import pytest
import torch

from asymflow.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(24, 24), (24, 60), (60, 24)])
def test_singular_values_become_nearly_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix)
    values = torch.linalg.svdvals(found)
    assert s.max() / s.min() > 2
    assert values.min() > 0.6
    assert values.max() < 1.3
    # The same singular vectors: in their basis nothing is off the diagonal.
    inner = u.T @ found @ vh.T
    assert (inner - inner.diag().diag()).abs().max() < 1e-3


def test_steps_are_those_of_pytorch() -> None:
    generator = torch.Generator().manual_seed(1)
    ours = torch.nn.Parameter(torch.randn(20, 48, generator=generator))
    theirs = torch.nn.Parameter(ours.detach().clone())
    one = Muon([ours], lr=0.02, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    begin = ours.detach().clone()
    for _ in range(5):
        gradient = torch.randn(20, 48, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    moved = (theirs - begin).norm()
    assert (ours - theirs).norm() < 0.03 * moved  # theirs rounds to bfloat16


def test_state_survives_saving() -> None:
    def make() -> tuple[torch.nn.Parameter, Muon]:
        parameter = torch.nn.Parameter(torch.eye(4, 6))
        return parameter, Muon([parameter], lr=0.1, weight_decay=0.0)

    first, optimizer = make()
    first.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    optimizer.step()
    second, resumed = make()
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    second.data.copy_(first.data)
    for parameter, each in ((first, optimizer), (second, resumed)):
        parameter.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
        each.step()
    assert torch.equal(first, second)
