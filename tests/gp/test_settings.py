"""What kernels and models refuse, before they do any work."""

import inspect
import math
import typing
from typing import Any

import pytest
import torch
from botorch.models.transforms import Log, Normalize
from botorch.models.transforms.input import Log10
from gpytorch.priors import NormalPrior

from hotnas_torch import gp, spaces
from hotnas_torch.distances import TreeWasserstein
from hotnas_torch.gp import (
    HOTNNGP,
    DistanceGP,
    DistanceKernel,
    FeatureGP,
    FeatureKernel,
    HOTNNKernel,
    LogitNormalPrior,
    WeisfeilerLehmanGP,
    WeisfeilerLehmanKernel,
    distribution_kernel,
    optimize_relaxed,
)
from hotnas_torch.gp.features import feature_kernel
from hotnas_torch.gp.model import architecture_kernel, combined_kernel
from hotnas_torch.nago import (
    BNN,
    HNAG,
    GeneratorGP,
    GeneratorKernel,
    GeneratorSamples,
    Sampling,
    ThetaSpace,
    generator_metric,
    sample_sghmc,
)
from hotnas_torch.nago import kernel as nago_kernel
from hotnas_torch.spaces.encodings import encoding_of

SPACE = spaces.NASBenchMacro()
X = SPACE.encode(SPACE.sample(6, generator=torch.Generator().manual_seed(0), distinct=True))
Y = X.square().sum(1, keepdim=True)
FEATURES = encoding_of(SPACE).of_rows
DISTANCE = TreeWasserstein(SPACE)
THETAS = ThetaSpace(nodes=(3, 4), mid_nodes=(1, 2))
SAMPLES = GeneratorSamples(HNAG(), THETAS, size=1)
THETA = THETAS.sample(4, generator=torch.Generator().manual_seed(0))
GENERATOR = torch.Generator().manual_seed(0)

MAKE: dict[str, Any] = {
    "HOTNNGP": lambda **given: HOTNNGP(X, Y, space=SPACE, **given),
    "HOTNNKernel": lambda **given: HOTNNKernel(SPACE, **given),
    "architecture_kernel": lambda **given: architecture_kernel(SPACE, X, **given),
    "combined_kernel": lambda **given: combined_kernel(HOTNNKernel(SPACE), 1, "product", **given),
    "DistanceGP": lambda **given: DistanceGP(X, Y, distance=DISTANCE, **given),
    "DistanceKernel": lambda **given: DistanceKernel(DISTANCE, **given),
    "FeatureGP": lambda **given: FeatureGP(X, Y, FEATURES, **given),
    "FeatureKernel": lambda **given: FeatureKernel(feature_kernel(FEATURES), FEATURES, **given),
    "feature_kernel": lambda **given: feature_kernel(FEATURES, **given),
    "distribution_kernel": lambda **given: distribution_kernel(SPACE, **given),
    "GeneratorGP": lambda **given: GeneratorGP(THETA, THETA[:, :1], samples=SAMPLES, **given),
    "GeneratorKernel": lambda **given: GeneratorKernel(SAMPLES, **given),
    "GeneratorSamples": lambda **given: GeneratorSamples(HNAG(), THETAS, **given),
    "generator_metric": lambda **given: generator_metric(HNAG(), **given),
    "WeisfeilerLehmanGP": lambda **given: WeisfeilerLehmanGP(X, Y, space=SPACE, **given),
    "WeisfeilerLehmanKernel": lambda **given: WeisfeilerLehmanKernel(SPACE, **given),
    "BNN": lambda **given: BNN(X, Y, **({"generator": GENERATOR} | given)),
    "LogitNormalPrior": lambda **given: LogitNormalPrior(**({"center": 0.5} | given)),
    "optimize_relaxed": lambda **given: optimize_relaxed(
        None, None, **({"generator": GENERATOR} | given)
    ),
    "sample_sghmc": lambda **given: sample_sghmc(
        lambda x: x,
        torch.zeros(1),
        generator=GENERATOR,
        **({"num_burn_in": 1, "num_samples": 1, "thinning": 1} | given),
    ),
}


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    """Distances, samples of networks and steps of samplers are work."""

    def work(*_, **__):
        pytest.fail("work was begun before settings were checked")

    monkeypatch.setattr("hotnas_torch.gp.hotnn_memory.HOTNNMemory.distances", work)
    monkeypatch.setattr("hotnas_torch.gp.hotnn_memory.HOTNNMemory.couplings", work)
    monkeypatch.setattr("hotnas_torch.gp.memory.PairMemory.__call__", work)
    monkeypatch.setattr("hotnas_torch.nago.bnn.sample_sghmc", work)


@pytest.mark.parametrize(
    ("name", "unknown", "meant"),
    [
        ("HOTNNGP", "etta", "eta"),
        ("HOTNNGP", "num_stars", "num_starts"),
        ("HOTNNGP", "outcome_transfrom", "outcome_transform"),
        ("HOTNNGP", "landmarks", None),
        ("HOTNNGP", "levels", None),
        ("HOTNNKernel", "paairs", "pairs"),
        ("HOTNNKernel", "num_stars", "num_starts"),
        ("HOTNNKernel", "landmark", "landmarks"),
        ("HOTNNKernel", "ard_num_dims", None),
        ("architecture_kernel", "lamm", "lam"),
        ("combined_kernel", "haw", "how"),
        ("DistanceGP", "memmory", "memory"),
        ("DistanceGP", "eta", None),
        ("DistanceKernel", "landmark", "landmarks"),
        ("DistanceKernel", "lengthscale_prior", None),
        ("FeatureGP", "lenghtscale", "lengthscale"),
        ("FeatureKernel", "active_dim", "active_dims"),
        ("feature_kernel", "length_scale", "lengthscale"),
        ("distribution_kernel", "batch_shapes", "batch_shape"),
        ("GeneratorGP", "sample", "samples"),
        ("GeneratorKernel", "landmark", "landmarks"),
        ("GeneratorSamples", "sizes", "size"),
        ("generator_metric", "num_start", "num_starts"),
        ("WeisfeilerLehmanGP", "level", "levels"),
        ("WeisfeilerLehmanKernel", "levels", "level"),
        ("BNN", "num_layer", "num_layers"),
        ("optimize_relaxed", "raw_sample", "raw_samples"),
        ("sample_sghmc", "stepsize", "step_size"),
    ],
)
def test_unknown_settings_are_refused_with_the_one_that_was_meant(name, unknown, meant):
    hint = f" (did you mean {meant!r}?)" if meant else ""
    with pytest.raises(TypeError) as refused:
        MAKE[name](**{unknown: 1})
    message = str(refused.value)
    assert message.startswith(f"{name} has no setting {unknown!r}{hint}; it knows ")
    if meant:
        assert meant in message.split("; it knows ")[1].split(", ")


FRACTIONS = ("lam", "eps", "eta", "zeta")


@pytest.mark.parametrize(
    ("name", "given", "error", "message"),
    [
        *((m, {f: "a"}, TypeError, f"{f} must be") for m in MAKE for f in FRACTIONS if "HOT" in m),
        *((m, {f: 3.0}, ValueError, f) for m in MAKE for f in FRACTIONS if "HOT" in m),
        *((m, {f: math.nan}, ValueError, f) for m in MAKE for f in FRACTIONS if "HOT" in m),
        ("HOTNNGP", {"num_starts": 2.5}, TypeError, "num_starts must be an integer"),
        ("HOTNNGP", {"num_starts": 0}, ValueError, "num_starts must be"),
        ("HOTNNGP", {"tol": -1.0}, ValueError, "tol must be"),
        ("HOTNNGP", {"max_iter": "a"}, TypeError, "max_iter must be"),
        ("HOTNNGP", {"cutoff": "a"}, TypeError, "cutoff must be a finite number > 0; got 'a'"),
        ("HOTNNGP", {"cutoff": math.nan}, ValueError, "cutoff must be finite and > 0"),
        ("HOTNNGP", {"learn": 3}, TypeError, "learn must be a collection of names"),
        ("HOTNNGP", {"combine": "sum"}, ValueError, "combine must be"),
        ("HOTNNGP", {"lam_prior": 0.5}, TypeError, "lam_prior must be a gpytorch Prior or None"),
        *(
            (m, {"priors": given}, error, message)
            for m in ("HOTNNGP", "HOTNNKernel", "architecture_kernel")
            for given, error, message in (
                (3, TypeError, "priors must be a mapping of priors by name; got int"),
                ({"lamm": None}, ValueError, "priors must be by names among 'lam', .* got 'lamm'"),
                ({"lam": 0.5}, TypeError, r"priors\['lam'\] must be a gpytorch Prior or None"),
            )
        ),
        (
            "HOTNNKernel",
            {"priors": {"lam": LogitNormalPrior(0.5)}, "lam_prior": LogitNormalPrior(0.5)},
            ValueError,
            "lam_prior must be left out where priors holds 'lam'",
        ),
        ("HOTNNGP", {"lengthscale_prior": 1}, TypeError, "lengthscale_prior must be a gpytorch P"),
        ("HOTNNGP", {"mean_module": 3}, TypeError, "mean_module must be a torch Module or None"),
        ("HOTNNGP", {"covar_module": "a"}, TypeError, "covar_module must be a torch Module"),
        ("HOTNNGP", {"likelihood": "a"}, TypeError, "likelihood must be a gpytorch Likelihood"),
        ("HOTNNGP", {"outcome_transform": "log"}, TypeError, "outcome_transform must be a botorch"),
        ("HOTNNGP", {"input_transform": "a"}, TypeError, "input_transform must be a botorch Inp"),
        ("DistanceGP", {"mean_module": 3}, TypeError, "mean_module must be a torch Module or None"),
        ("HOTNNKernel", {"batch_shape": 2}, TypeError, "batch_shape must be"),
        ("HOTNNKernel", {"active_dims": [0, 1]}, ValueError, "active_dims must name 8 columns"),
        ("HOTNNKernel", {"active_dims": "a"}, TypeError, r"active_dims\[0\] must be an integer"),
        ("HOTNNKernel", {"active_dims": 3}, TypeError, "active_dims must be a collections Seq"),
        ("HOTNNKernel", {"max_iter": 2**40}, ValueError, "max_iter must be between 1 and 2147"),
        ("combined_kernel", {}, ValueError, "architecture must have active_dims"),
        ("WeisfeilerLehmanKernel", {"contract": 3}, TypeError, "contract must be a collection"),
        ("HOTNNKernel", {"landmarks": X[0]}, ValueError, "landmarks must be rows"),
        ("DistanceKernel", {"memory": 3}, TypeError, "memory must be a PairMemory; got int"),
        ("FeatureGP", {"noise": 3}, TypeError, "noise must be a range"),
        ("FeatureGP", {"noise": (1.0, math.nan)}, ValueError, "noise must be a range"),
        ("FeatureGP", {"outputscale": (1.0, math.inf)}, ValueError, "outputscale must be a range"),
        ("FeatureGP", {"covar_module": 3}, TypeError, "covar_module must be a torch Module"),
        ("GeneratorSamples", {"size": 2.5}, TypeError, "size must be an integer >= 1; got 2.5"),
        ("GeneratorSamples", {"seed": "a"}, TypeError, "seed must be an integer"),
        ("WeisfeilerLehmanKernel", {"level": 1.5}, TypeError, "level must be an integer"),
        ("WeisfeilerLehmanKernel", {"level": -1}, ValueError, "level must be at least 0; got -1"),
        ("WeisfeilerLehmanGP", {"levels": 2}, TypeError, "levels must be a sequence of integers"),
        ("WeisfeilerLehmanGP", {"levels": [0.5]}, TypeError, r"levels\[0\] must be an integer"),
        ("WeisfeilerLehmanGP", {"noise_bounds": (0.1, 0.0)}, ValueError, "noise_bounds must be a"),
        ("BNN", {"num_layers": 2.5}, TypeError, "num_layers must be an integer >= 0; got 2.5"),
        ("BNN", {"width": "a"}, TypeError, "width must be an integer >= 1; got 'a'"),
        ("BNN", {"noise_variance": math.nan}, ValueError, "noise_variance must be finite and > 0"),
        ("BNN", {"sampling": 3}, TypeError, "sampling must be a Sampling"),
        ("BNN", {"sampling": Sampling(num_chains=2.5)}, TypeError, "num_chains must be an integer"),
        ("BNN", {"sampling": Sampling(thinning=0)}, ValueError, "thinning must be at least 1"),
        ("BNN", {"generator": 3}, TypeError, "generator must be a torch Generator; got 3"),
        ("LogitNormalPrior", {"center": "a"}, TypeError, "center must be a number"),
        ("LogitNormalPrior", {"scale": math.inf}, ValueError, "scale must be > 0 and finite"),
        ("optimize_relaxed", {"raw_samples": 2.5}, TypeError, "raw_samples must be an integer"),
        ("optimize_relaxed", {"q": 0}, ValueError, "q must be at least 1; got 0"),
        ("optimize_relaxed", {}, TypeError, "model must be a HOTNNGP"),
        ("sample_sghmc", {"friction": 2.0}, ValueError, r"friction must be in \(0, 1\]"),
        ("sample_sghmc", {"step_size": "a"}, TypeError, "step_size must be a finite number > 0"),
    ],
)
def test_values_that_cannot_be_are_refused(name, given, error, message):
    with pytest.raises(error, match=message):
        MAKE[name](**given)


def test_what_is_known_is_taken():
    kernel = HOTNNKernel(
        SPACE,
        lam=0.4,
        lam_prior=LogitNormalPrior(0.4),
        lengthscale_prior=NormalPrior(1.0, 1.0),
        batch_shape=[2],
        active_dims=range(8),
    )
    assert kernel.batch_shape == torch.Size([2])
    assert kernel.lam.shape == (2, 1)


@pytest.mark.parametrize("name", [*gp.__all__, *nago_kernel.__all__])
def test_nothing_has_more_than_ten_named_arguments(name):
    made = getattr(gp, name, None) or getattr(nago_kernel, name)
    if typing.is_typeddict(made):
        return
    kinds = [one.kind for one in inspect.signature(made).parameters.values()]
    assert sum(kind is not inspect.Parameter.VAR_KEYWORD for kind in kinds) <= 10


# --- observations ---------------------------------------------------------------------------------

MODELS: dict[str, Any] = {
    "HOTNNGP": lambda X, Y, **given: HOTNNGP(X, Y, space=SPACE, **given),
    "DistanceGP": lambda X, Y, **given: DistanceGP(X, Y, distance=DISTANCE, **given),
    "FeatureGP": lambda X, Y, **given: FeatureGP(X, Y, FEATURES, **given),
    "WeisfeilerLehmanGP": lambda X, Y, **given: WeisfeilerLehmanGP(X, Y, space=SPACE, **given),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda y: 1e300 * y, ValueError, "must have a standard deviation between 1e-04 and"),
        (lambda y: 1e-300 * y, ValueError, "must have a standard deviation between 1e-04 and"),
        (lambda y: 5.0 + 1e-9 * y, ValueError, r"another unit, 1e\+0\d times"),
        (lambda y: y.masked_fill(y == y.max(), math.inf), ValueError, "must be finite; row"),
        (lambda y: y.masked_fill(y == y.max(), math.nan), ValueError, "must be finite; row"),
        (lambda y: y.squeeze(1), ValueError, r"shape \(..., n, m\).*unsqueeze"),
        (lambda y: y[:2], ValueError, "one row per row of train_X"),
        (lambda y: y[:, :0], ValueError, "one column per output"),
        (lambda y: y.half(), TypeError, "float64, float32 or integers; got torch.float16"),
        (lambda y: y.to(torch.complex128), TypeError, "integers; got torch.complex128"),
        (lambda y: 1e-7 * y, ValueError, r"another unit, 1e\+0\d times the targets, or the log"),
        (lambda y: y.to("meta"), TypeError, "train_Y must hold values; got a tensor on the meta"),
        (lambda y: y.tolist(), TypeError, "train_Y must be a tensor; got list"),
    ],
)
def test_targets_that_cannot_be_modelled_are_refused(name, change, error, message):
    with pytest.raises(error, match=message):
        MODELS[name](X, change(Y))


def test_a_sampler_of_networks_refuses_targets_out_of_range():
    for scale in (1e300, 1e-300):
        with pytest.raises(ValueError, match="train_Y must have a standard deviation"):
            BNN(X, scale * Y, generator=GENERATOR)
    with pytest.raises(TypeError, match="train_X must be a torch Tensor; got 3"):
        BNN(3, Y, generator=GENERATOR)
    with pytest.raises(ValueError, match="train_X must be finite"):
        BNN(torch.full_like(X, math.inf), Y, generator=GENERATOR)


@pytest.mark.parametrize("name", ["HOTNNGP", "DistanceGP"])
def test_transforms_that_spoil_rows_or_targets_are_refused(name):
    with pytest.raises(ValueError, match="input_transform must leave the first 8 columns as they"):
        MODELS[name](X, Y, input_transform=Normalize(8))
    with pytest.raises(ValueError, match=r"must stay finite under outcome_transform; row \d"):
        MODELS[name](X, -Y, outcome_transform=Log())


def test_a_transform_that_changes_rows_is_refused_with_the_columns_that_it_may_change():
    wide = torch.cat([X, 10.0 * torch.rand(6, 2, generator=GENERATOR, dtype=X.dtype)], dim=1)
    with pytest.raises(ValueError, match=r"Normalize\(d=10, indices=\[8, 9\]\)"):
        HOTNNGP(wide, Y, space=SPACE, input_transform=Normalize(10))
    wide[3, 9] = 0.0
    with pytest.raises(ValueError, match="row 3, column 9, which is 0, becomes -inf with Log10"):
        HOTNNGP(wide, Y, space=SPACE, input_transform=Log10(indices=[9]))
    wide[2, 9] = math.nan
    with pytest.raises(ValueError, match="train_X must be finite; row 2, column 9 is nan"):
        HOTNNGP(wide, Y, space=SPACE)


def test_variances_of_noise_are_checked():
    with pytest.raises(ValueError, match="train_Yvar must be >= 0; the smallest is -1"):
        HOTNNGP(X, Y, torch.full_like(Y, -1.0), space=SPACE)
    with pytest.raises(ValueError, match=r"train_Yvar must have the shape of train_Y, \(6, 1\)"):
        HOTNNGP(X, Y, torch.ones(6), space=SPACE)
