from functools import partial

import pytest
import torch
from botorch.acquisition import LogExpectedImprovement, qLogExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models.model import Model
from botorch.optim import optimize_acqf
from botorch.sampling import SobolQMCNormalSampler
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch.autograd import gradcheck

from hotnas_torch import HOTNN, spaces
from hotnas_torch.gp import HOTNNGP, RelaxedHOTNNGP, optimize_relaxed, relaxed_distances
from hotnas_torch.gp.relaxation import relaxation_of

NB201 = spaces.NASBench201()
DARTS = spaces.DARTS(num_nodes=3, min_depth=4, max_depth=6)
pytestmark = pytest.mark.ext  # the reference implementation takes minutes
SPACES = pytest.mark.parametrize("space", [NB201, DARTS], ids=["nasbench201", "darts"])


@pytest.fixture(autouse=True)
def _botorch_draws_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def good_operations(net):
    """A target that depends on what is inside the cells."""
    strength = {"nor_conv_3x3": 1.0, "sep_conv_3x3": 1.0, "sep_conv_5x5": 0.8, "skip_connect": 0.3}
    cells = list(dict.fromkeys(net.cells))
    return sum(strength.get(op, 0.0) for cell in cells for op in cell.ops) + 0.1 * net.num_cells


def fitted(space, num, *, seed=0, **options):
    nets = space.sample(num, generator=torch.Generator().manual_seed(seed), distinct=True)
    Y = torch.tensor([[good_operations(net)] for net in nets], dtype=torch.float64)
    model = HOTNNGP(space.encode(nets), Y, space=space, **options)
    fit_gpytorch_mll(
        ExactMarginalLogLikelihood(model.likelihood, model),
        optimizer_kwargs={"options": {"maxiter": 15}},
        max_rounds=1,
    )
    return model, nets, Y


@SPACES
@pytest.mark.parametrize("normalize", [True, False])
def test_networks_are_as_far_apart_as_ever(space, normalize, rng):
    nets = space.sample(6, generator=rng)
    rows = relaxation_of(space).encode(nets)
    # With lam = 1 the couplings are optimal ones, and not only locally.
    metric = HOTNN(space=space, lam=1.0, zeta=0.3, normalize=normalize, dtype=torch.float64)
    torch.testing.assert_close(
        relaxed_distances(metric, rows[:4], nets), metric(nets[:4], nets), atol=1e-9, rtol=0
    )
    metric = HOTNN(space=space, zeta=0.3, normalize=normalize, dtype=torch.float64)
    apart = relaxed_distances(metric, rows, nets) - metric(nets)
    assert float(apart.abs().max()) < 0.05 * float(metric(nets).max())


def test_a_metric_that_matches_parts_is_refused(rng):
    nets = NB201.sample(3, generator=rng)
    rows = relaxation_of(NB201).encode(nets)
    with pytest.raises(ValueError, match=r"partial=None.*got partial=0.5"):
        relaxed_distances(HOTNN(space=NB201, partial=0.5), rows, nets)
    with pytest.raises(TypeError, match="HOTNNGP has no setting 'partial'"):
        HOTNNGP(NB201.encode(nets), torch.rand(3, 1, generator=rng), space=NB201, partial=0.5)


@SPACES
def test_distances_are_differentiable_in_the_architecture(space, rng):
    nets = space.sample(2, generator=rng)
    relaxation = relaxation_of(space)
    metric = HOTNN(space=space, lam=1.0, zeta=0.3, dtype=torch.float64)
    noise = torch.rand(1, relaxation.dim, generator=rng, dtype=torch.float64)
    row = (relaxation.encode(nets[:1]) + noise).requires_grad_()
    assert gradcheck(lambda X: relaxed_distances(metric, X, nets), (row,), fast_mode=True)


def test_the_pairwise_term_is_differentiable(rng):
    nets = NB201.sample(3, generator=rng)
    metric = HOTNN(space=NB201, lam=0.4, tol=1e-10, max_iter=500, num_starts=1, dtype=torch.float64)
    noise = torch.rand(2, 30, generator=rng, dtype=torch.float64)
    rows = (relaxation_of(NB201).encode(nets[:2]) + noise).requires_grad_()
    assert gradcheck(lambda X: relaxed_distances(metric, X, nets), (rows,), atol=1e-4)


def test_a_mixture_lies_between():
    """Where one operation is uncertain, the distance moves from one end to the other."""
    texts = [
        f"|{op}~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|"
        for op in ("avg_pool_3x3", "nor_conv_1x1")
    ]
    ends = [NB201.from_string(text) for text in texts]
    first, second = relaxation_of(NB201).encode(ends)
    metric = HOTNN(space=NB201, dtype=torch.float64)
    steps = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    distances = relaxed_distances(metric, (1 - steps) * first + steps * second, ends[:1])[:, 0]
    assert distances[0] == 0.0
    assert (distances.diff() > 0).all()
    assert float(distances[-1]) == pytest.approx(float(metric(ends)[0, 1]), abs=1e-9)


def test_only_metrics_without_an_order_of_nodes_are_relaxed(rng):
    nets = NB201.sample(2, generator=rng)
    rows = relaxation_of(NB201).encode(nets)
    with pytest.raises(ValueError, match="pairs='directed' and linear_term='separable'"):
        relaxed_distances(HOTNN(space=NB201, preset="paper"), rows, nets)
    with pytest.raises(ValueError, match="the metric must know its space"):
        relaxed_distances(HOTNN(tree=NB201.tree), rows, nets)
    with pytest.raises(TypeError, match="has no relaxation"):
        relaxed_distances(HOTNN(space=spaces.Pooling()), rows, nets)


@pytest.fixture(scope="module")
def exact():
    """A model whose couplings are global optima, so that it can be compared to its relaxation."""
    return fitted(NB201, 20, lam=1.0, learn=("eps", "tree"))


def test_at_networks_the_relaxed_model_is_the_model(exact):
    model, nets, _ = exact
    relaxed = RelaxedHOTNNGP(model)
    assert isinstance(relaxed, Model)
    known = {net.key for net in nets}
    drawn = NB201.sample(8, generator=torch.Generator().manual_seed(3))
    unseen = [net for net in drawn if net.key not in known]
    assert len(unseen) > 3
    with torch.no_grad():
        expected = model.posterior(NB201.encode(unseen)).distribution
        found = relaxed.posterior(relaxed.relaxation.encode(unseen)).distribution
        torch.testing.assert_close(found.mean, expected.mean)
        torch.testing.assert_close(found.covariance_matrix, expected.covariance_matrix)
        # What the features lose of an observed network does not count as seen.
        observed = relaxed.posterior(relaxed.relaxation.encode(nets[:3]))
        assert (observed.variance >= model.posterior(NB201.encode(nets[:3])).variance - 1e-9).all()
        assert (observed.variance < found.variance.min()).all()


def test_its_posterior_has_gradients_and_batches(exact, rng):
    model, _, _ = exact
    relaxed = RelaxedHOTNNGP(model)
    X = torch.rand(3, 2, 30, generator=rng, dtype=torch.float64).requires_grad_()
    posterior = relaxed.posterior(X)
    assert posterior.mean.shape == (3, 2, 1)
    (posterior.mean.sum() + posterior.variance.sum()).backward()
    assert (X.grad != 0).any(dim=-1).all()
    torch.testing.assert_close(
        relaxed.posterior(X[1]).mean.detach(), posterior.mean[1].detach(), atol=1e-8, rtol=1e-8
    )
    with pytest.raises(NotImplementedError, match="without observation noise"):
        relaxed.posterior(X, observation_noise=True)


def test_optimize_acqf_moves_through_it(exact):
    model, _, Y = exact
    relaxed = RelaxedHOTNNGP(model)
    acquisition = LogExpectedImprovement(relaxed, best_f=Y.max())
    starts = relaxed.relaxation.encode(NB201.decode(model.train_inputs[0][:2]))
    starts = (0.7 * starts + 0.3 / 5).unsqueeze(1)
    with torch.no_grad():
        before = acquisition(starts)
    found, value = optimize_acqf(
        acquisition,
        bounds=relaxed.relaxation.bounds,
        q=1,
        num_restarts=2,
        batch_initial_conditions=starts,
        options={"maxiter": 10},
    )
    assert value > before.max() + 0.1
    assert NB201.contains(relaxed.relaxation.round(found)[0])


@pytest.mark.slow
@SPACES
def test_gradients_beat_a_random_pool_of_as_many_evaluations(space):
    gains = []
    for seed in range(3):
        model, nets, Y = fitted(space, 15, seed=seed)

        acquisition = partial(LogExpectedImprovement, best_f=Y.max())
        found = optimize_relaxed(
            model, acquisition, generator=torch.Generator().manual_seed(seed), avoid=nets
        )
        assert not {space.key(net) for net in found.networks} & {space.key(net) for net in nets}
        pool = space.sample(
            found.num_evaluations, generator=torch.Generator().manual_seed(100 + seed)
        )
        with torch.no_grad():
            values = acquisition(model)(space.encode(pool).unsqueeze(1))
            own = acquisition(model)(space.encode(found.networks).unsqueeze(1))
        assert float(own) == pytest.approx(found.value, abs=1e-6)
        gains.append(found.value - float(values.max()))
    assert sorted(gains)[1] > 0.0
    assert sum(gains) > 0.0


def test_every_row_that_an_acquisition_function_saw_is_counted(exact):
    model, nets, Y = exact
    seen = []

    class Counted(LogExpectedImprovement):
        def forward(self, X):
            seen.append(X.shape[:-2].numel())
            return super().forward(X)

    found = optimize_relaxed(
        model,
        partial(Counted, best_f=Y.max()),
        generator=torch.Generator().manual_seed(0),
        max_steps=2,
        avoid=nets,
    )
    assert found.num_evaluations == sum(seen)


def test_batches_hold_different_networks(exact):
    model, nets, Y = exact

    def acquisition(model):
        sampler = SobolQMCNormalSampler(torch.Size([32]), seed=0)
        return qLogExpectedImprovement(model, best_f=Y.max(), sampler=sampler)

    found = [
        optimize_relaxed(
            model,
            acquisition,
            generator=torch.Generator().manual_seed(9),
            q=3,
            raw_samples=8,
            max_iter=2,
            max_steps=2,
            avoid=nets,
        )
        for _ in range(2)
    ]
    first = [NB201.to_string(net) for net in found[0].networks]
    assert len({*first, *map(NB201.to_string, nets)}) == 3 + len(nets)
    assert [NB201.to_string(net) for net in found[1].networks] == first
    rows = NB201.encode(found[0].networks)
    with torch.no_grad():
        # The base samples belong to positions in the batch, which were others.
        assert float(acquisition(model)(rows)) == pytest.approx(found[0].value, abs=0.1)


def test_a_space_that_is_exhausted_says_so(exact):
    model, _, Y = exact
    with pytest.raises(ValueError, match="every network that was met is to be avoided"):
        optimize_relaxed(
            model,
            lambda model: LogExpectedImprovement(model, best_f=Y.max()),
            generator=torch.Generator().manual_seed(0),
            raw_samples=4,
            avoid=NB201.sample(4, generator=torch.Generator().manual_seed(0)),
        )


def test_other_models_are_refused(rng):
    nets = NB201.sample(4, generator=rng, distinct=True)
    X, Y = NB201.encode(nets), torch.arange(4.0, dtype=torch.float64)[:, None]
    for model in (
        HOTNNGP(X, torch.cat([Y, Y], dim=1), space=NB201),
        HOTNNGP(X, Y, space=NB201, covar_module=ScaleKernel(MaternKernel())),
        HOTNNGP(torch.cat([X, Y], dim=1), Y, space=NB201),
    ):
        with pytest.raises(ValueError, match="a relaxed model needs a HOTNNGP with one output"):
            RelaxedHOTNNGP(model)
