import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.special import softmax
from scipy.stats import entropy

from hotnas_torch import spaces
from hotnas_torch.arch import Network
from hotnas_torch.hierarchy import (
    distances,
    encoding_distances,
    output_distances,
    prefix_distances,
)


@pytest.fixture
def outputs(rng, device):
    return 3 * torch.randn(6, 5, 4, generator=rng).to(device)


def test_kl_is_scipys_relative_entropy_both_ways(outputs):
    p = softmax(outputs.double().cpu().numpy(), axis=-1)
    for i, j in ((0, 1), (4, 2), (3, 3)):
        expected = 0.5 * np.mean(
            [entropy(a, b) + entropy(b, a) for a, b in zip(p[i], p[j], strict=True)]
        )
        assert float(output_distances(outputs)[i, j]) == pytest.approx(expected, abs=1e-9)


def test_cross_entropy_is_entropy_plus_relative_entropy(outputs):
    p = softmax(outputs.double().cpu().numpy(), axis=-1)
    found = output_distances(outputs, "cross_entropy")
    for i, j in ((0, 1), (4, 2)):
        expected = 0.5 * np.mean(
            [
                entropy(a) + entropy(a, b) + entropy(b) + entropy(b, a)
                for a, b in zip(p[i], p[j], strict=True)
            ]
        )
        assert float(found[i, j]) == pytest.approx(expected, abs=1e-9)
    assert not found.diagonal().any()


def test_l2_is_euclidean_over_all_samples(outputs):
    p = softmax(outputs.double().cpu().numpy(), axis=-1)
    expected = squareform(pdist(p.reshape(6, -1))) / np.sqrt(5)
    found = output_distances(outputs, "l2").cpu().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("measure", ["kl", "l2", "cross_entropy"])
def test_matrices_are_symmetric_whatever_the_blocks(measure, outputs, monkeypatch):
    found = output_distances(outputs, measure)
    assert torch.equal(found, found.T)
    assert not found.diagonal().any()
    assert found.device == outputs.device
    monkeypatch.setattr(distances, "_BLOCK", 12)
    torch.testing.assert_close(output_distances(outputs, measure), found)
    probabilities = outputs.double().softmax(-1)
    torch.testing.assert_close(output_distances(probabilities, measure, logits=False), found)


def test_certain_predictions_stay_finite():
    outputs = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    kl = float(output_distances(outputs, logits=False)[0, 1])
    assert kl == pytest.approx(np.log(1e12), rel=1e-6)


@pytest.mark.parametrize("weights", ["equal", "exponential"])
@pytest.mark.parametrize("encoding", ["vector", "one_hot"])
def test_encodings_are_weighted_euclidean(encoding, weights, rng, device, monkeypatch):
    codes = torch.randint(3, (30, 4), generator=rng)
    factors = np.array([1.0] * 4 if weights == "equal" else [0.5, 0.25, 0.125, 0.0625])
    if encoding == "vector":
        expected = cdist(codes.numpy(), codes.numpy(), "minkowski", p=2, w=factors)
    else:
        differs = (codes[:, None] != codes).numpy()
        expected = np.sqrt((2 * differs * factors).sum(-1))
    monkeypatch.setattr(distances, "_BLOCK", 90)
    found = encoding_distances(codes.to(device), encoding, weights=weights)
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-12)
    assert torch.equal(found, found.T)


def test_wrong_arguments_are_refused(rng):
    outputs = torch.rand(3, 2, 4, generator=rng)
    broken = outputs.clone()
    broken[1, 0, 0] = torch.nan
    for arguments, kind, message in (
        ((outputs.long(),), TypeError, "floating point"),
        ((outputs[0],), ValueError, r"shape \(N, B, K\)"),
        (
            (outputs, "js"),
            ValueError,
            "measure must be one of 'kl', 'l2', 'cross_entropy'; got",
        ),
        ((broken,), ValueError, r"outputs\[1\] must be finite"),
    ):
        with pytest.raises(kind, match=message):
            output_distances(*arguments)
    with pytest.raises(ValueError, match=">= 0"):
        output_distances(outputs - 1, logits=False)
    codes = torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="encoding must be"):
        encoding_distances(codes, "path")
    with pytest.raises(ValueError, match="weights must be"):
        encoding_distances(codes, weights="linear")


def layer_mismatches(nets):
    """How many of the cells of two networks differ."""
    return torch.tensor(
        [[sum(x != y for x, y in zip(a.cells, b.cells, strict=True)) for b in nets] for a in nets]
    ).double()


def test_prefixes_weigh_layers_by_powers_of_two(rng):
    nets = spaces.NASBenchMacro().sample(12, generator=rng)
    found = prefix_distances(nets, layer_mismatches)
    # A difference in layer l is in all prefixes of at least l layers.
    weights = [sum(2.0**-k for k in range(layer, 9)) for layer in range(1, 9)]
    for i, a in enumerate(nets):
        for j, b in enumerate(nets):
            differs = [x != y for x, y in zip(a.cells, b.cells, strict=True)]
            expected = sum(w for w, d in zip(weights, differs, strict=True) if d)
            assert float(found[i, j]) == pytest.approx(expected)


def test_each_distinct_prefix_is_compared_once_whatever_the_blocks(monkeypatch):
    nets = [spaces.NASBenchMacro().from_string(text) for text in ("22222222", "22222220") * 2]
    sizes = []

    def counted(some):
        sizes.append(len(some))
        return layer_mismatches(some)

    found = prefix_distances(nets, counted)
    assert sizes == [1] * 7 + [2]
    monkeypatch.setattr(distances, "_BLOCK", 5)
    assert torch.equal(prefix_distances(nets, layer_mismatches), found)


def test_networks_of_different_depths_are_compared_as_far_as_they_go(rng):
    space = spaces.TransNASMacro()
    nets = space.sample(10, generator=rng, distinct=True)
    assert len({net.num_cells for net in nets}) > 1
    lengths = []

    def depths(some):
        lengths.append(max(net.num_cells for net in some))
        return torch.zeros(len(some), len(some))

    assert prefix_distances(nets, depths).shape == (10, 10)
    assert lengths == list(range(1, max(net.num_cells for net in nets) + 1))


def test_only_chains_have_prefixes():
    cell = spaces.Pooling().from_string("[7,1,2]").cells[0]
    branched = Network(
        (cell,) * 3, (4, 4, 4), (1, 1, 1), edges=((0, 1), (0, 2), (1, 3), (2, 3), (3, 4))
    )
    with pytest.raises(ValueError, match=r"nets\[0\] must be a chain of cells"):
        prefix_distances([branched], layer_mismatches)
    with pytest.raises(ValueError, match="at least one network"):
        prefix_distances([], layer_mismatches)
