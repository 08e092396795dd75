import copy
import math
import pickle
import unittest

import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.kernels import RBFKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import NormalPrior
from gpytorch.test.base_kernel_test_case import BaseKernelTestCase

from hotnas_torch import HOTNN, OperationTree, spaces
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.gp.kernel import HOTNNKernel
from hotnas_torch.gp.priors import LogitNormalPrior
from hotnas_torch.gp.psd import landmark_features, whitener

SPACE = spaces.NASBenchMacro()
NB201 = spaces.NASBench201()
EXACT = {"tol": 1e-12, "max_iter": 500}


def random_rows(*shape):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 3, (*shape, SPACE.dim), generator=generator).float()


class TestGPyTorchContract(BaseKernelTestCase, unittest.TestCase):
    """GPyTorch's own test case; the two tests that choose columns of noise get rows instead."""

    def create_kernel_no_ard(self, **kwargs):
        return HOTNNKernel(SPACE, **kwargs)

    def create_data_no_batch(self):
        return random_rows(20)

    def create_data_single_batch(self):
        return random_rows(2, 3)

    def create_data_double_batch(self):
        return random_rows(3, 2, 4)

    def test_active_dims_list(self):
        self.check_active_dims([8, 1, 2, 5, 4, 6, 0, 9])

    def test_active_dims_range(self):
        self.check_active_dims(list(range(1, 9)))

    def check_active_dims(self, active_dims):
        x = torch.full((5, 10), torch.nan)
        x[:, active_dims] = random_rows(5)
        chosen = self.create_kernel_no_ard(active_dims=active_dims)(x).to_dense()
        alone = self.create_kernel_no_ard()(x[:, active_dims]).to_dense()
        self.assertAllClose(chosen, alone)


class TestGPyTorchContractWithLandmarks(TestGPyTorchContract):
    def create_kernel_no_ard(self, **kwargs):
        nets = SPACE.sample(7, generator=torch.Generator().manual_seed(5))
        return HOTNNKernel(SPACE, landmarks=SPACE.encode(nets), **kwargs)


def dense(kernel, *rows):
    return kernel(*rows).to_dense()


def plain_metric(kernel):
    """HOTNN with the kernel's parameters, attached to their graph."""
    return HOTNN(
        space=SPACE,
        tree=SPACE.tree.with_lengths(kernel.tree_lengths),
        lam=kernel.lam[0],
        eps=kernel.eps[0],
        eta=kernel.eta[0],
        zeta=kernel.zeta[0],
        dtype=torch.float64,
        **EXACT,
    )


def test_it_is_the_exponential_of_the_distance(nets, X):
    kernel = HOTNNKernel(SPACE, lam=0.4, eps=0.7, eta=0.3, zeta=0.2, **EXACT).double()
    assert kernel.lengthscale.item() == pytest.approx(math.log(2.0))
    for name, value in (("lam", 0.4), ("eps", 0.7), ("eta", 0.3), ("zeta", 0.2)):
        assert getattr(kernel, name).item() == pytest.approx(value)
    kernel.lengthscale = 0.25
    expected = torch.exp(-plain_metric(kernel)(nets, nets[:4]) / 0.25)
    torch.testing.assert_close(dense(kernel, X, X[:4]), expected)
    scaled = ScaleKernel(kernel).double()
    scaled.outputscale = 3.0
    torch.testing.assert_close(dense(scaled, X), 3.0 * dense(kernel, X))


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "paper"},
        {"state_scale": (2.0, 3.0), "zeta": 0.4},
        {"max_nodes": 9, "normalize": False},
    ],
)
def test_settings_of_the_distance_go_by_name(nets, X, settings):
    kernel = HOTNNKernel(SPACE, learn=(), **settings, **EXACT).double()
    expected = HOTNN(space=SPACE, dtype=torch.float64, **settings, **EXACT)
    kernel.lengthscale = 0.5
    torch.testing.assert_close(
        dense(kernel, X), torch.exp(-expected(nets) / 0.5), atol=1e-5, rtol=0
    )


def test_features_are_those_of_the_landmarks(nets, X):
    kernel = HOTNNKernel(SPACE, landmarks=X[:4], cutoff=0.05, **EXACT).double()
    similarity = torch.exp(-plain_metric(kernel)(nets, nets[:4]) / kernel.lengthscale)
    features = landmark_features(similarity, whitener(similarity[:4], 0.05))
    expected = features[1:5] @ features.T
    expected[torch.arange(4), torch.arange(1, 5)] = 1.0
    torch.testing.assert_close(dense(kernel, X[1:5], X), expected)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("with_landmarks", [False, True])
def test_every_parameter_has_the_gradient_of_the_definition(nets, X, mode, with_landmarks, rng):
    learn = ("lam", "eps", "eta", "zeta", "tree")
    kernel = HOTNNKernel(SPACE, learn=learn, landmarks=X if with_landmarks else None, **EXACT)
    getattr(kernel.double(), mode)()
    weights = torch.rand(4, 6, generator=rng, dtype=torch.float64)
    parameters = dict(kernel.named_parameters())
    assert len(parameters) == 6
    found = torch.autograd.grad((weights * dense(kernel, X[1:5], X)).sum(), parameters.values())
    expected = torch.exp(-plain_metric(kernel)(nets) / kernel.lengthscale)
    if with_landmarks:
        features = landmark_features(expected, whitener(expected))
        expected = features @ features.T
    different = 1.0 - torch.eye(6, dtype=torch.float64)[1:5]
    total = (weights * different * expected[1:5]).sum()
    for name, one, other in zip(
        parameters, found, torch.autograd.grad(total, parameters.values()), strict=True
    ):
        assert (one != 0).any(), name
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)


def test_a_square_matrix_in_training_has_the_same_gradient(X):
    gradients = []
    for train in (True, False):
        kernel = HOTNNKernel(SPACE, landmarks=X, **EXACT).double().train(train)
        dense(kernel, X).square().sum().backward()
        gradients.append([p.grad for p in kernel.parameters() if p.grad is not None])
    assert len(gradients[0]) == 6  # lengthscale, lam, eps, eta, zeta, tree
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)


def test_only_changes_of_the_distance_call_the_solver(X, solver_calls):
    kernel = HOTNNKernel(SPACE, learn=()).double()
    dense(kernel, X)
    assert solver_calls
    for name, value in (("lengthscale", 0.1), ("eta", 0.2), ("zeta", 0.1)):
        solver_calls.clear()
        before = dense(kernel, X)
        setattr(kernel, name, value)
        assert not torch.equal(dense(kernel, X), before)
        assert solver_calls == []
    expected = HOTNN(space=SPACE, eta=0.2, zeta=0.1, dtype=torch.float64)(SPACE.decode(X))
    torch.testing.assert_close(dense(kernel, X), torch.exp(-expected / 0.1), atol=1e-6, rtol=1e-5)
    solver_calls.clear()
    kernel.lam = 0.3
    dense(kernel, X)
    assert solver_calls


def test_gradients_in_training_reuse_couplings_of_the_nodes(X, solver_calls):
    kernel = HOTNNKernel(SPACE, landmarks=X).double()
    dense(kernel, X).sum().backward()
    assert solver_calls
    solver_calls.clear()
    kernel.lengthscale = 0.2
    kernel.eta = 0.3
    dense(kernel, X).sum().backward()
    assert solver_calls == []


@pytest.mark.ext
def test_known_rows_are_not_computed_again(rng, solver_calls):
    X = NB201.encode(NB201.sample(6, generator=rng, distinct=True))
    kernel = HOTNNKernel(NB201, landmarks=X[:3]).double().eval()
    with torch.no_grad():
        first = dense(kernel, X[:5], X[:3])
        solver_calls.clear()
        again = dense(kernel, X[[4, 0, 0]], X[:3])
        assert solver_calls == []
        torch.testing.assert_close(again, first[[4, 0, 0]])
        dense(kernel, X, X[:3])
        assert solver_calls


@pytest.mark.ext
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_landmarks_it_is_positive_semi_definite_anywhere(dtype, rng):
    nets = NB201.sample(60, generator=rng)
    X = NB201.encode(nets).to(dtype)
    plain = HOTNNKernel(NB201, eps=0.5).to(dtype)
    plain.lengthscale = 0.3
    with torch.no_grad():
        assert float(torch.linalg.eigvalsh(dense(plain, X).double())[0]) < -1e-3
        repaired = HOTNNKernel(NB201, eps=0.5, landmarks=X[:20]).to(dtype)
        repaired.lengthscale = 0.3
        covariance = dense(repaired, X)
    assert covariance.dtype == dtype
    assert torch.equal(covariance.diagonal(), torch.ones(60, dtype=dtype))
    assert torch.equal(repaired(X, diag=True), torch.ones(60, dtype=dtype))
    noise = 60 * torch.finfo(dtype).eps
    assert float(torch.linalg.eigvalsh(covariance.double())[0]) > -noise
    torch.testing.assert_close(covariance[:20, :20], dense(plain, X[:20]), atol=0.15, rtol=0)


def test_what_is_dropped_is_reported(X):
    kernel = HOTNNKernel(SPACE, landmarks=X, cutoff=0.02).double()
    kernel.lengthscale = 50.0
    report = kernel.spectrum()
    assert report.cutoff == 0.02
    assert len(report.eigenvalues) == 6
    assert report.num_dropped == 5
    with pytest.raises(ValueError, match="no landmarks"):
        HOTNNKernel(SPACE).spectrum()


@pytest.mark.ext
def test_equal_networks_covary_like_one(rng):
    none_left = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    dead_end = "|none~0|+|avg_pool_3x3~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    nets = [NB201.from_string(text) for text in (none_left, dead_end)]
    X = NB201.encode([*nets, *NB201.sample(3, generator=rng)])
    assert not torch.equal(X[0], X[1])
    kernel = HOTNNKernel(NB201, landmarks=X[2:]).double()
    covariance = dense(kernel, X)
    assert covariance[0, 1] == 1.0
    assert torch.equal(covariance[0], covariance[1])
    kernel.landmarks = X
    assert kernel.landmarks.shape == (4, 6)


def test_parameters_are_learned_or_fixed():
    def learned(kernel):
        return {name for name, p in kernel.named_parameters() if p.requires_grad}

    distance = {"raw_lam", "raw_eps", "raw_tree_lengths"}
    assert learned(HOTNNKernel(NB201)) == distance | {"raw_lengthscale"}
    macro = HOTNNKernel(SPACE)
    assert learned(macro) == distance | {"raw_eta", "raw_zeta", "raw_lengthscale"}
    # The space's default zeta = 0 leaves the sigmoid no slope.
    assert macro.zeta.item() == pytest.approx(0.05)
    assert HOTNNKernel(SPACE, learn=()).zeta.item() == 0.0
    fixed = HOTNNKernel(SPACE, lam=1.0, learn=["tree"])
    assert learned(fixed) == {"raw_tree_lengths", "raw_lengthscale"}
    assert fixed.lam.item() == 1.0
    assert fixed.unreachable is None
    assert HOTNNKernel(SPACE, unreachable=2.5).unreachable.item() == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lam": 1.0}, ValueError, r"lam must start inside \(0, 1\) to be learned; got 1.0"),
        ({"lam": 1.5}, ValueError, "lam must be in"),
        ({"learn": "lam"}, TypeError, r"pass \['lam'\]"),
        ({"learn": ["lambda"]}, ValueError, "names among 'lam', .* got 'lambda'"),
        ({"learn": ["unreachable"]}, ValueError, "unreachable cannot be learned"),
        ({"cutoff": 0.0}, ValueError, "cutoff must be finite and > 0"),
    ],
)
def test_wrong_settings_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        HOTNNKernel(SPACE, **options)


def test_wrong_rows_are_refused(X):
    kernel = HOTNNKernel(SPACE).double()
    wrong = torch.cat([X, X[:1] + 7.0])
    with pytest.raises(ArchitectureError, match=r"X\[6\]"):
        kernel(wrong).to_dense()
    halves = torch.zeros(3, 8)
    halves[2, 3] = 0.5
    with pytest.raises(ArchitectureError, match=r"X\[2, 3\].*whole number"):
        kernel(X[:3] + halves).to_dense()
    with pytest.raises(ValueError, match="must have 8 columns"):
        kernel(X[:, :5]).to_dense()
    with pytest.raises(TypeError, match="space must be a SearchSpace; got"):
        HOTNNKernel("nasbench201")
    with pytest.raises(ValueError, match="last_dim_is_batch"):
        kernel.forward(X, X, last_dim_is_batch=True)


def test_state_and_pickles_restore_it(X):
    kernel = HOTNNKernel(
        SPACE, landmarks=X[:4], lam_prior=LogitNormalPrior(0.5), tree_prior=NormalPrior(1.0, 0.1)
    ).double()
    kernel.lam, kernel.eps, kernel.lengthscale = 0.21, 0.66, 0.37
    expected = dense(kernel, X).detach()
    other = HOTNNKernel(SPACE, landmarks=X[:4]).double()
    other.load_state_dict(kernel.state_dict(), strict=False)
    torch.testing.assert_close(dense(other, X).detach(), expected)
    restored = pickle.loads(pickle.dumps(kernel))
    assert torch.equal(dense(restored, X).detach(), expected)
    assert len(pickle.dumps(kernel)) < 200_000
    assert len(list(restored.named_priors())) == 2


def test_priors_go_by_the_names_of_parameters():
    given = {"lam": LogitNormalPrior(0.5), "tree": NormalPrior(1.0, 0.1)}
    kernel = HOTNNKernel(SPACE, priors=given).double()
    named = {name: prior for name, _, prior, _, _ in kernel.named_priors()}
    assert named == {"lam_prior": given["lam"], "tree_prior": given["tree"]}
    by_suffix = HOTNNKernel(SPACE, lam_prior=given["lam"], tree_prior=given["tree"])
    assert [name for name, *_ in by_suffix.named_priors()] == list(named)


def test_copies_share_what_is_known(X, solver_calls):
    kernel = HOTNNKernel(SPACE, landmarks=X).double().eval()
    with torch.no_grad():
        expected = dense(kernel, X)
        solver_calls.clear()
        twin = copy.deepcopy(kernel)
        assert torch.equal(dense(twin, X), expected)
        assert solver_calls == []
        twin.lam = 0.2
        assert not torch.equal(dense(twin, X), expected)
        assert torch.equal(dense(kernel, X), expected)


def test_held_couplings_need_no_solver_and_start_with_the_right_gradient(X, solver_calls):
    kernel = HOTNNKernel(SPACE, landmarks=X, **EXACT).double()
    dense(kernel, X).sum().backward()
    direct = kernel.raw_eps.grad.clone()
    before = dense(kernel, X).detach()
    kernel.zero_grad()
    with kernel.couplings_held():
        dense(kernel, X).sum().backward()
        torch.testing.assert_close(kernel.raw_eps.grad, direct, atol=1e-8, rtol=1e-6)
        solver_calls.clear()
        kernel.eps = 0.6
        assert not torch.equal(dense(kernel, X).detach(), before)
        assert solver_calls == []
    dense(kernel, X)
    assert solver_calls


@pytest.mark.ext
def test_a_training_holds_the_couplings_that_it_finds_first(rng, solver_calls):
    X = NB201.encode(NB201.sample(8, generator=rng, distinct=True))
    kernel = HOTNNKernel(NB201, landmarks=X[:6]).double().train()
    dense(kernel, X).sum().backward()
    assert solver_calls
    solver_calls.clear()
    with torch.no_grad():
        kernel.raw_eps -= 2.0
    dense(kernel, X).sum().backward()
    assert solver_calls == []
    held = dense(kernel, X).detach()
    with torch.no_grad():
        exact = dense(kernel, X)
    assert solver_calls
    assert not torch.equal(held, exact)
    torch.testing.assert_close(held, exact, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    "end",
    [
        lambda kernel: kernel.train(),
        lambda kernel: setattr(kernel, "lam", 0.3),
        lambda kernel: kernel.initialize(raw_eps=torch.tensor([0.1])),
        lambda kernel: kernel.load_state_dict(kernel.state_dict()),
        lambda kernel: kernel.eval(),
    ],
    ids=["train", "set", "initialize", "load", "eval"],
)
def test_what_changes_parameters_by_name_ends_a_training(X, end):
    kernel = HOTNNKernel(SPACE, landmarks=X[:4]).double().train()
    dense(kernel, X)
    with torch.no_grad():
        kernel.raw_eps += 0.3
    end(kernel)
    fresh = HOTNNKernel(SPACE, landmarks=X[:4]).double()
    fresh.load_state_dict(kernel.state_dict())
    torch.testing.assert_close(dense(kernel, X), dense(fresh, X))


def test_few_couplings_are_held_at_a_time(X):
    kernel = HOTNNKernel(SPACE, landmarks=X).double().train()
    for first in range(5):
        for second in range(first + 1, 6):
            dense(kernel, X[[first, second]])
    assert len(kernel._held.couplings) <= 16
    assert len(pickle.dumps(kernel)) < 200_000
    assert copy.deepcopy(kernel)._held is None


def test_integer_rows_are_rows(X):
    for kernel in (HOTNNKernel(SPACE).double(), HOTNNKernel(SPACE, landmarks=X[:4]).double()):
        assert torch.equal(dense(kernel, X.long()), dense(kernel, X))
        assert dense(kernel, X[:1].long()).dtype == torch.float64


def test_batch_elements_can_have_landmarks_of_their_own(X):
    rows = torch.stack([X[:4], X[2:6]])
    batch = HOTNNKernel(SPACE, landmarks=rows, batch_shape=torch.Size([2])).double()
    batch.lam = torch.tensor([[0.2], [0.7]], dtype=torch.float64)
    together = dense(batch, X)
    weights = torch.rand(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (weights * together).sum().backward()
    for element, lam in enumerate((0.2, 0.7)):
        alone = HOTNNKernel(SPACE, landmarks=rows[element]).double()
        alone.lam = lam
        expected = dense(alone, X)
        torch.testing.assert_close(together[element], expected)
        (weights * expected).sum().backward()
        torch.testing.assert_close(batch.raw_lengthscale.grad[element], alone.raw_lengthscale.grad)
        torch.testing.assert_close(dense(batch[element], X), expected)
        torch.testing.assert_close(
            batch.spectrum(element).eigenvalues, alone.spectrum().eigenvalues
        )
    restored = pickle.loads(pickle.dumps(batch))
    restored(X.flip(0))  # numbers networks in another order
    torch.testing.assert_close(dense(restored, X), together)
    with pytest.raises(ValueError, match="do not broadcast to batch_shape"):
        HOTNNKernel(SPACE, landmarks=X.reshape(3, 2, 8), batch_shape=torch.Size([2]))


@pytest.mark.ext
@pytest.mark.parametrize("name", ["nasbench201", "nasbench_macro", "transnas_macro"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("error")
def test_models_of_botorch_fit_it_as_they_are(name, seed, monkeypatch):
    # All parameters of the distance are learned, and no fit has to start again.
    monkeypatch.setattr("botorch.fit.sample_all_priors", lambda _: pytest.fail("a retry"))
    space, generator = spaces.get(name), torch.Generator().manual_seed(seed)
    rows = space.encode(space.sample(20, generator=generator, distinct=True))
    slopes = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64)
    targets = torch.sin(rows * slopes).sum(1, keepdim=True)
    kernel = HOTNNKernel(space, landmarks=rows)
    model = SingleTaskGP(rows, targets, covar_module=ScaleKernel(kernel))
    before = kernel.tree_lengths.detach().clone()
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    assert not model.training
    assert not torch.equal(kernel.tree_lengths, before)
    posterior = model.posterior(rows)
    assert (posterior.mean - targets).square().mean() < targets.var()


def test_a_batch_element_is_a_kernel_of_its_own(X):
    batch = HOTNNKernel(SPACE, landmarks=X[:4], batch_shape=torch.Size([2])).double()
    batch.lam = torch.tensor([[0.2], [0.7]], dtype=torch.float64)
    batch.lengthscale = torch.tensor([[[0.1]], [[0.3]]], dtype=torch.float64)
    together = dense(batch, X)
    assert together.shape == (2, 6, 6)
    assert batch(X, diag=True).shape == (2, 6)
    for element, (lam, lengthscale) in enumerate(((0.2, 0.1), (0.7, 0.3))):
        alone = HOTNNKernel(SPACE, landmarks=X[:4]).double()
        alone.lam, alone.lengthscale = lam, lengthscale
        torch.testing.assert_close(together[element], dense(alone, X))
    assert dense(batch, X.expand(5, 1, 6, 8), X[:3]).shape == (5, 2, 6, 3)


def test_a_cost_matrix_can_be_learned(X):
    labels = SPACE.tree.labels
    matrix = SPACE.tree.distance_matrix(dtype=torch.float64)
    kernel = HOTNNKernel(SPACE, tree=OperationTree.from_matrix(labels, matrix)).double()
    assert kernel.tree_lengths.shape == (len(labels) * (len(labels) - 1) // 2,)
    torch.testing.assert_close(
        dense(kernel, X), dense(HOTNNKernel(SPACE).double(), X), atol=1e-6, rtol=1e-6
    )
    dense(kernel, X).sum().backward()
    assert (kernel.raw_tree_lengths.grad != 0).any()


def test_it_adds_and_multiplies_with_other_kernels(X):
    numeric = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None]
    both = torch.cat([X, numeric], dim=1)
    first = HOTNNKernel(SPACE, active_dims=range(8)).double()
    second = RBFKernel(active_dims=[8]).double()
    one, other = dense(first, both), dense(second, both)
    torch.testing.assert_close(dense(first + second, both), one + other)
    torch.testing.assert_close(dense(first * second, both), one * other)


@pytest.mark.parametrize("batch_shape", [torch.Size(), torch.Size([2, 1])])
def test_many_small_blocks_are_as_one_matrix(rng, batch_shape):
    X = SPACE.encode(SPACE.sample(40, generator=rng, distinct=True))
    kernel = HOTNNKernel(SPACE, landmarks=X[:7], batch_shape=batch_shape).double()
    whole = dense(kernel, X)
    blocks = dense(kernel, X.reshape(20, 2, 8))
    assert blocks.shape == (*batch_shape[:1], 20, 2, 2)
    for place in range(20):
        here = slice(2 * place, 2 * place + 2)
        expected = whole.reshape(*batch_shape[:1], 40, 40)[..., here, here]
        torch.testing.assert_close(blocks[..., place, :, :], expected)
    singles = dense(kernel, X.unsqueeze(1))
    assert torch.equal(singles, torch.ones_like(singles))
    assert singles.shape == (*batch_shape[:1], 40, 1, 1)


def test_what_a_prior_reads_it_sets():
    kernel = HOTNNKernel(
        NB201,
        lam_prior=LogitNormalPrior(0.5),
        eps_prior=LogitNormalPrior(0.5),
        tree_prior=NormalPrior(1.0, 0.1),
    )
    names = []
    for name, module, prior, closure, setting in kernel.named_priors():
        drawn = 0.5 * closure(module) + 0.1
        setting(module, drawn)
        torch.testing.assert_close(closure(module), drawn, msg=name)
        assert prior.log_prob(drawn).isfinite().all()
        names.append(name)
    assert {"lam_prior", "eps_prior", "tree_prior"} <= set(names)
