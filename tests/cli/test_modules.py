"""The command line on models of one's own."""

import sys
from pathlib import Path

import pytest

from hotnas_torch.cli.main import main
from hotnas_torch.matrices import load_gram

MODELS = """
import torch
from torch import nn


def net(kernel, width):
    layers = [nn.Conv2d(3, width, kernel, device="meta"), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers), torch.empty(1, 3, 16, 16)


small, large = net(3, 8), lambda: net(7, 8)
same = net(3, 8)
broken = nn.Linear(3, 4, device="meta"), torch.empty(1, 5)
number = 3
models = {"small": small, "large": large, "same": same}


def fails():
    raise RuntimeError("no such weights")
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own_models.py"
    path.write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    return path


def test_gram_compares_the_models_of_a_file(models: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "gram.npz"
    assert main(["gram", "--modules", str(models), "--out", str(out), "--no-pictures"]) == 0
    assert "3 networks of any_network" in capsys.readouterr().out
    found = load_gram(out)
    assert found.networks == ["small", "large", "same"]
    assert found.distances[0, 2] == 0.0
    assert found.distances[0, 1] > 0.0


@pytest.mark.parametrize("where", ["own_models", "own_models.py"])
def test_compare_says_how_far_two_models_are(models: Path, where: str, capsys) -> None:
    assert main(["compare", f"{where}:small", f"{where}:large"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("HOTNN = 0.0")
    assert "state" in text
    assert main(["compare", f"{where}:small", f"{where}:same"]) == 0
    assert capsys.readouterr().out.startswith("HOTNN = 0.000000")
    options = ["--distance", "weisfeiler_lehman"]
    assert main(["compare", f"{where}:small", f"{where}:large", *options]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "own_models:small", "own_models:none"], "B: own_models has no 'none'"),
        (["compare", "own_models:small", "large"], "B: 'large' is no MODULE:NAME"),
        (["compare", "nothing:small", "own_models:large"], "A: cannot import nothing"),
        (["compare", "nothing.py:small", "own_models:large"], "A: nothing.py is no file"),
        (["compare", "own_models:small", "own_models:number"], "number must be a pair"),
        (["compare", "own_models:small", "own_models:broken"], "broken cannot be imported"),
        (["compare", "own_models:small", "own_models:fails"], "no such weights"),
        (["gram", "--modules", "nothing.py", "--out", "g.npz"], "nothing.py is no file"),
        (["gram", "--sample", "3", "--out", "g.npz"], "--space or --modules must be given"),
        (
            ["gram", "--modules", "own_models.py", "--space", "darts", "--out", "g.npz"],
            "--space or --modules must be given",
        ),
    ],
)
def test_what_is_no_model_is_refused_in_a_line(
    models: Path, arguments: list[str], message: str, capsys
) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert message in output.err
    assert not (models.parent / "g.npz").exists()


def test_a_file_without_models_is_refused(tmp_path: Path, capsys) -> None:
    path = tmp_path / "empty.py"
    path.write_text("models = {}\n", encoding="utf-8")
    assert main(["gram", "--modules", str(path), "--out", str(tmp_path / "g.npz")]) == 2
    assert "must have `models`, a dict of at least two" in capsys.readouterr().err
