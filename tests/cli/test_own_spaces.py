"""Spaces and objectives of one's own on the command line."""

import sys

import pytest

from hotnas_torch.cli.main import main

SOURCE = """
from hotnas_torch import Cell, Network, spaces
from hotnas_torch.objectives import Evaluation

def build(chosen):
    cell = Cell(("input", chosen["operation"], "output"), ((0, 1), (1, 2)))
    depth = chosen["depth"]
    return Network((cell,) * depth, (chosen["width"],) * depth, (1,) * depth)

space = spaces.Choices(
    {"operation": ["conv", "pool"], "depth": [1, 2, 3], "width": [16, 32, 64]}, build, name="mine"
)

def error(net):
    return float(sum(net.channels)) + (net.cells[0].ops[1] == "pool")

def by_name(net):
    return {"error": float(sum(net.channels)), "size": len(net.cells), "latency": 2.0}

def in_order(net):
    return [float(sum(net.channels)), len(net.cells), 2.0]

def record(net):
    channels = float(sum(net.channels))
    return Evaluation(channels, {"error": channels, "size": 1, "latency": 2})

constant = 3

def mine(space, *, generator, **goal):
    from hotnas_torch.search import MutationSearch
    return MutationSearch(space, generator=generator, num_initial=2, **goal)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module of one's own, in which commands are called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine_on_the_command_line.py").write_text(SOURCE)
    yield tmp_path
    sys.modules.pop("mine_on_the_command_line", None)


NAME = "mine_on_the_command_line"
SEARCH = ["search", "--strategy", "random", "--evaluations", "5", "--out", "own.sqlite"]


def test_a_search_a_report_and_a_matrix(here, capsys):
    own = ["--space", f"{NAME}.py:space", "--objective", f"{NAME}:error"]
    assert main([*SEARCH, *own, "--no-pictures"]) == 0
    assert "5 evaluations" in capsys.readouterr().out
    again = ["--evaluations", "7", "--resume", "--quiet", "--no-pictures"]
    assert main([*SEARCH, *own, *again]) == 0
    assert main(["report", "own.sqlite", "--space", f"{NAME}:space"]) == 0
    assert "7 evaluations" in capsys.readouterr().out
    assert main(["gram", "--space", f"{NAME}:space", "--sample", "4", "--out", "g.npz"]) == 0
    texts = ["operation=conv,depth=1,width=16", "operation=pool,depth=3,width=64"]
    assert main(["compare", *texts, "--space", f"{NAME}.py:space"]) == 0


def test_workers_find_an_objective_of_the_folder(here):
    own = ["--space", f"{NAME}.py:space", "--objective", f"{NAME}.py:error", "--workers", "2"]
    assert main([*SEARCH, *own, "--no-pictures", "--quiet"]) == 0


def test_a_table_of_ones_own(here, capsys):
    lines = ["arch,accuracy"]
    lines += [f'"operation=conv,depth={d},width={w}",{d * w}' for d in (1, 2) for w in (16, 64)]
    (here / "values.csv").write_text("\n".join(lines) + "\n")
    table = ["--table", "csv", "values.csv", "--column", "accuracy", "--space", f"{NAME}:space"]
    assert main([*SEARCH, *table, "--goal", "min", "--no-pictures"]) == 0
    assert "4 evaluations, the whole space" in capsys.readouterr().out


OWN = ["--space", f"{NAME}:space", "--objective", f"{NAME}:error", "--no-pictures"]


def searched(out, *options):
    return ["search", "--evaluations", "5", "--out", out, *OWN, *options]


@pytest.mark.parametrize(
    "strategy",
    [
        ["local_search", "--set", "full_neighborhood=true", "--initial", "2"],
        ["mutation", "--initial", "3", "--set", "num_parents=2"],
        [f"{NAME}:mine"],
        [f"{NAME}.py:mine", "--direction", "maximize"],
        pytest.param(["nas_bowl", "--initial", "3", "--pool", "5"], marks=pytest.mark.slow),
    ],
)
def test_any_strategy_can_be_named(here, capsys, strategy):
    assert main(searched("a.sqlite", "--strategy", *strategy)) == 0
    assert "5 evaluations" in capsys.readouterr().out


def test_what_is_known_and_what_goes_first(here, capsys):
    text = "operation=conv,depth=1,width=16"
    assert main(searched("a.sqlite", "--strategy", "random", "--first", text)) == 0
    assert "best      16 (evaluation 1)" in capsys.readouterr().out
    assert main(searched("b.sqlite", "--strategy", "random", "--prior", "a.sqlite")) == 0
    assert "best      16 (known before)" in capsys.readouterr().out


def test_a_file_is_joined_and_left_by_several_commands(here, capsys):
    for evaluations in ("5", "7"):
        shared = ["--strategy", "random", "--shared", "--evaluations", evaluations]
        assert main(searched("s.sqlite", *shared)) == 0
    assert "7 evaluations" in capsys.readouterr().out
    assert main(searched("s.sqlite", "--strategy", "random", "--resume")) != 0
    assert "several processes share: add --shared to join it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategy", "mutation", "--set", "nothing=1"], "that has no option or was not given"),
        (["--strategy", "mutation", "--set", "num_parents"], "--set must be NAME=VALUE"),
        (["--strategy", "mutation", "--set", "num_parents=x"], "num_parents must be an integer"),
        (["--strategy", "hotnas", "--set", "model=x"], "--set must be NAME=VALUE"),
        (["--strategy", f"{NAME}:constant"], "must be a class or function; got 3"),
        (["--strategy", f"{NAME}:error"], "--strategy"),
        (["--strategy", "tree_search", "--minutes", "1"], "add --set budget=N"),
        (["--first", "nothing"], "nothing"),
        (["--prior", "absent.sqlite"], "there is no storage file absent.sqlite"),
        (["--shared", "--overwrite"], "--overwrite would replace"),
        (["--shared", "--batch", "2"], "--batch is for searches in batches"),
    ],
)
def test_settings_that_cannot_be_are_named_before_work(here, capsys, options, message):
    if "--minutes" in options:
        arguments = ["search", "--out", "a.sqlite", *OWN, *options]
    else:
        arguments = searched("a.sqlite", *options)
    assert main(arguments) != 0
    assert message in capsys.readouterr().err
    assert not (here / "a.sqlite").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--space", f"{NAME}:space"], "--space needs --objective, or --table csv"),
        (["--objective", f"{NAME}:error"], "--objective needs --space"),
        (["--table", "csv", "v.csv", "--column", "a"], "--table csv needs --space"),
        (["--table", "csv", "v.csv", "--space", f"{NAME}:space"], "--table csv needs --column"),
        (["--space", f"{NAME}:nothing", "--objective", f"{NAME}:error"], "--space: cannot find"),
        (["--space", f"{NAME}:constant", "--objective", f"{NAME}:error"], "make one; got 3"),
        (["--space", f"{NAME}:space", "--objective", f"{NAME}:none"], "has no attribute 'none'"),
        (["--space", f"{NAME}:space", "--objective", f"{NAME}:constant"], "must be a function"),
        (["--space", f"{NAME}:space", "--objective", "error"], "--objective must be MODULE:NAME"),
        (["--space", f"{NAME}:space", "--objective", f"{NAME}:error", "--epochs", "3"], "--epochs"),
        (["--goal", "min"], "--goal is an option of --table csv"),
        (
            ["--table", "pooling", "v.csv", "--objective", f"{NAME}:error"],
            "--objective and --table both",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(here, capsys, options, message):
    assert main([*SEARCH, *options]) != 0
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["by_name", "in_order", "record"])
def test_a_function_returns_several_numbers(here, capsys, name):
    own = ["--space", f"{NAME}.py:space", "--objective", f"{NAME}:{name}", "--no-pictures"]
    assert main([*SEARCH, *own, "--objectives", "error", "size", "--constraint", "latency<=6"]) == 0
    assert "networks" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["by_name", "error"])
def test_a_function_returns_one_number_that_has_a_name(here, capsys, name):
    own = ["--space", f"{NAME}.py:space", "--objective", f"{NAME}:{name}", "--no-pictures"]
    assert main([*SEARCH, *own, "--objectives", "error"]) == 0
    assert "error" in capsys.readouterr().out


def test_a_csv_file_is_known_before(here, capsys):
    (here / "known.csv").write_text(
        'arch,accuracy\n"operation=conv,depth=1,width=16",0.5\n'
        '"operation=pool,depth=3,width=64",99999\n'
    )
    own = ["--space", f"{NAME}.py:space", "--objective", f"{NAME}:error", "--no-pictures"]
    own += ["--prior", "known.csv"]
    assert main([*SEARCH, *own]) == 2
    assert "--prior known.csv must have the strings of networks in a column 'arch' and" in (
        capsys.readouterr().err
    )
    assert main([*SEARCH, *own, "--objectives", "accuracy:maximize"]) == 0
    assert "99999 (known before)" in capsys.readouterr().out


def test_a_search_in_the_other_direction_is_not_known_before(here, capsys):
    own = ["--space", f"{NAME}.py:space", "--objective", f"{NAME}:error", "--no-pictures"]
    assert main([*SEARCH, *own]) == 0
    other = ["search", "--strategy", "random", "--out", "other.sqlite", "--prior", "own.sqlite"]
    assert main([*other, *own, "--direction", "maximize"]) == 2
    assert "--prior own.sqlite must maximize 'value', as this search does" in (
        capsys.readouterr().err
    )
    assert not (here / "other.sqlite").exists()
