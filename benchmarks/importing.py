"""Which published models can be imported, at what cost, and are their parameters counted right?"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.tables import published
from benchmarks.measuring.zoo import (
    TRANSFORMERS,
    computation_of,
    first_import,
    imported,
    published_models,
    second_import,
    timm_model,
    transformer_model,
)
from hotnas_torch.arch import Network
from hotnas_torch.distances import HOTNN
from hotnas_torch.importing import operation_tree

__all__ = ["ON_REQUEST", "QUICK", "Settings", "run"]

ON_REQUEST = "needs timm and transformers, and builds some hundred models"


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        models: Of timm's table, drawn at random; 0 takes all.
        transformers: Of the models of transformers; 0 takes all.
        twice: Of either, built and imported once more, their parts declared in the opposite order;
            0 takes all.
        data: Folder of published tables; None looks for it.
        cache: Folder that keeps what was imported; a further run goes on from there.
        seed: Of the draw.
    """

    models: int = 0
    transformers: int = 0
    twice: int = 0
    data: str | None = None
    cache: str = "runs/zoo"
    seed: int = 0


QUICK = Settings(models=10, transformers=3, twice=3)


def run(settings: Settings) -> Report:
    """Import models and count."""
    models = published_models(published(settings.data))
    # In random order, so that what an interrupted run leaves is a fair sample.
    models = random.Random(settings.seed).sample(models, len(models))
    models = models[: settings.models or len(models)]
    by_name = {model.name: model for model in models}
    cache = Path(settings.cache)
    sources = {
        "timm": (list(by_name), lambda name: timm_model(by_name[name])),
        "transformers": (
            TRANSFORMERS[: settings.transformers or len(TRANSFORMERS)],
            transformer_model,
        ),
    }
    report = Report()
    for title, (names, build) in sources.items():
        rows = list(imported(names, build, cache / title, first_import))
        known = [row["name"] for row in rows if "computation" in row]
        again = imported(
            known[: settings.twice or len(known)], build, cache / f"{title} again", second_import
        )
        seconds = {row["name"]: row for row in again}
        metric = HOTNN(tree=operation_tree())
        for row in rows:
            built = row.get("built", 0) / 1e6
            row["published"] = by_name[row["name"]].parameters if title == "timm" else built
            if row["name"] in seconds:
                second = seconds[row["name"]]
                row["turned"] = second.get("turned")
                if "network" in second:
                    row["again"] = float(
                        metric(
                            [computation_of(row).network()], [Network.from_json(second["network"])]
                        )
                    )
                else:
                    row["error"] = f"imported once, not again: {second['error']}"
        report.tables.append(_table(title, rows))
        report.claims += _claims(title, rows)
    return report


def _table(name: str, rows: Iterable[dict[str, Any]]) -> Table:
    return Table(
        name,
        f"Models of {name}: parameters in millions, multiply-adds in billions; distance of the same"
        " model built again, its parts declared in the opposite order",
        (
            Column("name", "model"),
            Column("seconds", "s", number(2)),
            Column("processor", "processor s", number(2)),
            Column("parameters", "parameters", number(4)),
            Column("published", "published", number(4)),
            Column("multiply_adds", "multiply-adds", number(4)),
            Column("operations", "operations", number(4)),
            Column("cells", "cells", number()),
            Column("distinct", "distinct", number()),
            Column("again", "again", number(2)),
            Column("note", "note"),
        ),
        [
            {
                **{key: value for key, value in row.items() if key != "computation"},
                "parameters": row["parameters"] / 1e6 if "parameters" in row else None,
                "multiply_adds": row["multiply_adds"] / 1e9 if "multiply_adds" in row else None,
                "note": row.get("error") or "; ".join(row["lost"] + sorted(set(row["warnings"]))),
            }
            for row in rows
        ],
    )


def _claims(name: str, rows: list[dict[str, Any]]) -> list[Claim]:
    done = [row for row in rows if "computation" in row]
    again = [row["again"] for row in rows if "again" in row]
    right = [abs(r["parameters"] / 1e6 / r["published"] - 1) < 5e-3 for r in done]
    return [
        Claim(f"{name}: share imported", ">=", 0.98, len(done) / len(rows)),
        Claim(
            f"{name}: median processor seconds",
            "<=",
            3.0,
            float(np.median([row["processor"] for row in done])),
        ),
        Claim(f"{name}: GiB at the peak", "<=", 2.0, max(r["peak"] for r in done) / 2**30),
        Claim(f"{name}: share with parameters within 0.5 %", ">=", 0.95, float(np.mean(right))),
        Claim(f"{name}: largest distance of the same model again", "<=", 0.0, max(again)),
    ]
