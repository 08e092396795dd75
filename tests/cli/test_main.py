import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from hotnas_torch import distances, spaces
from hotnas_torch.cli import main as cli
from hotnas_torch.cli.main import main
from hotnas_torch.distances import HOTNN
from hotnas_torch.matrices import load_gram

PNG = b"\x89PNG"
NETWORKS = ["64-1234-basic", "64-41414-basic", "64-2311-basic", "64-111423-basic"]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "architectures.txt"
    path.write_text("# four networks\n\n" + "\n".join(NETWORKS) + "\n", encoding="utf-8")
    return path


def gram(listed, out, *options):
    return main(
        ["gram", "--space", "transnas_macro", "--file", str(listed), "--out", str(out), *options]
    )


def refused(capsys, arguments, message):
    """Bad input: exit code 2 and exactly one line on stderr, nothing on stdout."""
    assert main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1, output.err
    assert "error: " in output.err
    assert message in output.err


def test_gram_writes_distances_and_pictures(listed, tmp_path, capsys):
    out = tmp_path / "result" / "gram.npz"
    out.parent.mkdir()
    assert gram(listed, out) == 0
    output = capsys.readouterr()
    assert "networks: 100%" in output.err
    assert "4 networks of transnas_macro" in output.out
    for name in ("gram.npz", "gram-heatmap.png", "gram-tree.png"):
        assert str(out.parent / name) in output.out
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "gram-heatmap.png",
        "gram-tree.png",
        "gram.npz",
    ]
    assert (out.parent / "gram-tree.png").read_bytes().startswith(PNG)
    stored = load_gram(out)
    assert stored.networks == NETWORKS
    space = spaces.get("transnas_macro")
    networks = [space.from_string(text) for text in NETWORKS]
    expected = HOTNN(space=space, dtype=torch.float32)(networks)
    assert torch.equal(stored.distances, expected)


def test_options_reach_the_metric(listed, tmp_path):
    out = tmp_path / "gram.npz"
    options = ["--lam", "0.7", "--eps", "0.3", "--eta", "0.2", "--zeta", "0.1", "--mass", "uniform"]
    options += ["--pairs", "ordered", "--linear-term", "literal", "--raw-lengths"]
    options += ["--num-starts", "2", "--tol", "0.01", "--max-iter", "50", "--dtype", "float64"]
    assert gram(listed, out, "--quiet", "--no-pictures", "--threads", "1", *options) == 0
    settings = load_gram(out).meta["settings"]
    expected = {
        "space": "transnas_macro",
        "lam": 0.7,
        "eps": 0.3,
        "eta": 0.2,
        "zeta": 0.1,
        "mass": "uniform",
        "pairs": "ordered",
        "linear_term": "literal",
        "normalize": False,
        "num_starts": 2,
        "tol": 0.01,
        "max_iter": 50,
        "dtype": "float64",
    }
    assert {name: settings[name] for name in expected} == expected
    assert load_gram(out).distances.dtype == torch.float64


def test_the_preset_reaches_the_metric(listed, tmp_path):
    out = tmp_path / "gram.npz"
    assert gram(listed, out, "--quiet", "--no-pictures", "--preset", "paper") == 0
    settings = load_gram(out).meta["settings"]
    assert (settings["pairs"], settings["zeta"], settings["normalize"]) == ("ordered", 0.0, False)


def test_quiet_says_nothing(listed, tmp_path, capsys):
    assert gram(listed, tmp_path / "gram.npz", "--quiet", "--no-pictures") == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


@pytest.mark.parametrize(
    ("distance", "setting", "value"),
    [
        ("hotnn", "lam", 0.25),
        ("otmann", "penalty", 2.0),
        ("edit", "edge_cost", 0.5),
        ("tree_wasserstein", "grams", 2),
        ("weisfeiler_lehman", "aggregation", "histogram"),
        ("tests.matrices.own:Widths", "power", 2.0),
    ],
)
def test_every_distance_is_computed_by_its_name(listed, tmp_path, distance, setting, value):
    out = tmp_path / "gram.npz"
    named = ["--distance", distance, "--setting", f"{setting}={value}"]
    assert gram(listed, out, "--quiet", "--no-pictures", *named) == 0
    space = spaces.get("transnas_macro")
    networks = [space.from_string(text) for text in NETWORKS]
    expected = distances.get(distance, space=space, **{setting: value})
    found = load_gram(out)
    assert torch.equal(found.distances, expected(networks))
    assert found.meta["settings"][setting] == value
    if distance != "hotnn":
        assert found.meta["settings"]["distance"] == distances.kind(distance).name


def test_a_wrong_distance_is_one_line(listed, tmp_path, capsys):
    base = ["gram", "--space", "transnas_macro", "--file", listed, "--out", tmp_path / "g.npz"]
    refused(capsys, [*base, "--distance", "edti"], "--distance must be one of 'hotnn', 'otmann'")
    refused(capsys, [*base, "--distance", "nowhere:Mine"], "--distance: cannot find nowhere:Mine")
    edit = [*base, "--distance", "edit"]
    refused(capsys, [*edit, "--lam", "0.5"], "--lam is an option of HOTNN (pass what edit takes")
    refused(capsys, [*edit, "--raw-lengths"], "--raw-lengths is an option of HOTNN")
    refused(capsys, [*edit, "--task-gpus", "1"], "--task-gpus is an option of HOTNN")
    refused(capsys, [*edit, "--setting", "edge_cost"], "--setting must be NAME=VALUE")
    refused(capsys, [*edit, "--setting", "edge_cost=-1"], "edge_cost must be finite and >= 0")
    refused(capsys, [*base, "--setting", "lamm=1"], "no setting 'lamm' (did you mean 'lam'?)")
    assert list(tmp_path.glob("g.npz*")) == []


def test_compare_prints_the_parts_of_any_distance(tmp_path, capsys):
    arguments = ["compare", *NETWORKS[:2], "--space", "transnas_macro", "--distance"]
    assert main([*arguments, "tree_wasserstein"]) == 0
    first, *parts = capsys.readouterr().out.splitlines()
    space = spaces.get("transnas_macro")
    networks = [space.from_string(text) for text in NETWORKS[:2]]
    expected = distances.get("tree_wasserstein", space=space)(networks)[0, 1]
    assert first == f"TreeWasserstein = {expected:.6f}"
    assert [line.split()[0] for line in parts] == ["operations", "indegrees", "outdegrees"]
    refused(
        capsys,
        [*arguments, "edit", "--out", tmp_path / "c.png"],
        "--out: there is a picture of a coupling of HOTNN only",
    )


def test_a_device_that_is_not_there_is_refused(listed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    arguments = ["gram", "--space", "transnas_macro", "--file", listed]
    arguments += ["--out", tmp_path / "gram.npz", "--device", "cuda"]
    refused(capsys, arguments, "device 'cuda' needs a GPU")
    assert list(tmp_path.glob("gram*")) == []


def test_a_seed_draws_the_same_networks(tmp_path):
    names = []
    for run, seed in enumerate(("3", "3", "4")):
        out = tmp_path / f"{run}.npz"
        arguments = ["gram", "--space", "pooling", "--sample", "5", "--seed", seed]
        assert main([*arguments, "--out", str(out), "--quiet", "--no-pictures"]) == 0
        names.append(load_gram(out).networks)
    assert names[0] == names[1] != names[2]
    assert len(set(names[0])) == 5


def test_an_existing_file_needs_a_decision(listed, tmp_path, capsys):
    out = tmp_path / "gram.npz"
    assert gram(listed, out, "--quiet") == 0
    content = out.read_bytes()
    arguments = ["gram", "--space", "transnas_macro", "--file", listed, "--out", out]
    refused(capsys, arguments, f"{out} exists (add --resume")
    assert gram(listed, out, "--quiet", "--resume") == 0
    refused(capsys, [*arguments, "--resume", "--lam", "0.1"], "lam is 0.5 there and 0.1 here")
    assert out.read_bytes() == content
    assert gram(listed, out, "--quiet", "--overwrite", "--lam", "0.1") == 0
    assert out.read_bytes() != content
    out.unlink()
    refused(capsys, arguments, "gram-heatmap.png exists")


def test_an_interrupted_run_can_be_resumed(listed, tmp_path, capsys, monkeypatch):
    out, whole = tmp_path / "gram.npz", tmp_path / "whole.npz"
    assert gram(listed, whole, "--quiet", "--no-pictures") == 0

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "hotnas_torch.distances._tables.network_tables.NetworkTables.block", interrupt
    )
    assert gram(listed, out, "--quiet", "--no-pictures") == 130
    assert "gram.npz.partial" in capsys.readouterr().err
    monkeypatch.undo()
    arguments = ["gram", "--space", "transnas_macro", "--file", listed, "--out", out, "--quiet"]
    refused(capsys, [*arguments, "--no-pictures"], "holds an interrupted run")
    assert gram(listed, out, "--quiet", "--no-pictures", "--resume") == 0
    assert out.read_bytes() == whole.read_bytes()


def test_compare_prints_the_parts_and_draws(tmp_path, capsys):
    out = tmp_path / "compare.png"
    arguments = ["compare", NETWORKS[0], NETWORKS[1], "--space", "transnas_macro"]
    assert main([*arguments, "--out", str(out)]) == 0
    output = capsys.readouterr().out
    space = spaces.get("transnas_macro")
    networks = [space.from_string(text) for text in NETWORKS[:2]]
    distance = float(HOTNN(space=space, dtype=torch.float32)(networks)[0, 1])
    lines = output.splitlines()
    assert lines[0].startswith("HOTNN = ")
    assert float(lines[0].split(" = ")[1]) == pytest.approx(distance, abs=1e-5)
    parts = [float(line.split()[-1]) for line in lines[1:4]]
    assert sum(parts) == pytest.approx(distance, abs=1e-5)
    assert "iFGW of cell" in output
    assert out.read_bytes().startswith(PNG)
    assert main(arguments) == 0


def test_compare_of_equal_networks_is_0(capsys):
    assert main(["compare", NETWORKS[0], NETWORKS[0], "--space", "transnas_macro"]) == 0
    assert capsys.readouterr().out.startswith("HOTNN = 0.000000")


@pytest.mark.parametrize(
    "command", ["gram", "compare", "search", "report", "bench", "bench search"]
)
def test_help_has_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([*command.split(), "--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    examples = (
        text[text.index("examples:") :].partition("\n\n")[0].replace("\\\n", " ").splitlines()
    )
    examples = [
        f"hotnas {line.partition('hotnas ')[2]}" for line in examples if "  hotnas " in line
    ]
    assert examples
    import shlex

    for example in examples:
        arguments = cli._parser().parse_args(shlex.split(example, comments=True)[1:])
        assert arguments.command == command.split()[0]


def test_every_command_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.MULTILINE)
    assert commands == ["gram", "compare", "search", "report", "bench"]


def test_unknown_arguments_are_one_line(capsys):
    refused(capsys, [], "the following arguments are required: command")
    refused(capsys, ["draw"], "invalid choice: 'draw'")
    refused(capsys, ["gram", "--out", "x"], "one of the arguments --sample --file --modules")
    refused(capsys, ["gram", "--sample", "3", "--out", "x"], "--space or --modules")
    refused(capsys, ["gram", "--space", "pooling", "--out", "x"], "one of the arguments --sample")
    refused(
        capsys,
        ["gram", "--space", "pooling", "--sample", "many", "--out", "x"],
        "argument --sample: invalid int value: 'many'",
    )


def test_bad_input_is_refused_before_any_work(listed, tmp_path, capsys, monkeypatch):
    def work(*_, **__):
        raise AssertionError("work began")

    monkeypatch.setattr("hotnas_torch.distances._tables.cell_tables.CellTables.solve", work)
    out = tmp_path / "gram.npz"
    base = ["gram", "--out", out, "--space"]
    named = [*base, "transnas_macro", "--file"]
    refused(capsys, [*base, "mobilenet", "--sample", "3"], "--space must be one of")
    refused(capsys, [*base, "pooling", "--sample", "1"], "--sample must be at least 2; got 1")
    refused(capsys, [*base, "pooling", "--sample", "99"], "--sample must be at most 36")
    refused(capsys, [*base, "pooling", "--sample", "3", "--lam", "1.5"], "--lam must be in [0, 1]")
    refused(capsys, [*base, "pooling", "--sample", "3", "--threads", "0"], "--threads must be")
    pooling = ["gram", "--space", "pooling", "--sample", "3", "--out"]
    refused(capsys, [*pooling, tmp_path], "is a folder; name a file")
    refused(capsys, [*pooling, tmp_path / "absent" / "g.npz"], "--out: cannot write")
    refused(capsys, [*named, tmp_path / "absent.txt"], "--file: cannot read")
    bad = tmp_path / "bad.txt"
    bad.write_text(f"{NETWORKS[0]}\n# fine so far\n64-1934-basic\n", encoding="utf-8")
    refused(capsys, [*named, bad], f"--file: {bad}, line 3: ")
    bad.write_text(NETWORKS[0], encoding="utf-8")
    refused(capsys, [*named, bad], "holds 1 architecture(s); at least 2 needed")
    bad.write_bytes(b"\xff\xfe\x00")
    refused(capsys, [*named, bad], "is not UTF-8 text")
    assert not out.exists()
    compare = ["compare", NETWORKS[0], NETWORKS[1], "--space", "transnas_macro", "--out"]
    refused(capsys, [*compare, tmp_path / "picture.txt"], "must end in .png, .pdf or .svg")
    refused(capsys, [*compare, tmp_path / "absent" / "p.png"], "--out: cannot write")
    (tmp_path / "there.png").write_bytes(b"kept")
    refused(capsys, [*compare, tmp_path / "there.png"], "exists (add --overwrite")
    assert (tmp_path / "there.png").read_bytes() == b"kept"
    refused(
        capsys,
        ["compare", "64-1234-basic", "nonsense", "--space", "transnas_macro"],
        "B: 'nonsense'",
    )


def test_a_damaged_result_is_refused(listed, tmp_path, capsys):
    out = tmp_path / "gram.npz"
    assert gram(listed, out, "--quiet", "--no-pictures") == 0
    out.write_bytes(out.read_bytes()[:100])
    arguments = ["gram", "--space", "transnas_macro", "--file", listed, "--out", out, "--resume"]
    refused(capsys, [*arguments, "--no-pictures"], "is not a readable Gram file")


def test_a_gram_file_grows_and_takes_what_it_knows(listed, tmp_path, capsys):
    out, whole, few = tmp_path / "gram.npz", tmp_path / "whole.npz", tmp_path / "few.txt"
    few.write_text("\n".join(NETWORKS[:2]), encoding="utf-8")
    assert gram(listed, whole, "--quiet", "--no-pictures") == 0
    assert gram(few, out, "--quiet", "--no-pictures") == 0
    assert (
        gram(listed, tmp_path / "other.npz", "--quiet", "--no-pictures", "--known", str(out)) == 0
    )
    assert gram(listed, out, "--quiet", "--known", str(out)) == 0
    for path in (tmp_path / "other.npz", out):
        assert path.read_bytes() == whole.read_bytes()
    base = ["gram", "--space", "transnas_macro", "--file", listed, "--out", tmp_path / "new.npz"]
    refused(capsys, [*base, "--known", tmp_path / "no.npz"], "--known: there is nothing at")
    refused(capsys, [*base, "--known", listed], "is not a readable Gram file")
    refused(
        capsys, [*base, "--known", whole, "--lam", "0.1"], "holds other distances: lam is 0.5 there"
    )


def test_the_module_runs_as_a_program(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "hotnas_torch", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    assert result.stdout.startswith("hotnas_torch ")


def test_a_distance_matrix_can_be_read_without_the_library(listed, tmp_path):
    out = tmp_path / "gram.npz"
    assert gram(listed, out, "--quiet", "--no-pictures") == 0
    with np.load(out, allow_pickle=False) as archive:
        assert archive["distances"].shape == (4, 4)
        assert list(archive["networks"]) == NETWORKS
