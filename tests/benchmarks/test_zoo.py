"""The benchmark of published models, on a few small ones that stand for them."""

import csv
import json
from pathlib import Path

import pytest
import torch

from benchmarks import zoo
from benchmarks.measuring.report import Unavailable
from hotnas_torch.arch import Cell, Network, Operation


def network(kernel: int, depth: int, width: int) -> Network:
    label = str(Operation("conv", kernel=kernel, positions=64, width=width))
    cell = Cell(("input", label, "relu[positions=64]", "output"), ((0, 1), (1, 2), (2, 3)))
    return Network.chain([cell] * depth, [width] * depth, [1] * depth)


@pytest.fixture
def settings(tmp_path: Path) -> zoo.Settings:
    """Twenty-four models of four families, already imported."""
    (tmp_path / "data" / "timm").mkdir(parents=True)
    (tmp_path / "cache" / "timm").mkdir(parents=True)
    rows = []
    for kernel in (1, 3, 5, 7):
        for depth in (1, 2, 3):
            for width in (16, 64):
                name = f"net{kernel}_{depth}_{width}"
                net = network(kernel, depth, width)
                parameters = kernel**2 * width**2 * depth / 1e6
                top1 = 70.0 + kernel + depth
                rows.append([f"{name}.a_in1k", 224, top1, parameters])
                rows.append([f"{name}.b_in22k_ft_in1k", 224, 99.0, parameters])
                row = {
                    "name": name,
                    "module": f"timm.models.family{kernel}",
                    "multiply_adds": int(parameters * 1e9),
                    "operations": 2 * depth,
                    "network": net.to_json(),
                }
                (tmp_path / "cache" / "timm" / f"{name}.json").write_text(json.dumps(row))
    with (tmp_path / "data" / "timm" / "results_imagenet_half.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "img_size", "top1", "params_M"])
        writer.writerows(rows)
    return zoo.Settings(
        numbers=("structure", "none"),
        folds=3,
        repeats=2,
        threads=1,
        cached=True,
        data=str(tmp_path / "data"),
        cache=str(tmp_path / "cache"),
    )


@pytest.mark.ext
def test_models_are_compared_predicted_and_drawn(settings: zoo.Settings) -> None:
    before = torch.get_num_threads()
    try:
        report = zoo.run(settings)
    finally:
        torch.set_num_threads(before)
    structure, none = report.rows("distances")
    assert structure["labels"] > none["labels"]
    assert all(0.0 <= row["neighbours"] <= 1.0 for row in (structure, none))
    rows = {(r["held_out"], r["method"]): r for r in report.rows("prediction")}
    ours = rows["models", "HOTNN x log parameters"]
    assert len(ours["surprise_folds"]) == 6
    assert ours["surprise"] < rows["models", "log parameters"]["surprise"]
    assert ours["spearman"] > 0.8
    assert max(row["top1"] for row in report.rows("map")) < 99.0
    assert zoo.draw(report).axes[0].get_title()


def test_families_are_held_out_as_a_whole(settings: zoo.Settings) -> None:
    models = zoo._models(settings)
    for held_out, _, _, train, test in zoo._divisions(models, settings):
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(models)))
        families = [{models[k].family for k in side.tolist()} for side in (train, test)]
        assert (held_out == "families") <= families[0].isdisjoint(families[1])


def test_too_few_models_are_said_to_be(settings: zoo.Settings, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="too few"):
        zoo.run(zoo.Settings(models=3, cached=True, data=settings.data, cache=settings.cache))
    with pytest.raises(Unavailable, match="is no folder"):
        zoo.run(zoo.Settings(data=str(tmp_path / "nothing")))
