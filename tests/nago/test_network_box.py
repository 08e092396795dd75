import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.nago import BOHB, Hyperband, NetworkBox, run_jobs
from hotnas_torch.testing.strategy import toy_value

SPACE = spaces.NASBenchMacro()


def test_rows_are_networks_of_the_space(rng):
    box = NetworkBox(spaces.NASBench201())
    rows = box.sample(40, generator=rng)
    nets = box.decode(rows)
    assert len({net.spec for net in nets}) > 30
    assert all(box.space.contains(net) for net in nets)
    assert torch.equal(box.round(rows), rows)
    places = (rows * torch.tensor(box.categories)).floor()
    assert torch.equal(box.space.encode(nets), places)


def test_every_network_has_a_row():
    box = NetworkBox(spaces.NASBenchMacro())
    places = box.space.encode(box.space.sample(30, generator=torch.Generator().manual_seed(0)))
    rows = (places + 0.5) / torch.tensor(box.categories)
    assert torch.equal(box.space.encode(box.decode(rows)), places)


def test_bohb_proposes_better_networks_than_hyperband():
    box = NetworkBox(SPACE)

    def later(kind, seed):
        """Mean value of the second half of what was begun."""
        generator = torch.Generator().manual_seed(seed)
        search = kind(box, min_budget=1, max_budget=9, generator=generator)
        run_jobs(
            search,
            lambda job: toy_value(box.decode(job.rows)[0]) + 1.0 / job.budget,
            budget=700,
            progress=False,
        )
        begun = [found.value for found in search.results if found.job.parent is None]
        return sum(begun[len(begun) // 2 :]) / (len(begun) - len(begun) // 2)

    values = {kind: [later(kind, seed) for seed in range(2)] for kind in (BOHB, Hyperband)}
    assert max(values[BOHB]) + 1.0 < min(values[Hyperband])


def test_another_space_is_told_apart():
    generator = torch.Generator().manual_seed(0)
    search = Hyperband(NetworkBox(SPACE), min_budget=1, max_budget=9, generator=generator)
    other = Hyperband(
        NetworkBox(spaces.NASBench201()), min_budget=1, max_budget=9, generator=generator
    )
    with pytest.raises(ValueError, match="another space"):
        other.load_state_dict(search.state_dict())


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (spaces.NASBench101(), ValueError),
        (spaces.Joint(SPACE, {"lr": spaces.Log(1e-3, 1.0)}), ValueError),
        ("nasbench201", TypeError),
    ],
)
def test_spaces_that_are_no_boxes_are_refused(space, kind):
    with pytest.raises(kind, match="space must be"):
        NetworkBox(space)
