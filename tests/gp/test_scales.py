import math

import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel
from gpytorch.priors import LogNormalPrior

from hotnas_torch.gp.scales import LogInterval, matern_kernel, middle, scaled, start_lengthscale


def test_log_interval_goes_there_and_back():
    interval = LogInterval(torch.tensor([1e-3, 1.0]), torch.tensor([1e3, 1e9]))
    inside = torch.tensor([[0.5, 1e6], [1e-2, 2.0e5]], dtype=torch.float64)
    assert torch.allclose(interval.transform(interval.inverse_transform(inside)), inside)
    raw = torch.tensor([-50.0, 50.0], dtype=torch.float64)
    assert interval.transform(raw).tolist() == pytest.approx([1e-3, 1e9])
    assert interval.transform(torch.zeros(2)).tolist() == pytest.approx([1.0, 10**4.5])
    outside = torch.tensor([1e-9, 1e20], dtype=torch.float64)
    assert torch.isfinite(interval.inverse_transform(outside)).all()


def test_an_output_scale_starts_at_one_and_keeps_in_its_bounds():
    for bounded in (False, True):
        kernel = scaled(RBFKernel().double(), bounded=bounded)
        assert kernel.raw_outputscale.dtype == torch.float64
        assert kernel.outputscale.item() == pytest.approx(1.0, rel=1e-6)
        ((_, _, prior, _, _),) = kernel.named_priors()
        assert isinstance(prior, LogNormalPrior)
        with torch.no_grad():
            kernel.raw_outputscale.fill_(1e6)
        assert (kernel.outputscale.item() <= 100.0 + 1e-9) == bounded


@pytest.mark.parametrize(("typical", "start"), [(0.2, 0.6), (0.0, 3.0)])
def test_a_lengthscale_starts_at_three_typical_distances(typical, start):
    kernel = RBFKernel().double()
    like = torch.zeros((), dtype=torch.float64)
    start_lengthscale(kernel, typical, like, range_=1e3)
    assert kernel.lengthscale.item() == pytest.approx(start)
    ((_, _, prior, closure, _),) = kernel.named_priors()
    assert prior.loc.item() == pytest.approx(math.log(start))
    assert closure(kernel) is not None
    with torch.no_grad():
        kernel.raw_lengthscale.fill_(-1e6)
    assert kernel.lengthscale.item() == pytest.approx(start / 1e3)
    bare = RBFKernel().double()
    start_lengthscale(bare, typical, like, prior=False)
    assert list(bare.named_priors()) == []
    assert bare.lengthscale.item() == pytest.approx(start)


def test_a_matern_kernel_is_that_of_gpytorch(rng):
    X = torch.rand(5, 3, generator=rng, dtype=torch.float64)
    ours = matern_kernel(0.7, num_columns=2, active_dims=(0, 2), dtype=torch.float64)
    theirs = MaternKernel(nu=2.5, ard_num_dims=2).double()
    theirs.lengthscale = 0.7
    torch.testing.assert_close(ours(X).to_dense(), theirs(X[:, [0, 2]]).to_dense())


def test_the_middle_of_a_range_is_on_a_log_scale():
    assert middle((0.1, 10.0)) == pytest.approx(1.0)
