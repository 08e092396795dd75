"""The command line on models of one's own."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import hotnas_torch as ht
from hotnas_torch.cli.main import main
from hotnas_torch.errors import GramFileError
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
    assert "3 models of own_models.py in" in capsys.readouterr().out
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
        (
            ["compare", "own_models:small", "own_models:none"],
            "B: own_models has no 'none', and its `models` has small, large, same",
        ),
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


STEPS = """
import torch
from torch import nn


class Branching(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = (nn.Linear(4, width, device="meta") for _ in range(2))

    def forward(self, x):
        return self.first(x) if x.sum() > 0 else self.second(x)


plain = nn.Conv2d(3, 8, 3, device="meta")
image = torch.empty(1, 3, 16, 16)
"""


OCTAVES = """
import torch
from torch import nn


def net(width, stride):
    layers = [nn.Conv2d(3, width, 3, stride), nn.ReLU(), nn.Conv2d(width, 2 * width, 1)]
    return nn.Sequential(*layers).to("meta"), torch.empty(1, 3, 32, 32, device="meta")


with torch.device("meta"):
    models = {f"{w} {s}": net(w, s) for w, s in ((8, 1), (64, 2), (16, 8))}
"""
"""Models of several widths and strides, which distances see through the states of cells."""


def test_the_command_line_and_every_way_in_python_have_one_distance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "octaves.py"
    models.write_text(OCTAVES, encoding="utf-8")
    listed = runpy.run_path(str(models))["models"]
    networks = [ht.from_module(*model) for model in listed.values()]
    tree = ht.importing.operation_tree()
    expected = ht.HOTNN(tree=tree)(networks)
    anywhere = ht.HOTNN(space=ht.spaces.AnyNetwork(tree))
    assert torch.equal(anywhere(networks), expected)
    own = ht.HOTNN(
        tree=ht.importing.operation_tree({"my_scan": ht.importing.Kind("my_scan", "recurrence")})
    )
    assert torch.equal(own(networks), expected)
    again = ht.OperationTree.from_json(tree.to_json())
    assert torch.equal(ht.HOTNN(tree=again)(networks), expected)
    states = ht.HOTNN(tree=tree, zeta=0.0)(networks)
    assert not torch.equal(states, expected)  # the default is one that can be told from none
    out = tmp_path / "gram.npz"
    assert main(["gram", "--modules", str(models), "--out", str(out), "--no-pictures"]) == 0
    found = load_gram(out)
    assert found.networks == ["8 1", "64 2", "16 8"]
    assert torch.equal(found.distances, expected)
    capsys.readouterr()
    assert main(["compare", f"{models}:8 1", f"{models}:16 8"]) == 0
    assert capsys.readouterr().out.startswith(f"HOTNN = {float(expected[0, 2]):.6f}")


def test_compare_finds_the_models_that_gram_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = "{'plain': (plain, image), 'wide one': (nn.Conv2d(3, 64, 5, device='meta'), image)}"
    for name, text in (("dicts.py", listed), ("functions.py", f"lambda: {listed}")):
        Path(name).write_text(f"{STEPS}\nmodels = {text}\n", encoding="utf-8")
    # The module `plain` of the file has no inputs; the pair that `models` lists does.
    assert main(["compare", "dicts.py:plain", "dicts.py:wide one"]) == 0
    found = capsys.readouterr().out
    Path("functions.py").write_text(
        f"{STEPS}\ndef models():\n    return {listed.replace('plain', 'thin', 1)}\n",
        encoding="utf-8",
    )
    assert main(["compare", "functions.py:thin", "functions.py:wide one"]) == 0
    assert capsys.readouterr().out == found


@pytest.mark.filterwarnings("default")
def test_what_is_said_about_a_model_of_several_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row = "torch.empty(2, 4)"
    path = Path("several.py")
    listed = (
        f"'good': (plain, image), 'steps': (Branching(8), {row}), 'also': (Branching(4), {row})"
    )
    path.write_text(f"{STEPS}\nmodels = {{{listed}}}\n", encoding="utf-8")
    options = ["gram", "--modules", "several.py", "--no-pictures", "--quiet", "--out"]
    assert main([*options, "g.npz"]) == 0
    lines = capsys.readouterr().err.splitlines()
    for name, line in zip(("steps", "also"), lines, strict=True):
        assert f"--modules: models['{name}']: the module itself (Branching) depends on" in line
    path.write_text(f"{STEPS}\nmodels = {{{listed}, 'my net': plain}}\n", encoding="utf-8")
    assert main([*options, "h.npz"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--modules: models['my net'] must be a pair" in said
    assert "got Conv2d" in said


def test_a_file_without_models_is_refused(tmp_path: Path, capsys) -> None:
    path = tmp_path / "empty.py"
    path.write_text("models = {}\n", encoding="utf-8")
    assert main(["gram", "--modules", str(path), "--out", str(tmp_path / "g.npz")]) == 2
    assert "must have `models`, a dict of at least two" in capsys.readouterr().err


def test_a_model_that_changed_under_its_name_is_not_taken_from_an_earlier_result(
    tmp_path: Path,
) -> None:
    def network(kernel: int, name: str) -> ht.Network:
        with torch.device("meta"):
            model = nn.Conv2d(3, 8, kernel), torch.empty(1, 3, 32, 32)
        return replace(ht.from_module(*model), spec=name)

    def gram(nets: list[ht.Network], out: str, known: str | None = None) -> torch.Tensor:
        hotnn = ht.HOTNN(space=ht.spaces.AnyNetwork(ht.importing.operation_tree()))
        path = None if known is None else tmp_path / known
        if out.endswith(".npz"):
            return hotnn.gram(nets, out=tmp_path / out, progress=False, known=path)
        return hotnn.gram_store(nets, tmp_path / out, progress=False, known=path).tensor()

    small, large, third = network(3, "small"), network(5, "large"), network(7, "third")
    for earlier in ("a.npz", "a.zarr"):
        gram([small, large], earlier)
        grown = gram([third, large, small], f"grown of {earlier}.npz", earlier)
        assert torch.equal(grown, gram([third, large, small], f"anew {earlier}.npz"))
        with pytest.raises(GramFileError, match=r"known: .* one of its names was that of another"):
            gram([small, network(9, "large")], f"changed of {earlier}.npz", earlier)
        with pytest.raises(GramFileError, match=r"known: .* also holds 'large', without which"):
            gram([small, third], f"less of {earlier}.npz", earlier)
        with pytest.raises(GramFileError, match="known: two networks are called 'small'"):
            gram([small, large, network(7, "small")], f"twice of {earlier}.npz", earlier)
    plain = [replace(net, spec="") for net in (small, large, third)]
    gram(plain[:2], "unnamed.npz")
    gram(plain[1:], "unnamed, less.npz", "unnamed.npz")
