import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVR
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import hotnas_torch as ht
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.integrations.sklearn import DistanceTransformer, HOTNNRegressor

SPACE = ht.spaces.NASBench201()
NETS = SPACE.sample(24, generator=torch.Generator().manual_seed(0), distinct=True)
COUNT = np.array([float(net.spec.count("3x3")) for net in NETS])
METRIC = ht.distances.TreeWasserstein(SPACE)


# 53 checks, of which each fits some models.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The number of unique classes")
@parametrize_with_checks([HOTNNRegressor(metric="precomputed")])
def test_the_regressor_of_distances_is_one_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "estimator",
    [DistanceTransformer(METRIC), HOTNNRegressor(SPACE), HOTNNRegressor(metric=METRIC)],
    ids=repr,
)
def test_of_networks_scikit_learn_itself_leaves_out_its_arrays_of_random_numbers(estimator):
    """They are rows of no space. What the checks ask of others is asked below."""
    with pytest.warns(match="Can't test estimator"):
        found = check_estimator(estimator)
    assert [each["check_name"] for each in found] == ["check_estimator_cloneable"]
    assert estimator.__sklearn_tags__().input_tags.string
    assert clone(estimator).get_params().keys() == estimator.get_params().keys()


def forms():
    """The same networks, in all ways to say them."""
    pandas = pytest.importorskip("pandas")
    rows = SPACE.encode(NETS)
    texts = [net.spec for net in NETS]
    frame = pandas.DataFrame(rows, columns=SPACE.columns)
    objects = np.empty(len(NETS), dtype=object)
    objects[:] = NETS
    return {
        "strings": texts,
        "objects": objects,
        "array of strings": np.array(texts),
        "tensor": rows,
        "array": rows.numpy(),
        "frame": frame,
        "frame of integers in another order": frame[list(SPACE.columns)[::-1]].astype(int),
        "frame of strings": pandas.DataFrame({"arch": texts}),
        "series": pandas.Series(texts),
    }


def test_networks_may_be_given_in_any_form():
    expected = METRIC(NETS).numpy()
    wanted = HOTNNRegressor(metric=METRIC, noise_variance=1e-2).fit(NETS, COUNT).predict(NETS)
    for name, given in forms().items():
        found = DistanceTransformer(METRIC).fit(given).transform(given)
        assert (found == expected).all(), name
        model = HOTNNRegressor(metric=METRIC, noise_variance=1e-2).fit(given, COUNT)
        assert (model.predict(given) == wanted).all(), name


def test_a_pipeline_cross_validates_networks():
    def scores(X, y):
        model = make_pipeline(
            DistanceTransformer(METRIC), KNeighborsRegressor(3, metric="precomputed")
        )
        return cross_val_predict(model, X, y, cv=3)

    by_hand = cross_val_predict(
        KNeighborsRegressor(3, metric="precomputed"), METRIC(NETS).numpy(), COUNT, cv=3
    )
    assert (scores(NETS, COUNT) == by_hand).all()


def test_kernels_are_positive_semi_definite_and_searched_over():
    metric = ht.HOTNN(space=SPACE)
    kernel = DistanceTransformer(metric, output="kernel").fit(NETS)
    values = kernel.transform(NETS)
    assert np.linalg.eigvalsh(values).min() > -1e-9
    assert np.allclose(np.diag(values), 1.0)
    # A smaller scale leaves less in common.
    assert kernel.set_params(scale=0.1).fit(NETS).transform(NETS).mean() < values.mean()
    search = GridSearchCV(
        make_pipeline(DistanceTransformer(metric, output="kernel"), SVR(kernel="precomputed")),
        {"distancetransformer__scale": [0.3, 3.0]},
        cv=2,
    )
    assert search.fit(NETS, COUNT).predict(NETS[:2]).shape == (2,)


def test_features_have_names_for_frames():
    pytest.importorskip("pandas")
    found = DistanceTransformer(METRIC).set_output(transform="pandas").fit_transform(NETS[:3])
    assert list(found.columns) == [f"distancetransformer{k}" for k in range(3)]


def test_the_model_is_the_one_of_botorch():
    from botorch.fit import fit_gpytorch_mll
    from gpytorch.mlls import ExactMarginalLogLikelihood

    rows, targets = SPACE.encode(NETS[:12]), torch.from_numpy(COUNT[:12, None])
    model = ht.gp.HOTNNGP(rows, targets, space=SPACE, learn=())
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    expected = model.posterior(SPACE.encode(NETS[12:]))
    ours = HOTNNRegressor(SPACE, settings={"learn": ()}).fit(NETS[:12], COUNT[:12])
    mean, deviation = ours.predict(NETS[12:], return_std=True)
    assert (mean == expected.mean[:, 0].detach().numpy()).all()
    assert (deviation == expected.variance[:, 0].sqrt().detach().numpy()).all()
    _, covariance = ours.predict(NETS[12:], return_cov=True)
    assert np.allclose(np.diag(covariance), deviation**2)
    again = pickle.loads(pickle.dumps(ours))
    assert np.allclose(again.predict(NETS[12:]), mean, rtol=1e-12, atol=0)


def test_a_precomputed_model_is_that_of_the_distance():
    """They differ in where they start and how far they go, not in what they find."""
    D = METRIC(NETS).numpy()
    noise = {"noise_variance": 1e-4}
    own = HOTNNRegressor(metric="precomputed", **noise).fit(D[:16, :16], COUNT[:16])
    assert np.abs(own.predict(D[:16, :16]) - COUNT[:16]).max() < 0.1
    other = HOTNNRegressor(metric="precomputed", **noise).fit(1e6 * D[:16, :16], COUNT[:16])
    assert np.allclose(own.predict(D[16:, :16]), other.predict(1e6 * D[16:, :16]), atol=1e-4)


def test_networks_of_no_space_need_a_tree():
    tree = SPACE.tree
    model = HOTNNRegressor(settings={"tree": tree, "learn": ()}).fit(NETS[:8], COUNT[:8])
    assert model.predict(NETS[8:]).shape == (16,)
    with pytest.raises(TypeError, match="space or tree is required"):
        HOTNNRegressor().fit(NETS[:8], COUNT[:8])


@pytest.mark.parametrize(
    ("model", "X", "y", "error", "message"),
    [
        (HOTNNRegressor(SPACE, metric="hotn"), NETS, COUNT, ValueError, "metric must be one of"),
        (HOTNNRegressor(SPACE, settings={"lern": ()}), NETS, COUNT, TypeError, "'learn'"),
        (HOTNNRegressor(SPACE, noise_variance=-1.0), NETS, COUNT, ValueError, "noise_variance"),
        (HOTNNRegressor(SPACE, metric=METRIC), NETS, COUNT, ValueError, "space belong to"),
        (HOTNNRegressor(SPACE), NETS[:3], COUNT, ValueError, "a target per network, 3; got 24"),
        (HOTNNRegressor(SPACE), NETS, COUNT * np.nan, ValueError, "NaN|finite"),
        (HOTNNRegressor(SPACE), NETS, COUNT * 0, ValueError, "train_Y must vary"),
        (HOTNNRegressor(SPACE), [*NETS[:3], "x"], COUNT[:4], TypeError, r"X\[0\] must be a string"),
        (HOTNNRegressor(SPACE), ["x", "y"], COUNT[:2], ArchitectureError, r"X\[0\]: "),
        (HOTNNRegressor(SPACE), None, COUNT, TypeError, "X must be a list of networks"),
        (DistanceTransformer("hotnn"), NETS, None, TypeError, "distance must be a NetworkDistance"),
        (DistanceTransformer(METRIC, output="both"), NETS, None, ValueError, "output must be one"),
        (DistanceTransformer(METRIC, scale=0.0), NETS, None, ValueError, "scale must be"),
        (DistanceTransformer(METRIC), [], None, ValueError, "at least one Network"),
    ],
)
def test_what_is_wrong_is_named(model, X, y, error, message):
    with pytest.raises(error, match=message):
        model.fit(X, y)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (lambda D: D[:3], r"must be square.*\(3, 5\)"),
        (lambda D: D + 1.0, r"\[0, 0\] must be 0"),
        (lambda D: D + D.triu(), r"X\[0, 1\] must be what the entry across"),
        (lambda D: -D, "Negative values"),
        (lambda D: D / 0.0, "NaN|infinity"),
    ],
)
def test_what_is_no_matrix_of_distances_is_refused(entry, message):
    D = entry(METRIC(NETS[:5]).double()).numpy()
    with pytest.raises(ValueError, match=message):
        HOTNNRegressor(metric="precomputed").fit(D, COUNT[: len(D)])
