import copy
import pickle

import pytest
import torch
from botorch.acquisition import LogExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood

from hotnas_torch.distances import sample_distances
from hotnas_torch.nago import (
    HNAG,
    RNAG,
    FlatThetaSpace,
    GeneratorGP,
    GeneratorKernel,
    GeneratorSamples,
    ThetaSpace,
    generator_metric,
)
from hotnas_torch.nago import kernel as module

SPACE = ThetaSpace(nodes=(5, 6), mid_nodes=(1, 2))
pytestmark = pytest.mark.ext


@pytest.fixture
def samples():
    return GeneratorSamples(HNAG(), SPACE, size=2)


@pytest.fixture
def X(rng):
    return SPACE.sample(6, generator=rng)


def targets(X):
    return (X[:, :1] + 0.3 * X[:, 5:6]).square()


# --- samples --------------------------------------------------------------------------------------


def test_rows_that_round_to_the_same_hyperparameters_share_a_number(samples, X):
    nudged = X.clone()
    nudged[:, 0] += 0.01  # top N, an integer
    assert torch.equal(samples(nudged), samples(X))
    nudged[:, 5] = 1.0 - nudged[:, 5]  # bottom N
    assert (samples(nudged) != samples(X)).all()
    assert samples(X.reshape(2, 3, -1)).shape == (2, 3)


def test_samples_are_those_of_their_seeds(samples, X):
    number = int(samples(X[:1]))
    theta = SPACE.decode(X[:1])[0]
    expected = [
        HNAG().sample(theta, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    ]
    assert samples.samples[number] == expected
    other = GeneratorSamples(HNAG(), SPACE, size=2, seed=1)
    assert other.samples == []
    assert other(X[:1]).tolist() == [0]
    assert other.samples[0] != expected


def test_distances_are_transport_between_samples(samples, X):
    numbers = samples(X)
    named = [samples.samples[number] for number in numbers.tolist()]
    expected = sample_distances(generator_metric(HNAG()), named).double()
    assert torch.equal(samples.distances(numbers, numbers), expected)
    assert torch.equal(samples.distances(numbers[:2], numbers[1:]), expected[:2, 1:])


def test_a_pair_is_compared_once(samples, X, monkeypatch):
    pairs = []

    def counted(metric, left, right=None, **options):
        pairs.append(len(left) * (len(left) if right is None else len(right)))
        return sample_distances(metric, left, right, **options)

    monkeypatch.setattr(module, "sample_distances", counted)
    numbers = samples(X[:4])
    samples.distances(numbers, numbers)
    assert pairs == [16]
    samples.distances(numbers[:2], numbers[2:])
    assert copy.deepcopy(samples) is samples
    assert pairs == [16]
    samples.distances(samples(X), numbers)
    assert pairs == [16, 8]


def test_pickles_forget_samples_and_distances(samples, X):
    numbers = samples(X)
    expected = samples.distances(numbers, numbers)
    restored = pickle.loads(pickle.dumps(samples))
    assert restored.samples == []
    again = restored(X.flip(0))
    assert torch.equal(restored.distances(again, again), expected.flip(0, 1))


def test_rows_outside_the_cube_are_named(samples, X):
    X[2, 4] = 1.5
    with pytest.raises(ValueError, match=r"row 2 has 1\.5 for mid P"):
        samples(X)
    with pytest.raises(ValueError, match="X must have 8 columns, top N"):
        samples(X[:, :7])
    with pytest.raises(TypeError, match="space must be a ThetaSpace or FlatThetaSpace"):
        GeneratorSamples(HNAG(), "cube")
    with pytest.raises(ValueError, match="size must be at least 1"):
        GeneratorSamples(HNAG(), SPACE, size=0)


# --- kernel ---------------------------------------------------------------------------------------


def test_the_kernel_is_exponential_in_the_distance(samples, X):
    kernel = GeneratorKernel(samples).double()
    kernel.lengthscale = 0.2
    numbers = samples(X)
    expected = torch.exp(-samples.distances(numbers, numbers) / 0.2)
    torch.testing.assert_close(kernel(X).to_dense(), expected)


def test_with_landmarks_it_is_positive_semidefinite_with_unit_diagonal(samples, X, rng):
    kernel = GeneratorKernel(samples, landmarks=X).double()
    kernel.lengthscale = 0.5
    rows = torch.cat([X, SPACE.sample(4, generator=rng)])
    matrix = kernel(rows).to_dense().detach()
    assert torch.equal(matrix.diagonal(), torch.ones(10, dtype=torch.float64))
    assert float(torch.linalg.eigvalsh(matrix)[0]) > -1e-10


def test_the_lengthscale_has_a_gradient(samples, X):
    kernel = GeneratorKernel(samples, landmarks=X[:4]).double()
    kernel(X).to_dense().sum().backward()
    step = 1e-5
    around = []
    with torch.no_grad():
        for shift in (step, -2 * step):
            kernel.raw_lengthscale += shift
            around.append(float(kernel(X).to_dense().sum()))
    slope = (around[0] - around[1]) / (2 * step)
    assert float(kernel.raw_lengthscale.grad) == pytest.approx(slope, rel=1e-5)


def test_a_kernel_needs_samples():
    with pytest.raises(TypeError, match="samples must be GeneratorSamples"):
        GeneratorKernel(SPACE)


# --- model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["networks", "theta", "product", "additive"])
def test_a_model_can_be_fitted_and_searched_with(by, samples, X, rng):
    Y = targets(X)
    model = GeneratorGP(X, Y, samples=samples, by=by)
    mll = ExactMarginalLogLikelihood(model.likelihood, model)

    def likelihood():
        model.train()
        with torch.no_grad():
            return float(mll(model(*model.train_inputs), model.train_targets))

    before = likelihood()
    fit_gpytorch_mll(mll)
    assert likelihood() > before
    model.eval()
    rows = SPACE.sample(3, generator=rng)
    values = LogExpectedImprovement(model, best_f=Y.max())(rows.unsqueeze(1))
    assert values.shape == (3,)
    assert bool(values.isfinite().all())


def test_the_networks_alone_do_not_tell_equal_samples_apart(X):
    class Same(HNAG):
        def sample(self, theta, *, generator):
            del theta
            return super().sample(SPACE.decode(X[:1])[0], generator=generator)

    samples = GeneratorSamples(Same(), SPACE, size=2)
    model = GeneratorGP(X, targets(X), samples=samples, by="networks").eval()
    mean = model.posterior(X).mean
    torch.testing.assert_close(mean, mean[:1].expand_as(mean))


def test_outputs_are_modelled_independently(samples, X):
    Y = torch.cat([targets(X), X[:, 1:2]], dim=1)
    both = GeneratorGP(X, Y, samples=samples).eval()
    one = GeneratorGP(X, Y[:, 1:], samples=samples).eval()
    torch.testing.assert_close(both.posterior(X[:2]).mean[:, 1:], one.posterior(X[:2]).mean)
    torch.testing.assert_close(
        both.subset_output([1]).posterior(X[:2]).mean, one.posterior(X[:2]).mean
    )


def test_flat_generators_work_alike(rng):
    space = FlatThetaSpace(nodes=(3, 5))
    X = space.sample(3, generator=rng)
    model = GeneratorGP(X, X[:, :1], samples=GeneratorSamples(RNAG(), space, size=1)).eval()
    assert model.posterior(X[:2]).mean.shape == (2, 1)


def test_what_cannot_be_modelled_is_refused(samples, X):
    with pytest.raises(ValueError, match="by must be 'networks'"):
        GeneratorGP(X, targets(X), samples=samples, by="sum")
    with pytest.raises(ValueError, match="samples is required with by='additive'"):
        GeneratorGP(X, targets(X))
    with pytest.raises(ValueError, match="at least two observations"):
        GeneratorGP(X[:1], targets(X)[:1], samples=samples)
