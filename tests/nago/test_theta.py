"""Hyperparameters: what is refused, JSON, the unit cube."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hotnas_torch.errors import ArchitectureError
from hotnas_torch.nago import (
    ErdosRenyi,
    FlatTheta,
    FlatThetaSpace,
    Theta,
    ThetaSpace,
    WattsStrogatz,
)
from hotnas_torch.nago.theta import OPERATIONS

TOP = WattsStrogatz(8, 5, 0.6)
MID = ErdosRenyi(1, 0.7)
BOTTOM = WattsStrogatz(5, 4, 0.2)
EVERYTHING = {
    "channel_ratio": None,
    "merge_weights": None,
    "operation_weights": None,
}
SPACES = [
    ThetaSpace(),
    ThetaSpace(stage_ratio=None, **EVERYTHING),
    ThetaSpace(nodes=(3, 5), mid_nodes=(1, 3), rewiring=(0.0, 1.0)),
    FlatThetaSpace(),
    FlatThetaSpace(**EVERYTHING),
]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_papers_boxes() -> None:
    space = ThetaSpace()
    corners = torch.stack([torch.zeros(8), torch.ones(8)]).double()
    low, high = space.decode(corners)
    assert low == Theta(WattsStrogatz(3, 2, 0.1), ErdosRenyi(1, 0.1), WattsStrogatz(3, 2, 0.1))
    assert high == Theta(WattsStrogatz(10, 5, 1.0), ErdosRenyi(10, 1.0), WattsStrogatz(10, 5, 1.0))
    assert FlatThetaSpace().dim == 9
    assert ThetaSpace(stage_ratio=None, **EVERYTHING).dim == 8 + 3 + 3 + 3 + len(OPERATIONS)


@pytest.mark.parametrize("space", SPACES)
def test_encoding_inverts_decoding(space: ThetaSpace | FlatThetaSpace) -> None:
    X = space.sample(50, generator=generator())
    assert X.shape == (50, space.dim)
    assert X.dtype == torch.float64
    thetas = space.decode(X)
    again = space.encode(thetas)
    for theta, twin in zip(thetas, space.decode(again), strict=True):
        assert space.encode([twin]).allclose(space.encode([theta]), atol=1e-12)
    if space.dim <= 9:
        # Without vectors, whose scale does not count, the points themselves are the same.
        torch.testing.assert_close(again, X)


def test_integers_have_equal_bins_and_round_to_their_middle() -> None:
    space = ThetaSpace()
    unit = torch.linspace(0.0, 1.0, 8001, dtype=torch.float64)[:, None].expand(-1, 8)
    counts = [theta.top.num_nodes for theta in space.decode(unit)]
    for nodes in range(3, 11):
        assert abs(counts.count(nodes) - 1000) <= 1
    rounded = space.round(unit)
    assert torch.equal(space.round(rounded), rounded)
    assert space.decode(rounded) == space.decode(unit)
    assert rounded[:, 0].unique().numel() == 8
    assert torch.equal(rounded[:, 2], unit[:, 2])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=24, max_size=24))
def test_every_point_of_the_cube_is_valid(row: list[float]) -> None:
    space = ThetaSpace(stage_ratio=None, **EVERYTHING)
    (theta,) = space.decode(torch.tensor([row], dtype=torch.float64))
    assert Theta.from_json(json.loads(json.dumps(theta.to_json()))) == theta
    assert max(theta.merge_weights) == max(theta.channel_ratio) == 1.0


def test_a_sample_is_uniform_and_reproduced_by_its_seed() -> None:
    space = ThetaSpace()
    X = space.sample(4000, generator=generator())
    assert torch.equal(X, space.sample(4000, generator=generator()))
    # Five standard errors of a uniform mean.
    assert ((X.mean(dim=0) - 0.5).abs() < 5 / (12 * 4000) ** 0.5).all()
    assert space.sample(0, generator=generator()).shape == (0, 8)


def test_flat_hyperparameters_read_back() -> None:
    theta = FlatTheta(operation_weights=(1.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0))
    assert FlatTheta.from_json(json.loads(json.dumps(theta.to_json()))) == theta
    assert hash(theta) == hash(FlatTheta.from_json(theta.to_json()))


def test_encoding_refuses_what_the_box_does_not_hold() -> None:
    thetas = [Theta(TOP, MID, BOTTOM), Theta(WattsStrogatz(11, 5, 0.6), MID, BOTTOM)]
    with pytest.raises(ValueError, match=r"thetas\[1\] must have top N in \[3, 10\]; got 11"):
        ThetaSpace().encode(thetas)
    with pytest.raises(ValueError, match=r"thetas\[0\] must agree with what this space does not"):
        ThetaSpace().encode([Theta(TOP, MID, BOTTOM, channel_ratio=(1.0, 1.0, 1.0))])
    # Only the ratio counts.
    ThetaSpace().encode([Theta(TOP, MID, BOTTOM, channel_ratio=(2.0, 4.0, 8.0))])


def test_decoding_refuses_what_is_no_point_of_the_cube() -> None:
    with pytest.raises(ValueError, match=r"X must have shape \(n, 8\)"):
        ThetaSpace().decode(torch.zeros(3, 7))
    X = torch.zeros(3, 8)
    X[1, 4] = 1.5
    with pytest.raises(ValueError, match=r"X\[1, 4\] \(mid P\) must be in \[0, 1\]; got 1.5"):
        ThetaSpace().decode(X)
    X[1, 4] = float("nan")
    with pytest.raises(ValueError, match=r"X\[1, 4\]"):
        ThetaSpace().decode(X)
    with pytest.raises(ValueError, match="num must be at least 0"):
        ThetaSpace().sample(-1, generator=generator())
    with pytest.raises(ValueError, match="the range of 'mid N' must have low < high"):
        ThetaSpace(mid_nodes=(1, 1))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"top": MID}, TypeError, "top must be a WattsStrogatz; got ErdosRenyi"),
        ({"mid": TOP}, TypeError, "mid must be a ErdosRenyi; got WattsStrogatz"),
        ({"stage_ratio": (1.0, 1.0)}, ValueError, "stage_ratio must be 3 finite numbers > 0"),
        ({"channel_ratio": (1.0, 0.0, 1.0)}, ValueError, "channel_ratio must be 3"),
        ({"merge_weights": (0.0, 0.0, 0.0)}, ValueError, "merge_weights must have a positive"),
        ({"merge_weights": (1.0, -1.0, 0.0)}, ValueError, "merge_weights must be 3 finite"),
        ({"operation_weights": (1.0,)}, ValueError, "operation_weights must be 7"),
        (
            {"operation_weights": (0.0,) * 6 + (1.0,)},
            ValueError,
            "operation_weights must have a positive entry for a convolution",
        ),
    ],
)
def test_refuses(changes, kind, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind, match=message):
        Theta(**({"top": TOP, "mid": MID, "bottom": BOTTOM} | changes))


def test_flat_refuses() -> None:
    with pytest.raises(ValueError, match="stages must hold 3 graphs; got 2"):
        FlatTheta((TOP, TOP))
    with pytest.raises(TypeError, match=r"stages\[1\] must be a WattsStrogatz"):
        FlatTheta((TOP, MID, TOP))  # type: ignore[arg-type]


def test_a_damaged_description_is_refused_by_name() -> None:
    data = Theta(TOP, MID, BOTTOM).to_json()
    with pytest.raises(ArchitectureError, match="'top' is missing"):
        Theta.from_json({k: v for k, v in data.items() if k != "top"})
    with pytest.raises(ArchitectureError, match=r"top.num_nodes must be an integer; got 'x'"):
        Theta.from_json({**data, "top": {**data["top"], "num_nodes": "x"}})
