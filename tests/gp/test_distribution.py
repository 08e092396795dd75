import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from gpytorch.kernels import MaternKernel
from gpytorch.mlls import ExactMarginalLogLikelihood

from hotnas_torch import spaces
from hotnas_torch.gp import HOTNNGP, FeatureKernel, HOTNNKernel, distribution_kernel
from hotnas_torch.search import HOTNAS
from hotnas_torch.spaces.encodings import encoding_of

SPACE = spaces.NASBenchMacro()


def rows(num, seed=0):
    return SPACE.encode(
        SPACE.sample(num, generator=torch.Generator().manual_seed(seed), distinct=True)
    )


def targets(X):
    return (X == 2).sum(dim=1, keepdim=True) + 0.3 * X[:, :1]


def model(X, how, **options):
    return HOTNNGP(X, targets(X), space=SPACE, distribution=how, learn=[], **options)


def test_the_coarse_kernel_is_matern_between_distributions():
    kernel = distribution_kernel(SPACE)
    points = encoding_of(SPACE).of_rows(rows(6))
    plain = MaternKernel(nu=2.5).double()
    plain.lengthscale = kernel.base_kernel.lengthscale.item()
    with torch.no_grad():
        assert torch.allclose(kernel(rows(6)).to_dense(), plain(points).to_dense())


def test_a_table_need_not_be_enumerated():
    space = spaces.NASBench101()
    nets = space.sample(5, generator=torch.Generator().manual_seed(0))
    whole, part = (
        distribution_kernel(one)(one.encode(nets)).to_dense()
        for one in (space, spaces.Subset(space, nets))
    )
    assert torch.equal(whole, part)


@pytest.mark.parametrize("how", ["product", "additive"])
def test_both_levels_are_in_the_covariance(how):
    X = rows(12)
    gp = model(X, how)
    (fine,) = gp.architecture_kernels
    (coarse,) = [part for part in gp.covar_module.modules() if isinstance(part, FeatureKernel)]
    with torch.no_grad():
        first, second = fine(X).to_dense(), coarse(X).to_dense()
        whole = gp.covar_module(X).to_dense()
        assert torch.allclose(whole, first * second if how == "product" else first + second)
        assert float(torch.linalg.eigvalsh(whole).min()) > -1e-8
    assert isinstance(fine, HOTNNKernel)


@pytest.mark.parametrize("how", ["product", "additive"])
def test_the_coarse_level_is_fitted_and_predicts(how):
    X, Z = rows(30), rows(60, seed=1)
    gp = model(X, how)
    before = {name: value.detach().clone() for name, value in gp.named_parameters()}
    fit_gpytorch_mll(ExactMarginalLogLikelihood(gp.likelihood, gp))
    moved = [
        name
        for name, value in gp.named_parameters()
        if not torch.equal(value.detach(), before[name])
    ]
    assert any("base_kernel.raw_lengthscale" in name for name in moved)
    with torch.no_grad():
        mean = gp.posterior(Z).mean[:, 0]
    assert float(torch.corrcoef(torch.stack([mean, targets(Z)[:, 0]]))[0, 1]) > 0.9


def test_several_outputs_have_levels_of_their_own():
    X = rows(10)
    Y = torch.cat([targets(X), -targets(X)], dim=1)
    gp = HOTNNGP(X, Y, space=SPACE, distribution="product", learn=[])
    (coarse,) = [part for part in gp.covar_module.modules() if isinstance(part, FeatureKernel)]
    assert coarse.base_kernel.lengthscale.shape == (2, 1, 1)
    with torch.no_grad():
        assert gp.posterior(X).mean.shape == (10, 2)


def test_the_preset_of_hotnas_has_it():
    strategy = HOTNAS(
        SPACE,
        generator=torch.Generator().manual_seed(0),
        num_initial=4,
        pool_size=10,
        preset="distribution",
        model_options={"learn": []},
    )
    for num in (4, 1):
        nets = strategy.ask(num)
        strategy.tell(nets, [1.0 + place for place in range(num)])
    assert strategy.settings()["model_options"] == {"distribution": "product", "learn": []}
    kinds = [type(part) for part in strategy.model.covar_module.modules()]
    assert FeatureKernel in kinds
    assert HOTNNKernel in kinds


def test_wrong_arguments_are_refused():
    X = rows(5)
    with pytest.raises(ValueError, match="distribution must be 'product', 'additive' or None"):
        model(X, "sum")
    with pytest.raises(ValueError, match="distribution must be None with numeric columns"):
        HOTNNGP(torch.cat([X, X[:, :1]], dim=1), targets(X), space=SPACE, distribution="product")
    with pytest.raises(ValueError, match="chooses no operations"):
        distribution_kernel(spaces.Pooling())
    with pytest.raises(ValueError, match="to which distribution would apply"):
        HOTNNGP(X, targets(X), space=SPACE, distribution="product", covar_module=MaternKernel())
