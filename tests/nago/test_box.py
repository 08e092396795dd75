import pytest
import torch

from hotnas_torch.nago import FlatThetaSpace, ThetaSpace, UnitBox
from hotnas_torch.nago.box import check_box, check_rows, describe_box, distinct_from


def test_columns_with_levels_have_as_many_values(rng: torch.Generator) -> None:
    space = UnitBox(3, levels=(0, 4, 1))
    rows = space.sample(400, generator=rng)
    assert rows.dtype == torch.float64
    assert len(rows[:, 0].unique()) == 400
    assert rows[:, 1].unique().tolist() == [0.125, 0.375, 0.625, 0.875]
    assert rows[:, 2].unique().tolist() == [0.5]
    counts = torch.bincount((rows[:, 1] * 4).long(), minlength=4)
    assert counts.min() > 70


def test_rounding_goes_to_the_bin_and_is_final() -> None:
    space = UnitBox(2, levels=(0, 2))
    rows = torch.tensor([[0.1, 0.0], [0.1, 0.49], [0.1, 0.5], [0.1, 1.0]], dtype=torch.float64)
    rounded = space.round(rows)
    assert rounded[:, 1].tolist() == [0.25, 0.25, 0.75, 0.75]
    assert torch.equal(space.round(rounded), rounded)
    assert space.decode(rows)[1] == (0.1, 0.25)


def test_rows_count_once() -> None:
    known = torch.tensor([[0.1, 0.2]])
    rows = torch.tensor([[0.1, 0.2], [0.3, 0.2], [0.3, 0.2], [0.1, 0.3]])
    assert distinct_from(rows, known).tolist() == [False, True, False, True]
    assert distinct_from(rows, known[:0]).tolist() == [True, True, False, True]


def test_what_is_no_box_is_refused() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1"):
        UnitBox(0)
    with pytest.raises(ValueError, match="one number per column, 2; got 1"):
        UnitBox(2, levels=(3,))
    with pytest.raises(ValueError, match=r"levels\[1\] must be at least 0"):
        UnitBox(2, levels=(3, -1))
    with pytest.raises(TypeError, match="dim, sample, round and decode"):
        check_box([1])
    with pytest.raises(TypeError, match="must be a tensor"):
        check_rows("rows", [[0.1]], 1)
    with pytest.raises(ValueError, match=r"shape \(N, 2\)"):
        check_rows("rows", torch.zeros(3, 1), 2)
    with pytest.raises(ValueError, match=r"row 1, column 0 is 1\.5"):
        check_rows("rows", torch.tensor([[0.1], [1.5]]), 1)


def test_boxes_are_told_apart() -> None:
    assert describe_box(UnitBox(2)) != describe_box(UnitBox(2, levels=(0, 3)))


def test_hyperparameters_of_generators_are_boxes(rng: torch.Generator) -> None:
    for space in (ThetaSpace(), FlatThetaSpace()):
        assert check_box(space) is space
        rows = space.sample(3, generator=rng)
        assert torch.equal(space.round(rows), rows)
        assert len(space.decode(rows)) == 3
    assert describe_box(ThetaSpace()) != describe_box(ThetaSpace(nodes=(3, 6)))
    assert describe_box(ThetaSpace()) == describe_box(ThetaSpace())
