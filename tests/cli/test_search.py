import re
import sys
import time

import pytest
import torch

from hotnas_torch import objectives, spaces
from hotnas_torch.cli.main import main
from hotnas_torch.plot.report import read_search
from hotnas_torch.search import RandomSearch, Storage, run

FAST = ["--strategy", "random", "--quiet"]
TINY = ["--epochs", "1", "--channels", "2", *FAST]


def pooling(data_dir, column="accuracy"):
    path = data_dir / "pooling-cifar10-resnet20" / "pooling36.csv"
    return ["search", "--table", "pooling", str(path), "--column", column]


def failed(capsys, arguments, code=2):
    assert main([str(argument) for argument in arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    return printed.err


def test_a_search_in_a_table_finds_its_best(tmp_path, capsys, data_dir):
    out = tmp_path / "pooling.sqlite"
    arguments = [*pooling(data_dir), "--out", str(out), "--strategy", "random"]
    assert main([*arguments, "--evaluations", "50"]) == 0
    printed = capsys.readouterr()
    assert "36 evaluations, the whole space" in printed.out
    assert re.search(r"best +7\.98833", printed.out)
    assert re.search(r"network +\[7,1,2\]", printed.out)
    assert "best 7.98833" in printed.err  # the progress bar
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pooling.html",
        "pooling.png",
        "pooling.sqlite",
    ]


def test_a_search_by_training_goes_on_where_it_was(tmp_path, capsys):
    out = str(tmp_path / "digits.sqlite")
    assert main(["search", "--out", out, "--evaluations", "2", "--no-pictures", *TINY]) == 0
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["digits.sqlite"]
    _, first = read_search(out)
    assert main(["search", "--out", out, "--evaluations", "3", "--resume", *TINY]) == 0
    _, second = read_search(out)
    assert second.trials[:2] == first.trials
    assert len(second.trials) == 3
    assert "test_accuracy" in second.best.outcome.metrics
    assert "exists; --resume" in failed(capsys, ["search", "--out", out, *TINY])
    other = failed(capsys, ["search", "--out", out, "--resume", "--seed", 1, *TINY])
    assert "another strategy: its 'seed' is 0, here it is 1" in other
    assert main(["search", "--out", out, "--overwrite", "--evaluations", "1", *TINY]) == 0
    assert len(read_search(out)[1].trials) == 1


def test_hotnas_is_the_default(tmp_path, data_dir):
    out = tmp_path / "p.sqlite"
    arguments = [*pooling(data_dir), "--out", str(out), "--quiet", "--no-pictures"]
    assert main([*arguments, "--evaluations", "6", "--initial", "4", "--pool", "9"]) == 0
    with Storage(out, read_only=True) as store:
        settings = store.identity["strategy"]
        assert len(store.trials(spaces.Pooling())) == 6
    assert (settings["strategy"], settings["num_initial"], settings["pool_size"]) == (
        "hotnas",
        4,
        9,
    )


def test_trainings_are_cut_short(tmp_path, capsys, data_dir):
    out = tmp_path / "levels.sqlite"
    table = data_dir / "nas-bench-201" / "nb201.csv.gz"
    arguments = ["search", "--table", "nasbench201", str(table), "--out", str(out)]
    arguments += ["--fidelity", "epochs=12,200", "--initial", "17"]
    columns = "cifar10_val_e12,cifar10_test"
    message = "--column must name a column per level of --fidelity, 2"
    assert message in failed(capsys, [*arguments, "--column", "cifar10_test"])
    assert main([*arguments, "--column", columns, "--trainings", "3.1"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"20 evaluations|19 evaluations", printed)
    assert re.search(r"epochs +200", printed)
    assert re.search(r'network +{"epochs": 200}', printed)
    assert "epochs" in out.with_suffix(".html").read_text()


def test_a_search_by_training_has_levels(tmp_path, capsys):
    out = str(tmp_path / "digits.sqlite")
    options = ["--fidelity", "epochs=1,2", "--channels", "2", "--evaluations", "3", "--quiet"]
    assert main(["search", "--out", out, "--no-pictures", *options]) == 0
    _, result = read_search(out)
    assert [trial.outcome.metrics["epochs"] for trial in result.trials] == [1, 1, 2]


def test_a_search_maximises_within_bounds(tmp_path, capsys, data_dir):
    out = tmp_path / "pooling.sqlite"
    arguments = [*pooling(data_dir), "--out", str(out), "--strategy", "random"]
    goal = ["--direction", "maximize", "--constraint", "accuracy >= 90"]
    assert main([*arguments, *goal, "--evaluations", "50"]) == 0
    assert "36 evaluations" in capsys.readouterr().out
    _, result = read_search(out)
    kept = [one.value for one in result.trials if one.outcome.metrics["accuracy"] >= 90.0]
    assert 0 < len(kept) < 36
    assert result.best.value == max(kept)
    page = (tmp_path / "pooling.html").read_text(encoding="utf-8")
    assert f"<td>accuracy &gt;= 90.0</td><td>{len(kept)} of 36</td>" in page


def test_a_search_has_several_objectives(tmp_path, capsys, data_dir):
    out = tmp_path / "nb201.sqlite"
    path = data_dir / "nas-bench-201" / "nb201.csv.gz"
    arguments = ["search", "--table", "nasbench201", str(path), "--out", str(out)]
    goal = ["--objectives", "cifar10_test:maximize", "params_M_cifar10", "--strategy", "nsga2"]
    assert main([*arguments, *goal, "--population", "5", "--evaluations", "15"]) == 0
    printed = capsys.readouterr().out
    _, result = read_search(out)
    assert result.goal.directions == ("maximize", "minimize")
    assert f"{len(result.front)} networks" in printed
    assert all(one.network.spec in printed for one in result.front)
    assert main(["report", str(out), "--overwrite"]) == 0
    assert f"{len(result.front)} on the front" in capsys.readouterr().out


def test_goals_that_make_no_sense_are_named_before_work(tmp_path, capsys):
    begin = ["search", "--out", str(tmp_path / "x.sqlite"), *FAST]
    assert "must be a text such as" in failed(capsys, [*begin, "--constraint", "params"])
    assert "'minimize' or 'maximize'; got 'up'" in failed(capsys, [*begin, "--objectives", "a:up"])
    several = [*begin[:3], "--strategy", "hotnas", "--objectives", "a", "b", "--acquisition", "ucb"]
    assert "acquisition must be 'log_nehvi'" in failed(capsys, several)
    assert not list(tmp_path.iterdir())


def test_time_may_be_the_budget(tmp_path, data_dir):
    arguments = [*pooling(data_dir), "--out", str(tmp_path / "p.sqlite"), "--no-pictures", *FAST]
    assert main([*arguments, "--minutes", "0.02"]) == 0
    assert 1 <= len(read_search(tmp_path / "p.sqlite")[1].trials) <= 36


def test_time_for_no_evaluation_is_said_and_can_be_given_later(tmp_path, capsys, data_dir):
    out = tmp_path / "p.sqlite"
    arguments = [*pooling(data_dir), "--out", out, *FAST]
    message = failed(capsys, [*arguments, "--minutes", "1e-7"])
    assert "--minutes: the time was over before the first evaluation" in message
    assert main([*map(str, arguments), "--resume", "--evaluations", "3"]) == 0
    assert len(read_search(out)[1].trials) == 3


def test_an_evaluation_that_hangs_counts_as_failed(tmp_path, data_dir, monkeypatch):
    lookup = objectives.PoolingTable.__call__

    def hangs_for_some(table, net):
        if net.spec.startswith("[8"):
            time.sleep(600)
        return lookup(table, net)

    monkeypatch.setattr(objectives.PoolingTable, "__call__", hangs_for_some)
    out = tmp_path / "limited.sqlite"
    arguments = [*pooling(data_dir), "--out", str(out), "--no-pictures", *FAST]
    assert main([*arguments, "--time-limit", "2"]) == 0
    _, result = read_search(out)
    hung = [trial for trial in result.trials if trial.network.spec.startswith("[8")]
    assert hung
    assert len(result.trials) == 36
    for trial in hung:
        assert "timeout 2 s" in trial.outcome.error


def test_an_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hotnas_torch.objectives.Training.__call__", interrupted)
    message = failed(capsys, ["search", "--out", tmp_path / "d.sqlite", *TINY], code=130)
    assert "d.sqlite; run it again with --resume" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--evaluations", "0"], "--evaluations must be at least 1"),
        (["--minutes", "-1"], "--minutes must be positive"),
        (["--minutes", "1e-9"], "--minutes must be positive"),
        (["--minutes", "nan"], "--minutes must be positive"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--channels", "0"], "--channels must be at least 1"),
        (["--column", "x"], "--column needs --table"),
        (["--population", "5"], "--population is an option of --strategy evolution"),
        (["--strategy", "random", "--pool", "5"], "--pool is an option of --strategy hotnas"),
        (["--initial", "1"], "--initial must be at least 2"),
        (["--table", "imagenet", "x.csv"], "--table FORMAT must be one of 'nasbench101'"),
        (["--table", "pooling", "nowhere.csv"], "cannot read the table nowhere.csv"),
        (["--table", "pooling", "x.csv", "--epochs", "3"], "--epochs is an option of training"),
        (["--strategy", "grid"], "invalid choice: 'grid'"),
        (["--fidelity", "epochs"], "--fidelity must be NAME=LEVELS such as epochs=12,200"),
        (["--fidelity", "epochs=9"], "--fidelity must be at least two numbers"),
        (["--fidelity", "epochs=2,x"], "levels[1] must be a number"),
        (["--fidelity", "share=1,2"], "--fidelity must be epochs=LEVELS for training"),
        (["--fidelity", "epochs=1,2", "--epochs", "3"], "in place of --epochs"),
        (["--fidelity", "epochs=0.5,2"], "for training, whole numbers"),
        (
            ["--fidelity", "epochs=1,2", "--strategy", "random"],
            "--fidelity is an option of --strategy hotnas",
        ),
        (["--trainings", "0"], "--trainings must be positive and finite; got 0"),
        (["--trainings", "3", "--shared"], "--trainings is no budget of a --shared search"),
        (["--trainings", "3", "--evaluations", "4"], "not allowed with argument"),
        (["--resume", "--overwrite"], "not allowed with argument"),
    ],
)
def test_wrong_options_are_named_before_any_work(tmp_path, capsys, options, message):
    out = tmp_path / "s.sqlite"
    assert message in failed(capsys, ["search", "--out", out, *options])
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written_are_named(tmp_path, capsys, data_dir):
    nowhere = tmp_path / "nowhere" / "s.sqlite"
    assert "folder that exists" in failed(capsys, [*pooling(data_dir), "--out", nowhere, "--quiet"])
    message = failed(capsys, [*pooling(data_dir), "--out", tmp_path / "s.html", "--quiet"])
    assert "choose another suffix" in message
    text = tmp_path / "notes.txt"
    text.write_text("name,value\n" * 50)
    message = failed(capsys, [*pooling(data_dir), "--out", text, "--resume", "--quiet"])
    assert "not a database" in message
    assert text.read_text() == "name,value\n" * 50


def test_a_report_of_its_own(tmp_path, capsys, data_dir):
    out = tmp_path / "p.sqlite"
    arguments = [*pooling(data_dir), "--out", str(out), "--evaluations", "5", "--no-pictures"]
    assert main([*arguments, *FAST]) == 0
    assert main(["report", str(out)]) == 0
    assert "5 evaluations, best" in capsys.readouterr().out
    assert (tmp_path / "p.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "add --overwrite" in failed(capsys, ["report", out])
    assert main(["report", str(out), "--overwrite"]) == 0
    assert main(["report", str(out), "--out", str(tmp_path / "other.html")]) == 0
    capsys.readouterr()
    assert "is the storage itself" in failed(capsys, ["report", out, "--out", out])
    assert "there is no storage file" in failed(capsys, ["report", tmp_path / "x.sqlite"])


@pytest.mark.parametrize("command", ["search", "report"])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"hotnas {command}" in capsys.readouterr().out.split("examples:")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--out", "."], "--out: . is a folder; name a file"),
        (
            ["search", "--out", "absent/s.sqlite"],
            "the folder absent does not exist",
        ),
        (["search", "--out", "/dev/null"], "no ordinary file"),
        (["search", "--out", "n" * 300], "name too long"),
        (["gram", "--space", "pooling", "--sample", "3", "--out", "."], "--out: . is a folder"),
        (["gram", "--space", "pooling", "--sample", "3", "--out", "file/a"], "cannot write file/a"),
        (["gram", "--space", "pooling", "--sample", "3", "--store", "file"], "file is no folder"),
        (["gram", "--space", "pooling", "--sample", "3", "--out", "a\0b"], "null byte"),
        (["compare", "[8,1,1]", "[1,1,8]", "--space", "pooling", "--out", "."], "is a folder"),
        (["report", "."], ". is a folder"),
        (
            ["bench", "search", "--data", "absent", "--out", "b"],
            "there is no folder absent",
        ),
        (["bench", "search", "--data", ".", "--out", "file"], "cannot make file"),
    ],
)
def test_no_path_ends_in_a_traceback(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert message in failed(capsys, arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_messages_are_in_the_terms_of_options(tmp_path, capsys, data_dir):
    out = tmp_path / "p.sqlite"
    arguments = [*pooling(data_dir), "--out", str(out), "--evaluations", "5", "--no-pictures"]
    assert main([*arguments, *FAST]) == 0
    capsys.readouterr()
    with Storage(out) as store:
        store.begin(store.identity)
        for more in (["--resume"], ["--overwrite"]):
            message = failed(capsys, [*arguments, *FAST, *more])
            assert "another search is writing" in message
            assert "--take-over" in message
            assert "True" not in message
        taking = [*arguments, *FAST, "--resume", "--take-over", "--evaluations", "6"]
        assert main(taking) == 0
    capsys.readouterr()


def test_a_report_of_a_space_of_ones_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    space = spaces.NASBench201(contract_skip=True)
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    run(strategy, lambda net: len(net.spec), budget=3, storage="own.sqlite", progress=False)
    assert "name it with --space MODULE:NAME" in failed(capsys, ["report", "own.sqlite"])
    (tmp_path / "mine_of_tests.py").write_text(
        "from hotnas_torch import spaces\n"
        "def make(): return spaces.NASBench201(contract_skip=True)\nspace = make()\n"
    )
    for name in ("space", "make"):
        named = ["report", "own.sqlite", "--overwrite", "--space", f"mine_of_tests:{name}"]
        assert main(named) == 0
    capsys.readouterr()
    for name in ("nowhere:space", "mine_of_tests:none", "mine_of_tests:spaces", "poolin"):
        message = failed(capsys, ["report", "own.sqlite", "--overwrite", "--space", name])
        assert "--space" in message


def test_help_says_what_there_is(capsys):
    for command, expected in (
        (["gram"], "nasbench101, nasbench201, transnas_macro"),
        (["bench", "search"], "nas-bench-201/nb201.csv.gz"),
        (["search"], "how often an evaluation"),
    ):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        assert expected in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_a_picture_that_was_there_before_is_not_overwritten(tmp_path, capsys, data_dir, suffix):
    mine = tmp_path / f"holiday.{suffix}"
    mine.write_text("mine")
    arguments = [*pooling(data_dir), "--out", tmp_path / "holiday.sqlite", *FAST]
    assert f"{mine} exists" in failed(capsys, arguments)
    assert mine.read_text() == "mine"
    assert main([*map(str, arguments), "--evaluations", "2", "--no-pictures"]) == 0


def test_a_seed_of_too_many_bits_is_refused(tmp_path, capsys, data_dir):
    for command in (
        [*pooling(data_dir), "--out", str(tmp_path / "s.sqlite")],
        ["gram", "--space", "pooling", "--sample", "3", "--out", str(tmp_path / "g.npz")],
    ):
        message = failed(capsys, [*command, "--seed", str(2**64)])
        assert "--seed: must be an integer of 64 bits" in message


@pytest.mark.parametrize("code", ["1 / 0", "space = (", "def space(size): pass"])
def test_a_module_that_fails_is_no_space(tmp_path, capsys, monkeypatch, data_dir, code):
    monkeypatch.chdir(tmp_path)
    name = f"broken_{len(code)}"
    (tmp_path / f"{name}.py").write_text(code)
    out = tmp_path / "s.sqlite"
    main([*pooling(data_dir), "--out", str(out), *FAST, "--evaluations", "2", "--no-pictures"])
    message = failed(capsys, ["report", out, "--space", f"{name}:space"])
    assert f"--space: cannot find {name}:space: " in message
