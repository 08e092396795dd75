import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck

from hotnas_torch.gp.psd import (
    Spectrum,
    divided_differences,
    inverse_root,
    landmark_features,
    spectral_function,
    spectrum,
    whitener,
)


def symmetric(eigenvalues, seed=0):
    """A matrix with the given spectrum."""
    size = len(eigenvalues)
    gaussian = np.random.default_rng(seed).normal(size=(size, size))
    vectors = np.linalg.qr(gaussian)[0]
    return torch.from_numpy(vectors * np.asarray(eigenvalues) @ vectors.T)


def similarity(size, seed=0, power=1.0):
    """exp(-|x - y|^power) on the sphere's points: indefinite for power > 2."""
    points = np.random.default_rng(seed).normal(size=(size, 3))
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) ** power
    return torch.from_numpy(np.exp(-apart))


def symmetrised(function):
    # gradcheck moves single entries; the theorem is about symmetric matrices.
    return lambda matrix: function((matrix + matrix.T) / 2)


def test_a_spectral_function_is_scipys_matrix_function():
    matrix = symmetric([0.3, 1.0, 2.5, 4.0])
    root = spectral_function(matrix, lambda t: (t.sqrt(), 0.5 / t.sqrt()))
    np.testing.assert_allclose(root, scipy.linalg.sqrtm(matrix.numpy()), atol=1e-12)


SPECTRA = {
    "distinct": [-0.4, -0.05, 0.02, 0.3, 1.0, 2.2],
    "repeated": [-0.2, -0.2, 0.5, 0.5, 0.5, 2.0],
    "all equal": [0.7] * 5,
    "near zero": [-1e-9, 0.0, 1e-12, 1e-7, 0.5, 0.5 + 1e-9],
    "nearly repeated": [0.3, 0.3 + 1e-7, 0.3 + 1e-5, 1.0, 1.0 + 1e-10],
    "one": [0.4],
}


@pytest.mark.parametrize("eigenvalues", SPECTRA.values(), ids=SPECTRA)
def test_the_gradient_holds_for_any_spectrum(eigenvalues):
    matrix = symmetric(eigenvalues).requires_grad_()
    assert gradcheck(symmetrised(lambda a: whitener(a, 0.1)), (matrix,))
    cube = symmetrised(lambda a: spectral_function(a, lambda t: (t**3, 3 * t**2)))
    assert gradcheck(cube, (matrix,))


def test_the_gradient_is_that_of_the_power_series():
    # exp(A) by autograd through torch.matrix_exp, which knows no eigenvectors.
    matrix = symmetric([0.5, 0.5, 0.5, -1.0]).requires_grad_()
    weights = torch.arange(16, dtype=torch.float64).reshape(4, 4)
    ours = spectral_function(matrix, lambda t: (t.exp(), t.exp()))
    (gradient,) = torch.autograd.grad((weights * ours).sum(), matrix)
    (expected,) = torch.autograd.grad((weights * torch.matrix_exp(matrix)).sum(), matrix)
    torch.testing.assert_close(gradient, (expected + expected.T) / 2)


def test_batches_are_differentiable():
    batch = torch.stack([symmetric(SPECTRA["repeated"], s) for s in (0, 1)]).requires_grad_()
    result = whitener(batch, 0.1)
    for one, alone in zip(result, batch, strict=True):
        torch.testing.assert_close(one, whitener(alone, 0.1))
    assert gradcheck(lambda a: whitener((a + a.mT) / 2, 0.1), (batch,))


def test_a_second_derivative_raises():
    matrix = symmetric([1.0, 2.0]).requires_grad_()
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(whitener(matrix).sum(), matrix, create_graph=True)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5, 1e-7, 1e-9, 0.0])
def test_divided_differences_are_accurate_at_every_gap(gap):
    nodes = torch.tensor([0.6, 0.6 + gap], dtype=torch.float64)
    table = divided_differences(nodes, nodes.exp(), nodes.exp(), 0.0)
    expected = np.exp(0.6) * (np.expm1(gap) / gap if gap else 1.0)
    assert float(table[0, 1]) == pytest.approx(expected, rel=1e-9)
    assert torch.equal(table, table.T)


def test_the_filter_is_an_inverse_root_that_starts_smoothly():
    values, slopes = inverse_root(torch.tensor([-1.0, 0.0, 1.0, 4.0]).double(), 1e-2)
    np.testing.assert_allclose(values, [0.0, 0.0, 1.0, 0.5], atol=2e-4)
    assert slopes[:2].tolist() == [0.0, 0.0]
    places = torch.linspace(-0.0101, 0.2, 200, dtype=torch.float64).requires_grad_()
    values, slopes = inverse_root(places, 0.02)
    (expected,) = torch.autograd.grad(values.sum(), places)
    torch.testing.assert_close(slopes, expected)


def test_a_likelihood_does_not_jump_as_an_eigenvalue_crosses_zero():
    values = []
    for smallest in np.linspace(-0.02, 0.02, 81):
        matrix = symmetric([smallest, 0.5, 1.0, 2.5])
        features = matrix @ whitener(matrix, 1e-2)
        values.append(float(torch.logdet(features @ features.T + 0.05 * torch.eye(4))))
    steps = np.abs(np.diff(values))
    assert steps.max() < 0.02
    assert max(values) - min(values) > 0.05


def test_features_reproduce_a_definite_similarity():
    among = similarity(12)
    assert float(torch.linalg.eigvalsh(among)[0]) > 0.05
    features = landmark_features(among, whitener(among, 1e-4))
    torch.testing.assert_close(features @ features.T, among, atol=1e-5, rtol=0)


def test_clipping_and_rescaling_is_what_an_indefinite_similarity_gets():
    among = similarity(15, power=4.0)
    eigenvalues, vectors = np.linalg.eigh(among.numpy())
    assert eigenvalues[0] < -0.05
    clipped = vectors * np.where(eigenvalues > 1e-6, eigenvalues, 0.0) @ vectors.T
    length = np.sqrt(np.maximum(np.diag(clipped), 1.0))
    features = landmark_features(among, whitener(among, 1e-9))
    np.testing.assert_allclose(features @ features.T, clipped / length / length[:, None], atol=1e-6)


@pytest.mark.parametrize("power", [1.0, 3.0, 6.0])
def test_new_points_stay_definite_and_in_the_unit_ball(power):
    everything = similarity(60, seed=4, power=power)
    among, towards = everything[:20, :20], everything[:, :20]
    features = landmark_features(towards, whitener(among))
    assert float(torch.linalg.vector_norm(features, dim=1).max()) <= 1.0 + 1e-12
    covariance = features @ features.T
    covariance.fill_diagonal_(1.0)
    assert float(torch.linalg.eigvalsh(covariance)[0]) > -1e-12


def test_the_spectrum_says_what_is_dropped():
    report = spectrum(symmetric([-0.5, -0.004, 0.003, 1.0, 2.501]), cutoff=1e-2)
    assert isinstance(report, Spectrum)
    assert report.num_negative == 1
    assert report.num_dropped == 3
    assert report.smallest == pytest.approx(-0.5)
    assert report.negative_share == pytest.approx(0.504 / 4.008)
    assert 0.003 / 3.504 < report.dropped_share < 0.003 / 3.504 + 1e-3
    assert "3 of 5 eigenvalues dropped" in str(report)
    with pytest.raises(ValueError, match=r"one square matrix; got shape \(2, 3\)"):
        spectrum(torch.zeros(2, 3))


def test_single_precision_is_close():
    among = similarity(15, power=4.0)
    single = whitener(among.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), whitener(among), atol=2e-3, rtol=1e-3)
