import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from scipy.cluster.hierarchy import linkage, to_tree
from scipy.spatial.distance import squareform

from hotnas_torch.nn import (
    LearnedHierarchySearch,
    LearnedHierarchySettings,
    PoolingSupernet,
    SupernetSettings,
    digits,
)
from hotnas_torch.spaces import Pooling

DATA = digits(generator=torch.Generator().manual_seed(0), num_train=80, num_validation=80)
FEW = SupernetSettings(epochs=2, batch_size=40)
SETTINGS = LearnedHierarchySettings(pretraining=FEW, search=replace(FEW, num_final=2))
NETS = list(Pooling())


def searching(folder=None, seed=0, settings=SETTINGS, make=None):
    return LearnedHierarchySearch(
        make or (lambda g: PoolingSupernet(width=0.125, input_channels=1, generator=g)),
        NETS,
        DATA,
        settings,
        generator=torch.Generator().manual_seed(seed),
        folder=folder,
    )


def test_the_tree_clusters_the_outputs_of_the_pretrained_supernet():
    search = searching()
    with pytest.raises(RuntimeError, match="no tree before"):
        _ = search.tree
    search.run(progress=False)
    supernet = search.pretraining.supernet
    with torch.no_grad():
        p = torch.stack([supernet(DATA.validation.images, net).softmax(dim=-1) for net in NETS])
    # Symmetrised Kullback-Leibler divergence, pair by pair.
    expected = torch.tensor(
        [[0.5 * ((a - b) * (a.log() - b.log())).sum(dim=-1).mean() for b in p] for a in p]
    )
    found = search.distances().float()
    assert torch.allclose(found, expected, atol=1e-5)
    links = linkage(squareform(found.double().numpy(), checks=False), "average")
    root = to_tree(links)
    parts = {frozenset(side.pre_order()) for side in (root.left, root.right)}
    tree = search.tree
    assert {frozenset(tree.below(child).tolist()) for child in tree.children(0)} == parts
    assert search.search is not None
    assert search.search.sampler.tree is tree


def test_the_search_starts_from_fresh_weights():
    search = searching()
    search.run(progress=False)
    assert search.search is not None
    first, second = (one.supernet.state_dict() for one in (search.pretraining, search.search))
    assert all(not torch.equal(first[name], second[name]) for name in first if "weight" in name)
    assert len(search.pretraining.epochs) == len(search.search.epochs) == 2


def test_settings_reach_the_tree_and_the_sampler():
    settings = replace(
        SETTINGS, linkage="ward", check_euclidean=False, initial=None, exploration=0.1, beta=0.5
    )
    search = searching(settings=settings)
    search.run(progress=False)
    links = linkage(squareform(search.distances().double().numpy(), checks=False), "ward")
    assert float(search.tree.height[0]) == pytest.approx(links[-1, 2])
    assert search.search is not None
    found = search.search.sampler.settings()
    assert (found["initial"], found["exploration"], found["beta"]) == (None, 0.1, 0.5)


class Interruption(Exception):
    pass


@pytest.mark.parametrize("after", range(6))
def test_a_continuation_equals_the_uninterrupted_search(after, tmp_path, monkeypatch):
    """Killed after each write: two epochs, the tree, two epochs; and before the first."""
    from hotnas_torch.hierarchy import tree
    from hotnas_torch.nn.supernets import checkpoint

    whole = searching()
    expected = whole.run(progress=False)
    writes = []

    def write(path, content, original=checkpoint.write_bytes):
        if len(writes) == after:
            raise Interruption
        original(path, content)
        writes.append(path.name)

    monkeypatch.setattr(checkpoint, "write_bytes", write)
    monkeypatch.setattr(tree, "write_bytes", write)
    folder = tmp_path / "run"
    with pytest.raises(Interruption) if after < 5 else nullcontext():
        searching(folder).run(progress=False)
    monkeypatch.undo()
    # With what was written, another generator changes nothing.
    resumed = searching(folder, seed=7 if after else 0)
    assert resumed.run(progress=False) == expected
    assert resumed.search is not None
    assert whole.search is not None
    assert resumed.pretraining.epochs == whole.pretraining.epochs
    assert resumed.search.epochs == whole.search.epochs
    for name, value in whole.search.supernet.state_dict().items():
        assert torch.equal(value, resumed.search.supernet.state_dict()[name])
    assert torch.equal(resumed.tree.parent, whole.tree.parent)
    assert sorted(file.name for file in folder.iterdir()) == [
        "pretraining.pt",
        "search.pt",
        "tree.npz",
    ]


def test_a_folder_of_another_search_is_refused(tmp_path):
    searching(tmp_path).run(progress=False)
    other = replace(SETTINGS, pretraining=replace(FEW, epochs=3))
    with pytest.raises(ValueError, match="another search: its settings"):
        searching(tmp_path, settings=other)
    other = replace(SETTINGS, exploration=0.1)
    with pytest.raises(ValueError, match="another search: its sampler"):
        searching(tmp_path, settings=other).run(progress=False)


def test_settings_are_checked_and_ready_for_json():
    for options, message in (
        ({"num_images": 0}, "num_images must be at least 1"),
        ({"beta": 1.0}, r"beta must be in \[0, 1\)"),
        ({"exploration": -0.1}, "exploration must be finite and >= 0"),
        ({"measure": "cosine"}, "measure must be"),
    ):
        with pytest.raises(ValueError, match=message):
            LearnedHierarchySettings(**options)
    assert json.loads(json.dumps(SETTINGS.to_json()))["search"]["num_final"] == 2
