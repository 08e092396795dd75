import copy
import pickle

import pytest
import torch
from botorch.acquisition import LogExpectedImprovement, qLogExpectedImprovement
from botorch.models import SingleTaskGP
from gpytorch.kernels import ScaleKernel
from torch.distributions import MultivariateNormal

from hotnas_torch import spaces
from hotnas_torch.distances import HOTNN, TreeWasserstein
from hotnas_torch.gp import (
    AveragedGP,
    DistanceKernel,
    NetworkPairs,
    WeisfeilerLehmanKernel,
    averaged,
    evidence,
)

SPACE = spaces.NASBench201()
PAIRS = NetworkPairs(SPACE)


def rows(num, seed=0, space=SPACE):
    generator = torch.Generator().manual_seed(seed)
    return space.encode(space.sample(num, generator=generator, distinct=True))


def targets(X):
    return ((X == 3).sum(dim=1, keepdim=True) - 0.5 * (X == 0).sum(dim=1, keepdim=True)).double()


def averaged_gp(num=20, seed=0):
    X = rows(num, seed)
    return AveragedGP(X, targets(X), space=SPACE, pairs=PAIRS)


def covariances(num, count=3):
    X = rows(num)
    distances = PAIRS.distances(X, X)
    return torch.stack([torch.exp(-(2.0**k) * distances / PAIRS.typical) for k in range(count)])


def test_kernels_of_one_kind_are_those_of_their_distances():
    X, Z = rows(12), rows(9, seed=1)
    levels = (1, 2, 3)
    for place, level in enumerate(levels):
        found = PAIRS.similarities(X, Z)[place]
        kernel = WeisfeilerLehmanKernel(SPACE, level=level)
        torch.testing.assert_close(found, kernel(X, Z).to_dense())
    torch.testing.assert_close(
        PAIRS.distances(X, Z), HOTNN(space=SPACE)(SPACE.decode(X), SPACE.decode(Z)).double()
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_kernel_alone_predicts_as_botorch_does(monkeypatch, share):
    monkeypatch.setattr(averaged, "_MOST_KERNELS", 1)
    monkeypatch.setattr(averaged, "_SHARES", (share,))
    model, Z = averaged_gp(), rows(15, seed=1)
    X, Y = rows(20), targets(rows(20))
    if share == 1.0:
        level = 1 + int(model._levels)
        kernel = WeisfeilerLehmanKernel(SPACE, level=level)
    else:
        kernel = DistanceKernel(HOTNN(space=SPACE), landmarks=X)
        kernel.scales = model._scales.item()
    scaled = ScaleKernel(kernel.double()).double()
    scaled.outputscale = model._outputs.item()
    expected = SingleTaskGP(X, Y, covar_module=scaled)
    expected.mean_module.initialize(constant=float(model._means))
    expected.likelihood.noise = float(model._outputs * model._noises)
    with torch.no_grad():
        own, other = model.posterior(Z), expected.posterior(Z)
    torch.testing.assert_close(own.mean, other.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(own.variance, other.variance, rtol=1e-2, atol=1e-3)


def test_evidence_is_the_density_of_the_targets_at_the_most_likely_parameters():
    matrices = covariances(25)
    y = targets(rows(25)).squeeze(1)
    y = (y - y.mean()) / y.std()
    found = evidence.Evidence.of(matrices, y)
    center, spread = evidence._NOISE_PRIOR

    def density(mean, output, noise):
        own = MultivariateNormal(
            mean.expand(25), output * (matrices[place] + noise * torch.eye(25).double())
        )
        prior = -evidence._PAIRS * (output.log() + 1.0 / output)
        return own.log_prob(y) + prior - 0.5 * ((noise.log() - center) / spread).square()

    for place in range(3):
        mean, output, noise = found.mean[place], found.output[place], found.noise[place]
        best = density(mean, output, noise)
        constant = 0.5 * 25 * torch.log(torch.tensor(2.0 * torch.pi))
        torch.testing.assert_close(found.value[place], best + constant.double())
        for factor in (0.8, 1.25):
            assert density(mean, factor * output, noise) < best
        for step in (-0.1, 0.1):
            assert density(mean + step, output, noise) < best
        for other in evidence.NOISES[:: len(evidence.NOISES) - 1]:
            assert density(mean, output, other) <= best


def test_kernels_count_as_they_are_likely():
    model = averaged_gp(30)
    assert float(model.weights.sum()) == pytest.approx(1.0)
    assert bool((model.weights.diff() <= 0.0).all())
    X = rows(40, seed=3)
    # What Weisfeiler-Lehman features are linear in: numbers of operations that are no skips.
    share = AveragedGP(X, targets(X), space=SPACE, pairs=PAIRS).share
    noise = torch.randn(40, 1, generator=torch.Generator().manual_seed(0)).double()
    assert float(share) > float(AveragedGP(X, noise, space=SPACE, pairs=PAIRS).share)


def test_many_observations_are_weighed_by_some_of_them_and_all_are_predicted_from(monkeypatch):
    monkeypatch.setattr(averaged, "_MOST_COMPARED", 12)
    X, Y = rows(40), targets(rows(40))
    model = AveragedGP(X, Y, space=SPACE, pairs=PAIRS)
    assert len(model._landmarks) == 12
    assert torch.equal(model._landmarks[[0, -1]], X[[0, -1]])
    with torch.no_grad():
        assert float((model.posterior(X).mean - Y).abs().mean()) < 0.3 * float(Y.std())
        assert bool((model.posterior(X.unsqueeze(1)).variance >= 0.0).all())


def test_the_prior_of_what_is_averaged_over_is_a_probability():
    for num_levels in (3, 4):
        kernels = averaged._Kernels.all(num_levels)
        assert float(kernels.prior.exp().sum()) == pytest.approx(1.0)
        assert len(kernels.prior) == 4 * num_levels * 6 + num_levels + 6


def test_networks_that_were_not_seen_are_ranked():
    model, Z = averaged_gp(30), rows(100, seed=1)
    with torch.no_grad():
        mean = model.posterior(Z).mean
    assert float(torch.corrcoef(torch.cat([mean, targets(Z)], dim=1).mT)[0, 1]) > 0.8


def test_joint_predictions_are_positive_definite_and_agree_with_single_ones():
    model, Z = averaged_gp(), torch.cat([rows(40, seed=1), rows(5)])
    with torch.no_grad():
        joint, single = model.posterior(Z), model.posterior(Z.unsqueeze(1))
    covariance = joint.distribution.covariance_matrix
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-9
    torch.testing.assert_close(joint.mean, single.mean.squeeze(1))
    torch.testing.assert_close(joint.variance, single.variance.squeeze(1), atol=1e-7, rtol=1e-5)
    pairs = Z[:6].reshape(3, 2, -1)
    with torch.no_grad():
        found = model.posterior(pairs).distribution.covariance_matrix
    torch.testing.assert_close(found[1, 0, 1], covariance[2, 3])


def test_a_belief_in_its_own_mean_changes_no_mean_and_leaves_less_to_learn():
    model, Z = averaged_gp(), rows(30, seed=1)
    with torch.no_grad():
        before = model.posterior(Z.unsqueeze(1))
        believed = model.condition_on_observations(Z[:1], before.mean[:1, 0])
        after = believed.posterior(Z.unsqueeze(1))
        # Of each kernel its own mean: that of all is the nearest to what was believed.
        assert float((after.mean - before.mean).abs().max()) < 0.2 * float(
            before.variance.max().sqrt()
        )
        assert bool((after.variance <= before.variance * 1.1).all())
        assert float(after.variance[0]) < 0.5 * float(before.variance[0])
        assert torch.equal(model.posterior(Z.unsqueeze(1)).mean, before.mean)


def test_what_the_others_predict_is_what_a_model_without_one_predicts():
    model = averaged_gp(15)
    residuals, deviations = model.leave_one_out()
    for place in (0, 7):
        kept = torch.arange(15) != place
        other = copy.copy(model)
        other._rows, other._targets, other._predictor = (
            model._rows[kept],
            model._targets[kept],
            None,
        )
        with torch.no_grad():
            found = other.posterior(model._rows[place : place + 1], observation_noise=True)
        mean = (found.mean.squeeze() - model._center) / model._unit
        torch.testing.assert_close(model._targets[place] - mean, residuals[place])
        deviation = found.variance.squeeze().sqrt() / model._unit
        torch.testing.assert_close(deviation, deviations[place])


def test_predictions_depend_on_nothing_that_was_asked_before():
    X, Z = rows(12), rows(8, seed=1)
    used = NetworkPairs(SPACE)
    used.similarities(rows(5, seed=7), Z.flip(0))
    used.distances(Z.flip(0), rows(5, seed=7))
    means = [
        AveragedGP(X, targets(X), space=SPACE, pairs=pairs).posterior(Z).mean
        for pairs in (None, used, PAIRS)
    ]
    assert torch.equal(means[0], means[1])
    assert torch.equal(means[0], means[2])


def test_each_pair_is_asked_for_once(monkeypatch):
    pairs, X = NetworkPairs(SPACE), rows(10)
    expected = AveragedGP(X, targets(X), space=SPACE, pairs=pairs).posterior(X).mean
    for memory in (pairs._hotnn, pairs._levels):
        monkeypatch.setattr(memory, "_between", lambda *_: pytest.fail("known pairs were computed"))
    again = AveragedGP(X, targets(X), space=SPACE, pairs=pairs)
    assert torch.equal(again.posterior(X).mean, expected)


def test_units_and_offsets_of_targets_change_units_and_offsets_alone():
    X, Z = rows(12), rows(8, seed=1)
    plain = AveragedGP(X, targets(X), space=SPACE, pairs=PAIRS).posterior(Z)
    other = AveragedGP(X, 1024.0 * targets(X) + 3.0, space=SPACE, pairs=PAIRS).posterior(Z)
    torch.testing.assert_close(other.mean, 1024.0 * plain.mean + 3.0)
    torch.testing.assert_close(other.variance, 1024.0**2 * plain.variance)


def test_copies_and_pickles_predict_the_same():
    model, Z = averaged_gp(), rows(8, seed=1)
    expected = model.posterior(Z)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.posterior(Z).mean, expected.mean)
        assert torch.equal(other.posterior(Z).variance, expected.variance)


def test_networks_may_stand_for_rows():
    X = rows(8)
    nets = SPACE.decode(X)
    model = AveragedGP(nets, targets(X), space=SPACE, pairs=PAIRS)
    assert torch.equal(model.posterior(nets).mean, model.posterior(X).mean)


@pytest.mark.parametrize("name", ["nasbench101", "nasbench_macro", "transnas_macro", "darts"])
def test_it_works_in_other_spaces(name):
    space = spaces.get(name)
    X = rows(12, space=space)
    Y = X.double().mean(dim=1, keepdim=True)
    assert bool(AveragedGP(X, Y, space=space).posterior(X).mean.isfinite().all())


def test_acquisition_functions_of_botorch_take_it():
    model, Z = averaged_gp(), rows(6, seed=1)
    with torch.no_grad():
        single = LogExpectedImprovement(model, best_f=0.5)(Z.unsqueeze(1))
        with torch.random.fork_rng():
            joint = qLogExpectedImprovement(model, best_f=0.5)(Z.reshape(3, 2, -1))
    assert single.shape == (6,)
    assert joint.shape == (3,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train_Y": torch.zeros(8, 1)}, ValueError, "train_Y must vary"),
        ({"train_Y": torch.arange(8.0)}, ValueError, "train_Y must have shape"),
        ({"train_Y": torch.eye(8)[:, :2]}, ValueError, "must have shapes"),
        ({"train_X": rows(8)[:, :3]}, ValueError, "train_X must have shape"),
        ({"train_Y": torch.full((8, 1), torch.nan)}, ValueError, "train_Y"),
        ({"space": 3}, TypeError, "space must be"),
        ({"space": spaces.NASBenchMacro()}, ValueError, "pairs must be of NASBenchMacro"),
        ({"pairs": TreeWasserstein(SPACE)}, TypeError, "pairs must be NetworkPairs or None"),
        ({"levels": [1]}, TypeError, "levels"),
    ],
)
def test_arguments_are_checked(change, error, message):
    X = rows(8)
    arguments = {"train_X": X, "train_Y": targets(X), "space": SPACE, "pairs": PAIRS} | change
    with pytest.raises(error, match=message):
        AveragedGP(**arguments)


def test_pairs_of_hyperparameters_do_not_exist():
    with pytest.raises(ValueError, match="NetworkPairs"):
        NetworkPairs(spaces.Joint(SPACE, {"lr": [0.1, 0.2]}))
