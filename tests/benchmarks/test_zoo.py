"""The benchmark of published models, on a few small ones that stand for them."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import zoo
from benchmarks.measuring.report import Unavailable
from benchmarks.measuring.workers import Processes
from benchmarks.measuring.zoo import computation_of, first_import, imported, second_import
from hotnas_torch.arch import Network
from hotnas_torch.distances import HOTNN
from hotnas_torch.importing import operation_tree, trace


def model(kernel: int, depth: int, width: int) -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, width, 1)]
    for _ in range(depth):
        parts += [nn.Conv2d(width, width, kernel, padding="same"), nn.ReLU()]
    return nn.Sequential(*parts)


@pytest.fixture
def settings(tmp_path: Path) -> zoo.Settings:
    """Twenty-four models of four families, already imported."""
    (tmp_path / "data" / "timm").mkdir(parents=True)
    (tmp_path / "cache" / "timm").mkdir(parents=True)
    rows = []
    for kernel in (3, 5, 7, 9):
        for depth in (1, 2, 3):
            for width in (16, 64):
                name = f"net{kernel}_{depth}_{width}"
                with torch.device("meta"):
                    found = trace(model(kernel, depth, width), torch.empty(1, 3, 8, 8))
                parameters = kernel**2 * width**2 * depth / 1e6
                top1 = 70.0 + kernel + depth
                rows.append([f"{name}.a_in1k", 224, top1, parameters])
                rows.append([f"{name}.b_in22k_ft_in1k", 224, 99.0, parameters])
                row = {
                    "name": name,
                    "module": f"timm.models.family{kernel}",
                    "computation": asdict(found),
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
        workers=1,
        cached=True,
        data=str(tmp_path / "data"),
        cache=str(tmp_path / "cache"),
    )


@pytest.mark.slow
@pytest.mark.ext
def test_models_are_compared_predicted_and_drawn(settings: zoo.Settings) -> None:
    report = zoo.run(settings)
    structure, none = report.rows("distances")[:2]
    assert structure["labels"] > none["labels"]
    assert all(0.0 <= row["neighbours"] <= 1.0 for row in (structure, none))
    rows = {(r["held_out"], r["method"]): r for r in report.rows("prediction")}
    ours = rows["models", "HOTNN x log parameters"]
    assert len(ours["surprise_folds"]) == 6
    assert ours["surprise"] < rows["models", "log parameters"]["surprise"]
    assert ours["spearman"] > 0.6
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


@pytest.mark.slow
@pytest.mark.ext
def test_granularities_are_compared(settings: zoo.Settings) -> None:
    several = replace(settings, granularities=(2, 28), numbers=("structure",), repeats=1)
    report = zoo.run(several)
    fine, coarse = report.rows("distances")
    assert (fine["granularity"], coarse["granularity"]) == (2, 28)
    assert fine["cells"] != coarse["cells"]
    methods = {row["method"] for row in report.rows("prediction")}
    assert {f"HOTNN of at most {n} operations x log parameters" for n in (2, 28)} <= methods


class _Branches(nn.Module):
    """Parts that are called in another order than they are declared in."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(8, 4, 3)
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last((self.left(x) + self.right(x)).relu())


def test_imports_are_kept_and_come_back_as_they_were(tmp_path: Path) -> None:
    def build(name: str) -> tuple[nn.Module, torch.Tensor]:
        if name == "none":
            raise RuntimeError("no such model")
        with torch.device("meta"):
            return _Branches(), torch.empty(1, 3, 16, 16)

    first = list(imported(["branches", "none"], build, tmp_path / "first", first_import))
    found = trace(*build("branches"))
    kept = list(imported(["branches", "none"], lambda _: 1 / 0, tmp_path / "first", first_import))
    assert kept == json.loads(json.dumps(first))
    assert computation_of(kept[0]).nodes == found.nodes
    assert kept[0]["built"] == kept[0]["parameters"] == found.parameters
    assert "no such model" in kept[1]["error"]
    (second,) = imported(["branches"], build, tmp_path / "second", second_import)
    assert second["turned"] == 1
    assert Network.from_json(second["network"]) == found.network()


def test_processes_find_the_same_matrix(settings: zoo.Settings) -> None:
    networks = [model.network for model in zoo._models(settings)]
    metric = HOTNN(tree=operation_tree())
    assert torch.equal(metric(networks, executor=Processes(2)), metric(networks))
