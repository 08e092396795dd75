"""
A zoo of published models
=========================

All models of timm that were trained on ImageNet-1k alone, imported and compared by HOTNN. Drawn
from stored results: ``python -m benchmarks zoo`` computes them anew, distances in two minutes of
a processor.
"""

import json
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt

import hotnas_torch as ht

# %%
checkout = Path(ht.__file__).resolve().parents[1]
stored = json.loads((checkout / "benchmarks/results/zoo/zoo.json").read_text("utf-8"))
models = stored["tables"]["map"]
(found,) = stored["tables"]["distances"]
print(f"{len(models)} models, {found['cells']} distinct cells, {found['processor']:.0f} s")

# %%
# A point is a model, near others that are alike. Nobody named the families, module files of timm,
# to the distance.

count = Counter(model["family"] for model in models)
figure, axes = plt.subplots(figsize=(8, 6))
axes.scatter(*zip(*((m["x"], m["y"]) for m in models), strict=True), s=12, color="#bbbbbb")
for number, (family, _) in enumerate(count.most_common(10)):
    points = [(m["x"], m["y"]) for m in models if m["family"] == family]
    axes.scatter(*zip(*points, strict=True), s=26, color=f"C{number}", label=family)
axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
axes.set_axis_off()
figure.tight_layout()

# %%
# The nearest other model is mostly one of the family.

family = {model["model"]: model["family"] for model in models}
paired = [m for m in models if count[m["family"]] > 1]
same = sum(family[m["nearest"]] == m["family"] for m in paired)
print(f"of its family for {same} of {len(paired)} models that have relatives")
for model in models[:: len(models) // 6]:
    print(f"  {model['model']:32} is nearest to {model['nearest']}")

# %%
# How well the top-1 of held-out models is predicted, by a Gaussian process of the distance and by
# what people count: rank correlations, and their standard errors.

rows = [row for row in stored["tables"]["prediction"] if row["held_out"] == "models"]
rows.sort(key=lambda row: row["spearman"])
figure, axes = plt.subplots(figsize=(8, 4))
colours = ["#C8553D" if row["method"].startswith("HOTNN") else "#9bb0d1" for row in rows]
axes.barh(
    [row["method"] for row in rows],
    [row["spearman"] for row in rows],
    xerr=[row["spearman_error"] for row in rows],
    color=colours,
)
axes.set_xlim(0.6, 1.0)
axes.set_xlabel("rank correlation with the top-1 of held-out models")
figure.tight_layout()
