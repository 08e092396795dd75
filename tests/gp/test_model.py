import copy
import pickle
import warnings

import gpytorch
import pytest
import torch
from botorch.acquisition import (
    LogExpectedImprovement,
    qKnowledgeGradient,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qUpperConfidenceBound,
)
from botorch.acquisition.max_value_entropy_search import qLowerBoundMaxValueEntropy
from botorch.acquisition.multi_objective import qLogExpectedHypervolumeImprovement
from botorch.cross_validation import batch_cross_validation, gen_loo_cv_folds
from botorch.exceptions.warnings import OptimizationWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP
from botorch.models.model import Model
from botorch.models.transforms import Normalize
from botorch.optim import (
    optimize_acqf_discrete,
    optimize_acqf_discrete_local_search,
    optimize_acqf_mixed,
)
from botorch.posteriors import GPyTorchPosterior
from botorch.sampling import SobolQMCNormalSampler
from botorch.utils.multi_objective.box_decompositions import FastNondominatedPartitioning
from botorch.utils.test_helpers import get_pvar_expected
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood, SumMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior, NormalPrior

from hotnas_torch import HOTNN, spaces
from hotnas_torch.gp import HOTNNGP, HOTNNKernel, LogitNormalPrior
from hotnas_torch.gp.model import combined_kernel

# Hundreds of distances between cells of eight nodes are too many for the reference solvers;
# tests/gp/test_small_models.py is for both.
pytestmark = pytest.mark.ext

SPACE = spaces.NASBench201()


def rows(num, seed=0):
    """Rows of networks of which no two compute the same."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    while len(found) < num:
        net = SPACE.sample_one(generator=generator)
        found.setdefault(net.key, net)
    return SPACE.encode(list(found.values()))


STRENGTH = {"skip_connect": 0.3, "nor_conv_1x1": 0.7, "nor_conv_3x3": 1.0, "avg_pool_3x3": -0.5}


def targets(X):
    """A function of what networks compute: convolutions help, poolings and detours harm."""
    cells = [net.cells[0] for net in SPACE.decode(X)]
    values = [
        sum(STRENGTH.get(op, 0.0) for op in cell.ops) - 0.1 * len(cell.edges) for cell in cells
    ]
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.fixture(scope="module")
def data():
    X = rows(30)
    return X, targets(X)


@pytest.fixture(scope="module")
def fitted(data):
    model = HOTNNGP(*data, space=SPACE)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


@pytest.fixture(autouse=True)
def _botorch_draws_globally():
    # Seeds of quasi-random samplers come from torch's global source.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_it_is_a_botorch_model(data):
    X, Y = data
    model = HOTNNGP(X, Y, space=SPACE)
    assert isinstance(model, Model)
    assert model.num_outputs == 1
    assert model.batch_shape == torch.Size()
    assert isinstance(model.covar_module, ScaleKernel)
    (kernel,) = model.architecture_kernels
    assert torch.equal(kernel.landmarks, X)
    assert kernel.dtype == torch.float64
    posterior = model.posterior(rows(7, seed=5).reshape(7, 1, 6))
    assert isinstance(posterior, GPyTorchPosterior)
    assert posterior.mean.shape == (7, 1, 1)
    assert model.posterior(X[:4]).rsample(torch.Size([3])).shape == (3, 4, 1)


def test_the_lengthscale_starts_at_the_distances_of_the_data(data):
    X, Y = data
    model = HOTNNGP(X, Y, space=SPACE)
    kernel = model.architecture_kernels[0]
    distances = HOTNN(space=SPACE, dtype=torch.float64)(SPACE.decode(X))
    row, col = torch.triu_indices(30, 30, offset=1)
    median = distances[row, col].median().item()
    assert kernel.lengthscale.item() == pytest.approx(3 * median, rel=1e-2)


def test_the_default_priors_are_centred_at_the_starts(data):
    model = HOTNNGP(*data, space=SPACE, lam=0.3)
    priors = {name.rsplit(".", 1)[1]: prior for name, _, prior, *_ in model.named_priors()}
    assert isinstance(priors["lam_prior"], LogitNormalPrior)
    assert priors["lam_prior"].loc.sigmoid().item() == pytest.approx(0.3)
    assert isinstance(priors["tree_prior"], LogNormalPrior)
    assert {"eps_prior", "lengthscale_prior", "outputscale_prior", "noise_prior"} <= set(priors)
    assert "eta_prior" not in priors
    broad = LogitNormalPrior(0.5, 3.0)
    model = HOTNNGP(*data, space=SPACE, lam_prior=broad)
    assert {prior.scale.item() for name, _, prior, *_ in model.named_priors() if "lam" in name} == {
        3.0
    }


def test_settings_by_name_reach_the_kernel(data):
    tree = SPACE.tree.with_lengths(2.0 * SPACE.tree.lengths_tensor(dtype=torch.float64))
    model = HOTNNGP(
        *data,
        space=SPACE,
        lam=0.3,
        eps=0.6,
        eta=0.2,
        zeta=0.1,
        unreachable=3.0,
        tree=tree,
        learn=["lam"],
        priors={"lam": NormalPrior(0.3, 0.1)},
        cutoff=0.05,
        num_starts=2,
        tol=1e-2,
        max_iter=50,
        mass="channels",
        backend="torch",
        lengthscale_prior=NormalPrior(1.0, 1.0),
    )
    (kernel,) = model.architecture_kernels
    assert kernel.learned == {"lam"}
    assert kernel.cutoff == 0.05
    starts = {"lam": 0.3, "eps": 0.6, "eta": 0.2, "zeta": 0.1, "unreachable": 3.0}
    for name, value in starts.items():
        assert getattr(kernel, name).item() == pytest.approx(value)
    lengths = tree.lengths_tensor(dtype=torch.float64).clamp_min(1e-3)
    torch.testing.assert_close(kernel.tree_lengths.double(), lengths, rtol=1e-5, atol=0)
    config = model.metric.config()
    chosen = {"num_starts": 2, "tol": 1e-2, "max_iter": 50, "mass": "channels", "backend": "torch"}
    assert chosen.items() <= config.items()
    priors = {name.rsplit(".", 1)[-1]: prior for name, _, prior, _, _ in kernel.named_priors()}
    assert isinstance(priors["lam_prior"], NormalPrior)
    assert isinstance(priors["lengthscale_prior"], NormalPrior)


def test_fitting_improves_the_likelihood_and_learns_the_distance(data):
    model = HOTNNGP(*data, space=SPACE)
    mll = ExactMarginalLogLikelihood(model.likelihood, model)

    def value():
        model.train()
        return mll(model(*model.train_inputs), model.train_targets).item()

    before = value()
    kernel = model.architecture_kernels[0]
    starts = {name: p.detach().clone() for name, p in kernel.named_parameters()}
    assert fit_gpytorch_mll(mll) is mll
    assert not model.training
    assert value() > before + 0.1
    for name in ("raw_lam", "raw_eps", "raw_tree_lengths", "raw_lengthscale"):
        assert not torch.equal(getattr(kernel, name), starts[name])
    for name in ("raw_eta", "raw_zeta"):
        assert torch.equal(getattr(kernel, name), starts[name])
    assert model.metric.ifgw.lam.item() == pytest.approx(kernel.lam.item())
    assert not model.metric.ifgw.coefficients().requires_grad


def test_fitting_reaches_what_direct_optimisation_reaches(data):
    from botorch.optim.fit import fit_gpytorch_mll_scipy

    values = []
    for direct in (False, True):
        model = HOTNNGP(*data, space=SPACE)
        mll = ExactMarginalLogLikelihood(model.likelihood, model)
        if direct:
            mll.train()
            with warnings.catch_warnings():
                # Where couplings change, the likelihood has kinks that end a line search.
                warnings.simplefilter("ignore", OptimizationWarning)
                fit_gpytorch_mll_scipy(mll, options={"maxiter": 60})
        else:
            fit_gpytorch_mll(mll)
        model.train()
        values.append(mll(model(*model.train_inputs), model.train_targets).item())
    assert values[0] > values[1] - 0.03


def test_a_failing_move_leaves_the_best_parameters(data):
    model = HOTNNGP(*data, space=SPACE)
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    kernel = model.architecture_kernels[0]

    def spoil(mll, closure=None, **options):
        kernel.lengthscale = 1e-3

    before = kernel.lengthscale.item()
    fit_gpytorch_mll(mll, optimizer=spoil)
    assert kernel.lengthscale.item() == before


def test_predictions_rank_unseen_networks(fitted):
    unseen = rows(200, seed=9)
    with torch.no_grad():
        posterior = fitted.posterior(unseen)
    found, truth = posterior.mean.squeeze(1), targets(unseen).squeeze(1)
    assert torch.corrcoef(torch.stack([found, truth]))[0, 1] > 0.7
    standard = (truth - found) / posterior.variance.squeeze(1).sqrt()
    assert 0.3 < standard.square().mean() < 3.0


def test_the_predictive_variance_is_gpytorchs_formula(fitted, data):
    X = rows(5, seed=3)
    for points in (X, X.reshape(5, 1, 6)):
        posterior = fitted.posterior(points, observation_noise=True)
        expected = get_pvar_expected(fitted.posterior(points), fitted, points, m=1)
        torch.testing.assert_close(posterior.variance, expected, rtol=1e-4, atol=1e-6)


def test_it_interpolates_noiseless_data(data):
    X, Y = data
    model = HOTNNGP(X, Y, torch.full_like(Y, 1e-4), space=SPACE)
    torch.testing.assert_close(model.posterior(X).mean, Y, atol=1e-2, rtol=0)


def test_conditioning_equals_a_model_with_the_observations(fitted, data):
    X, Y = data
    new, test = rows(3, seed=11), rows(5, seed=12)
    with torch.no_grad():
        fitted.posterior(test)
        conditioned = fitted.condition_on_observations(new, targets(new))
        found = conditioned.posterior(test)
        everything = HOTNNGP(
            torch.cat([X, new]),
            torch.cat([Y, targets(new)]),
            space=SPACE,
            outcome_transform=None,
        )
        # The same function: parameters, landmarks and the scale of the targets.
        transform = fitted.outcome_transform
        everything.set_train_data(targets=transform(torch.cat([Y, targets(new)]))[0].squeeze(1))
        everything.load_state_dict(
            {k: v for k, v in fitted.state_dict().items() if "outcome" not in k},
            keep_transforms=False,
        )
        everything.architecture_kernels[0].landmarks = X
        expected = transform.untransform_posterior(everything.posterior(test))
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.variance, expected.variance, atol=1e-6, rtol=1e-4)


def test_fantasies_have_their_shape(fitted):
    sampler = SobolQMCNormalSampler(torch.Size([4]), seed=0)
    new = rows(6, seed=13).reshape(3, 2, 6)
    fantasy = fitted.fantasize(new, sampler)
    assert fantasy.posterior(rows(5, seed=14)).mean.shape == (4, 3, 5, 1)


def log_ei(model, X, Y):
    del X
    sampler = SobolQMCNormalSampler(torch.Size([64]), seed=0)
    return qLogExpectedImprovement(model, Y.max(), sampler=sampler)


def log_nei(model, X, Y):
    del Y
    sampler = SobolQMCNormalSampler(torch.Size([32]), seed=0)
    return qLogNoisyExpectedImprovement(model, X, sampler=sampler)


def ucb(model, X, Y):
    del X, Y
    sampler = SobolQMCNormalSampler(torch.Size([64]), seed=0)
    return qUpperConfidenceBound(model, beta=2.0, sampler=sampler)


# Equal networks make joint posteriors singular, to which GPyTorch adds its jitter.
@pytest.mark.filterwarnings("ignore:A not p.d.")
@pytest.mark.parametrize("build", [log_ei, log_nei, ucb])
def test_batches_of_four_are_acquired(fitted, data, build):
    X, Y = data
    acquisition = build(fitted, X, Y)
    pool = rows(60, seed=21)
    assert torch.isfinite(acquisition(pool[:4])).all()
    candidates, _ = optimize_acqf_discrete(acquisition, q=4, choices=pool)
    assert candidates.shape == (4, 6)
    assert len(torch.unique(candidates, dim=0)) == 4
    assert len(SPACE.decode(candidates)) == 4
    assert targets(candidates).mean() > targets(pool).mean()


def test_local_search_moves_through_encoded_rows(fitted, data):
    acquisition = ucb(fitted, *data)
    choices = [torch.arange(5, dtype=torch.float64)] * 6
    candidates, _ = optimize_acqf_discrete_local_search(
        acquisition, discrete_choices=choices, q=2, num_restarts=2, raw_samples=16
    )
    assert candidates.shape == (2, 6)
    assert len(SPACE.decode(candidates)) == 2
    with torch.no_grad():
        pool = acquisition(rows(64, seed=22).unsqueeze(1))
        first = acquisition(candidates[:1])
    assert float(first) >= float(pool.median())


def test_objectives_side_by_side(data):
    X, Y = data
    cost = (X == 3).sum(1, keepdim=True).double() + 0.1 * X[:, :1]
    models = [HOTNNGP(X, y, space=SPACE, learn=()) for y in (Y, -cost)]
    model = ModelListGP(*models)
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    assert model.posterior(X[:3]).mean.shape == (3, 2)
    both = torch.cat([Y, -cost], dim=1)
    reference = both.amin(0) - 0.1
    acquisition = qLogExpectedHypervolumeImprovement(
        model,
        ref_point=reference,
        partitioning=FastNondominatedPartitioning(ref_point=reference, Y=both),
        sampler=SobolQMCNormalSampler(torch.Size([16]), seed=0),
    )
    candidates, _ = optimize_acqf_discrete(acquisition, q=4, choices=rows(40, seed=23))
    assert candidates.shape == (4, 6)


def test_several_outputs_have_parameters_of_their_own(data):
    X, Y = data
    both = torch.cat([Y, X.square().sum(1, keepdim=True)], dim=1)
    model = HOTNNGP(X, both, space=SPACE)
    kernel = model.architecture_kernels[0]
    assert kernel.lam.shape == (2, 1)
    before = kernel.lam.detach().clone()
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    with torch.no_grad():
        start = mll.train()(model(*model.train_inputs), model.train_targets)
    fit_gpytorch_mll(mll)
    assert (kernel.lam != before).all()
    assert kernel.lam[0] != kernel.lam[1]
    with torch.no_grad():
        end = mll.train()(model(*model.train_inputs), model.train_targets)
    assert (end > start + 0.01).all()
    model.eval()
    test = rows(4, seed=3)
    posterior = model.posterior(test)
    assert posterior.mean.shape == (4, 2)
    for output in (0, 1):
        alone = model.subset_output([output])
        assert alone.num_outputs == 1
        found = alone.posterior(test)
        torch.testing.assert_close(found.mean, posterior.mean[:, [output]])
        torch.testing.assert_close(found.variance, posterior.variance[:, [output]])


def test_outputs_are_fitted_as_if_each_were_alone(data):
    X, Y = data[0][:15], data[1][:15]
    both = torch.cat([Y, X.square().sum(1, keepdim=True)], dim=1)
    values = []
    for targets_ in (both, both[:, :1], both[:, 1:]):
        model = HOTNNGP(X, targets_, space=SPACE)
        mll = fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        with torch.no_grad():
            found = mll.train()(model(*model.train_inputs), model.train_targets)
        values.append(found.reshape(-1))
    torch.testing.assert_close(values[0], torch.cat(values[1:]), atol=0.03, rtol=0)


def test_scipys_names_of_options_hold_for_several_outputs(data):
    X, Y = data[0][:6], data[1][:6]
    model = HOTNNGP(X, torch.cat([Y, -Y], dim=1), space=SPACE, learn=())
    fit_gpytorch_mll(
        ExactMarginalLogLikelihood(model.likelihood, model),
        optimizer_kwargs={"options": {"maxiter": 5, "ftol": 1e-3}},
    )
    assert not model.training


@pytest.mark.slow
def test_cross_validation_predicts_what_is_left_out(data):
    X, Y = data[0][:12], data[1][:12]
    results = batch_cross_validation(
        model_cls=HOTNNGP,
        mll_cls=ExactMarginalLogLikelihood,
        cv_folds=gen_loo_cv_folds(train_X=X, train_Y=Y),
        model_init_kwargs={"space": SPACE},
    )
    assert results.posterior.mean.shape == (12, 1, 1)
    mean = results.posterior.mean.squeeze()
    assert (mean - Y.squeeze()).square().mean() < Y.var()


def test_an_element_of_a_batch_is_the_model_of_its_own_observations(data):
    X, Y = data
    both = torch.cat([Y, X.square().sum(1, keepdim=True)], dim=1)
    inputs, outputs = X.reshape(2, 15, 6), both.reshape(2, 15, 2)
    batch = HOTNNGP(inputs, outputs, space=SPACE)
    batch.architecture_kernels[0].lengthscale = 0.3
    test = rows(4, seed=3)
    posterior = batch.posterior(test)
    for element in (0, 1):
        alone = HOTNNGP(inputs[element], outputs[element], space=SPACE)
        alone.architecture_kernels[0].lengthscale = 0.3
        expected = alone.posterior(test)
        torch.testing.assert_close(posterior.mean[element], expected.mean)
        torch.testing.assert_close(posterior.variance[element], expected.variance)
    second = batch.subset_output([1]).posterior(test)
    torch.testing.assert_close(second.mean, posterior.mean[..., 1:])


def test_the_unit_of_the_targets_does_not_matter(data):
    X, Y = data
    test = rows(5, seed=7)
    found = []
    for factor in (1.0, 1e-3, 1e9):
        model = HOTNNGP(X, 80.0 * factor + factor * Y, space=SPACE)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        posterior = model.posterior(test)
        found.append((posterior.mean / factor - 80.0, posterior.variance.sqrt() / factor))
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, atol=0.02, rtol=0.05)


def test_acquisition_functions_that_look_ahead_run(fitted, data):
    X, _ = data
    assert torch.isfinite(qKnowledgeGradient(fitted, num_fantasies=2)(X[:3].unsqueeze(0))).all()
    best = qLowerBoundMaxValueEntropy(fitted, candidate_set=X)
    assert torch.isfinite(best(X[:2].unsqueeze(1))).all()


def test_mixed_columns_are_acquired_together(data):
    X, Y = data
    numeric = torch.rand(30, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = HOTNNGP(torch.cat([X, numeric], dim=1), Y + numeric, space=SPACE)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    candidate, _ = optimize_acqf_mixed(
        LogExpectedImprovement(model, best_f=Y.max()),
        bounds=torch.tensor([[0.0] * 7, [4.0] * 6 + [1.0]], dtype=torch.float64),
        q=1,
        num_restarts=2,
        raw_samples=8,
        fixed_features_list=[dict(enumerate(row)) for row in X[:3].tolist()],
    )
    assert len(SPACE.decode(candidate[:, :6])) == 1
    assert candidate[0, 6] > 0.9


def test_predictions_need_no_gradients(fitted):
    test = rows(4, seed=3)
    expected = fitted.posterior(test).variance.detach()
    with torch.inference_mode():
        torch.testing.assert_close(fitted.posterior(test).variance, expected)
    with torch.no_grad(), gpytorch.settings.fast_pred_var():
        twin = copy.deepcopy(fitted)
        torch.testing.assert_close(twin.posterior(test).variance, expected)
    with torch.inference_mode():
        model = HOTNNGP(test, test[:, :1], space=SPACE)
    with pytest.raises(RuntimeError, match=r"built under torch\.inference_mode"):
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))


@pytest.mark.parametrize("combine", ["product", "additive"])
def test_numeric_features_join_in(data, combine):
    X, Y = data
    features = torch.rand(30, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wide = torch.cat([X, 1e6 * features], dim=1)
    model = HOTNNGP(
        wide,
        Y + 3.0 * features[:, :1],
        space=SPACE,
        combine=combine,
        input_transform=Normalize(8, indices=[6, 7]),
    )
    kernels = [type(m) for m in model.covar_module.modules() if isinstance(m, MaternKernel)]
    assert len(kernels) == 1
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    more = wide[:1].repeat(2, 1)
    more[1, 6] += 0.5e6
    mean = model.posterior(more).mean
    assert mean[1] > mean[0] + 0.5


def test_a_kernel_of_ones_own_replaces_the_default(data):
    X, Y = data
    kernel = ScaleKernel(HOTNNKernel(SPACE, landmarks=X, learn=["eps"]))
    model = HOTNNGP(X, Y, space=SPACE, covar_module=kernel)
    assert model.architecture_kernels == [kernel.base_kernel]
    with pytest.raises(ValueError, match="to which eta, learn would apply"):
        HOTNNGP(X, Y, space=SPACE, covar_module=kernel, eta=0.3, learn=())
    plain = HOTNNGP(X, Y, space=SPACE, covar_module=ScaleKernel(MaternKernel()))
    with pytest.raises(ValueError, match="holds no HOTNNKernel"):
        plain.spectrum()
    with pytest.raises(ValueError, match="num_features must be at least 1"):
        combined_kernel(kernel, 0, "product")
    with pytest.raises(ValueError, match="'product' or 'additive'; got 'sum'"):
        combined_kernel(kernel, 1, "sum")


def test_state_and_pickles_restore_it(fitted, data):
    test = rows(4, seed=3)
    expected = fitted.posterior(test)
    other = HOTNNGP(*data, space=SPACE)
    other.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(other.posterior(test).mean, expected.mean)
    restored = pickle.loads(pickle.dumps(fitted))
    torch.testing.assert_close(restored.posterior(test).variance, expected.variance)
    assert restored.spectrum().num_dropped == fitted.spectrum().num_dropped


def test_single_precision_works(data):
    X, Y = data
    with pytest.warns(match="single precision|float64|double"):
        model = HOTNNGP(X.float(), Y.float(), space=SPACE)
    mean = model.posterior(X[:3].float()).mean
    assert mean.dtype == torch.float32
    assert torch.isfinite(mean).all()


def test_equal_architectures_are_one(data):
    X, Y = data
    model = HOTNNGP(X[[0, 0, 1, 2]], Y[[0, 0, 1, 2]] + torch.eye(4)[:, :1], space=SPACE)
    variance = model.posterior(X[[0, 1]]).variance
    assert torch.isfinite(variance).all()
    assert variance[0] < variance[1]


@pytest.mark.filterwarnings("ignore:The model inputs are of type torch.float32")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("trained", [torch.float32, torch.float64])
def test_rows_of_another_type_are_predicted(trained, dtype):
    space = spaces.NASBench201()
    generator = torch.Generator().manual_seed(0)
    X = space.encode(space.sample(6, generator=generator, distinct=True))
    Y = X.square().sum(1, keepdim=True)
    model = HOTNNGP(X.to(trained), Y.to(trained), space=space)
    rows = space.encode(space.sample(4, generator=generator))
    found, expected = (model.posterior(rows.to(kind)) for kind in (dtype, trained))
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.variance, expected.variance)
