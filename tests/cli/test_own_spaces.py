"""Spaces and objectives of one's own on the command line."""

import sys

import pytest

from hotnas_torch.cli.main import main

SOURCE = """
from hotnas_torch import Cell, Network, spaces

def build(chosen):
    cell = Cell(("input", chosen["operation"], "output"), ((0, 1), (1, 2)))
    depth = chosen["depth"]
    return Network((cell,) * depth, (chosen["width"],) * depth, (1,) * depth)

space = spaces.Choices(
    {"operation": ["conv", "pool"], "depth": [1, 2, 3], "width": [16, 32, 64]}, build, name="mine"
)

def error(net):
    return float(sum(net.channels)) + (net.cells[0].ops[1] == "pool")

constant = 3
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
