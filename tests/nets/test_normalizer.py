"""Running statistics against those of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from koboshi.nets.normalizer import Normalizer


def data(members: int = 2, rows: int = 300, dim: int = 3) -> Tensor:
    g = torch.Generator().manual_seed(0)
    scale, shift = torch.tensor([0.1, 1.0, 20.0]), torch.tensor([5.0, -1.0, 30.0])
    return torch.randn(members, rows, dim, generator=g) * scale + shift


def assert_statistics(norm: Normalizer, member: int, rows: Tensor) -> None:
    torch.testing.assert_close(norm.mean[member, 0], rows.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.var[member, 0], rows.var(0, correction=0), rtol=1e-3, atol=1e-4)
    assert norm.count[member].item() == len(rows)


def test_chunks_give_the_statistics_of_the_whole() -> None:
    norm, x = Normalizer(2, 3), data()
    for chunk in x.split([100, 1, 199], dim=1):
        norm.update(chunk)
    for k in range(2):
        assert_statistics(norm, k, x[k])
    out = norm(x)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3), rtol=0, atol=1e-3)
    torch.testing.assert_close(norm.denormalize(out), x)


def test_only_valid_rows_count_for_each_member() -> None:
    norm, x = Normalizer(2, 3), data()
    mask = torch.rand(2, 300, generator=torch.Generator().manual_seed(1)) > 0.5
    x[~mask] = 1e4
    for chunk, part in zip(x.split(100, dim=1), mask.split(100, dim=1), strict=True):
        norm.update(chunk, part)
    for k in range(2):
        assert_statistics(norm, k, x[k][mask[k]])


def test_a_member_without_valid_rows_stays_as_it_is() -> None:
    norm, x = Normalizer(2, 3), data()
    norm.update(x)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    mask = torch.tensor([[False], [True]]).expand(2, 300)
    norm.update(x + 7, mask)
    for name, value in norm.state_dict().items():
        assert torch.equal(value[0], before[name][0]), name
        assert not torch.equal(value[1], before[name][1]), name


@pytest.mark.parametrize("chunks", [1, 3])
def test_symmetrize_is_as_if_each_row_came_with_its_mirror_image(chunks: int) -> None:
    ids, signs = torch.tensor([1, 0, 2]), torch.tensor([1.0, 1.0, -1.0])
    norm, x = Normalizer(1, 3), data(members=1)
    for chunk in x.chunk(chunks, dim=1):
        norm.update(chunk)
        norm.symmetrize(ids, signs)
    both = torch.cat((x[0], x[0][:, ids] * signs))
    torch.testing.assert_close(norm.mean[0, 0], both.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.var[0, 0], both.var(0, correction=0), rtol=1e-3, atol=1e-3)


def test_a_constant_stays_finite_and_outliers_are_clipped() -> None:
    norm = Normalizer(1, 1)
    norm.update(torch.full((1, 50, 1), 3.0))
    assert norm(torch.tensor([[[3.0], [3.05], [1e9]]])).flatten().tolist() == pytest.approx([0, 5, 10], abs=1e-3)
