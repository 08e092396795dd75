import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.errors import ArchitectureError, TableError

pandas = pytest.importorskip("pandas")

SPACE = ht.spaces.NASBench201()
NETS = SPACE.sample(5, generator=torch.Generator().manual_seed(0), distinct=True)


def frame(space=SPACE, nets=NETS):
    return pandas.DataFrame(space.encode(nets), columns=space.columns)


def test_a_frame_of_any_order_is_decoded():
    assert SPACE.decode(frame()) == NETS
    assert SPACE.decode(frame()[list(SPACE.columns)[::-1]].astype("Int64")) == NETS
    assert SPACE.decode(pandas.DataFrame({"arch": [net.spec for net in NETS]})) == NETS
    joint = ht.spaces.Joint(SPACE, {"lr": ht.spaces.Log(1e-4, 1.0), "batch": [32, 64]})
    pairs = joint.sample(4, generator=torch.Generator().manual_seed(0))
    assert joint.decode(pandas.Series([net.spec for net in pairs])) == pairs
    with pytest.raises(ValueError, match=r"one column of strings .* as the space has hyper"):
        joint.decode(frame(joint, pairs))


def test_models_take_frames_and_numbers_beside_them():
    Y = torch.arange(5.0)[:, None].double()
    named = frame().assign(width=[1.0, 2.0, 3.0, 4.0, 5.0])
    rows = torch.from_numpy(named.to_numpy())
    settings = {"space": SPACE, "learn": ()}
    one = ht.gp.HOTNNGP(named[["width", *SPACE.columns]], Y, **settings)
    other = ht.gp.HOTNNGP(rows, Y, **settings)
    assert torch.equal(one.posterior(named).mean, other.posterior(rows).mean)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: frame().iloc[:0], ValueError, "at least one row"),
        (lambda: frame().iloc[:, 1:], ValueError, "X must have the columns 'operation 0->1'"),
        (lambda: pandas.concat([frame(), frame()], axis=1), ValueError, "twice"),
        (lambda: frame().astype(str), TypeError, r"X\['operation 0->1'\] must hold numbers"),
        (lambda: frame() + 0.5, ArchitectureError, r"X\[0, 0\] \(operation 0->1\) must be a whole"),
        (lambda: frame().mask(frame() > 0), ArchitectureError, "must be finite"),
        (lambda: pandas.Series([NETS[0].spec, "x"]), ArchitectureError, r"X\[1\]: "),
        (lambda: pandas.Series([NETS[0].spec, None]), TypeError, r"X\[1\] must be a string"),
    ],
)
def test_what_is_wrong_in_a_frame_is_named(wrong, error, message):
    with pytest.raises(error, match=message):
        SPACE.decode(wrong())


def test_a_table_is_read_from_a_frame_as_from_its_file(tmp_path):
    values = [1.0 / 3.0, 2.0, float("nan"), 1e-17, 5.0]
    table = pandas.DataFrame({"arch": [net.spec for net in NETS], "error": values, "note": "x"})
    table.to_csv(tmp_path / "table.csv", index=False)
    settings = {"space": SPACE, "goal": "min"}
    ours = ht.objectives.Table(table, "error", **settings)
    theirs = ht.objectives.Table(tmp_path / "table.csv", "error", **settings)
    assert ours.sha256 == theirs.sha256
    assert ours.values.tolist() == theirs.values.tolist() == [values[k] for k in (0, 1, 3, 4)]
    assert ours(NETS[0]).value == values[0]
    with pytest.raises(TableError, match="DataFrame has no column 'eror'"):
        ht.objectives.Table(table, "eror", **settings)


def test_a_search_becomes_a_table_and_back():
    def objective(net):
        if net.spec.count("none") > 2:
            return float("nan")
        return {"error": 7.0 - net.spec.count("3x3"), "cost": net.spec.count("1x1") / 3.0}

    strategy = ht.search.RandomSearch(
        SPACE,
        generator=torch.Generator().manual_seed(1),
        objectives={"error": "minimize"},
        constraints=["cost <= 1"],
    )
    result = ht.search.run(strategy, objective, budget=12, progress=False)
    found = result.to_pandas()
    assert found["arch"].tolist() == [trial.network.spec for trial in result.trials]
    assert found["trial_failed"].tolist() == [trial.failed for trial in result.trials]
    assert found["error"].isna().tolist() == found["trial_failed"].tolist()
    table = ht.objectives.Table(found, "error", space=SPACE, goal="min")
    for trial in result.trials:
        if not trial.failed:
            assert table(trial.network).value == trial.value
            assert table(trial.network).metrics["cost"] == trial.outcome.metrics["cost"]
    assert ht.search.SearchResult(SPACE, (), "time").to_pandas().empty
