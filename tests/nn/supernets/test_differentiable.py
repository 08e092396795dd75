import json
from dataclasses import asdict, replace

import pytest
import torch

from hotnas_torch.nn import (
    DARTSSkeleton,
    DARTSSupernet,
    DifferentiableSearch,
    DifferentiableSettings,
    ImageData,
    NASBench201Supernet,
    Skeleton,
    Split,
    digits,
)
from hotnas_torch.nn.supernets.differentiable import EdgeDistributions, sample_connected
from hotnas_torch.spaces import DARTS, NASBench201

SKELETON = Skeleton(channels=2, num_stages=1, cells_per_stage=1, input_channels=1)
DATA = digits(generator=torch.Generator().manual_seed(0), num_train=80, num_validation=80)
SETTINGS = DifferentiableSettings(epochs=4, batch_size=16)


def supernet(seed=0, **options):
    return NASBench201Supernet(SKELETON, generator=torch.Generator().manual_seed(seed), **options)


def searching(settings=SETTINGS, seed=0, checkpoint=None, net=None):
    return DifferentiableSearch(
        supernet(seed) if net is None else net,
        DATA,
        settings,
        generator=torch.Generator().manual_seed(seed),
        checkpoint=checkpoint,
    )


# --- the update -----------------------------------------------------------------------------------


def loss_of(weights):
    """Differs by edge, so that sums and means can be told from single edges."""
    cells, edges, k = weights.shape
    scale = torch.arange(1.0, cells * edges * k + 1).reshape(cells, edges, k)
    return (scale * weights.square()).sum()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_shared_distribution_follows_all_edges(reduction):
    net = supernet()
    settings = replace(SETTINGS, reduction=reduction, architecture_rate=0.01)
    shared = EdgeDistributions(net, settings, torch.device("cpu"))
    single = EdgeDistributions(net, replace(SETTINGS, method="gaea"), torch.device("cpu"))
    weights = single.weights()
    (gradient,) = torch.autograd.grad(loss_of(weights), weights)
    total = gradient.sum(dim=(0, 1)) / (6 if reduction == "mean" else 1)
    expected = 0.25 * torch.exp(-0.01 * total)
    shared.update(loss_of(shared.weights()))
    found = shared.weights().detach()
    assert torch.allclose(found, (expected / expected.sum()).expand(1, 6, 4), atol=1e-6)


def test_edges_of_gaea_move_each_by_itself():
    single = EdgeDistributions(
        supernet(), replace(SETTINGS, method="gaea", architecture_rate=0.1), torch.device("cpu")
    )
    weights = single.weights()
    (gradient,) = torch.autograd.grad(loss_of(weights), weights)
    expected = (0.25 * torch.exp(-0.1 * gradient)).clamp_min(1e-12)
    single.update(loss_of(single.weights()))
    assert torch.allclose(
        single.weights(), expected / expected.sum(dim=-1, keepdim=True), atol=1e-4
    )


def test_darts_moves_softmax_parameters_by_adam():
    distributions = EdgeDistributions(
        supernet(), replace(SETTINGS, method="darts"), torch.device("cpu")
    )
    reference = torch.zeros(6, 4, requires_grad=True)
    optimizer = torch.optim.Adam([reference], lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    for _ in range(3):
        distributions.update(loss_of(distributions.weights()))
        optimizer.zero_grad()
        loss_of(reference.softmax(dim=-1)[None]).backward()
        optimizer.step()
    assert torch.allclose(distributions.values, reference, atol=1e-7)


# --- searching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["anasod", "gaea", "darts"])
def test_a_search_ends_with_a_network_of_the_space(method):
    search = searching(replace(SETTINGS, method=method))
    seen = []
    epochs = search.run(every_epoch=seen.append)
    assert epochs == seen
    assert len(epochs) == 4
    assert epochs[-1].train_loss < epochs[0].train_loss
    for epoch in epochs:
        assert sum(epoch.probabilities) == pytest.approx(1.0, abs=1e-5)
        assert search.supernet.space.contains(search.supernet.space.from_string(epoch.network))
    assert search.run() == epochs
    weights = search.distributions.weights()
    same = torch.equal(weights, weights[:1, :1].expand_as(weights))
    assert same == (method == "anasod")


def test_a_darts_supernet_is_searched():
    net = DARTSSupernet(
        DARTSSkeleton(channels=2, num_cells=3, input_channels=1),
        generator=torch.Generator().manual_seed(0),
        space=DARTS(num_nodes=2),
    )
    settings = DifferentiableSettings(epochs=1, batch_size=40)
    for method in ("anasod", "gaea"):
        search = searching(replace(settings, method=method), net=net)
        (epoch,) = search.run()
        assert len(epoch.probabilities) == 8
        assert net.space.contains(search.network())


class Toy(torch.nn.Module):
    """Its second operation names the class of the image, the first says nothing."""

    space = NASBench201()
    operations = ("skip_connect", "nor_conv_3x3")
    num_cells = 1
    num_edges = 6

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images, weights):
        return self.scale * weights[..., 1].mean() * images.flatten(1)

    def discretize(self, weights):
        names = [self.operations[place] for place in weights[0].argmax(dim=-1).tolist()]
        a, b, c, d, e, f = names
        return self.space.from_string(f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|")

    def weights_of(self, net):
        rows = self.space.encode([net]).long()
        index = [self.space.operations.index(name) for name in self.operations]
        return torch.nn.functional.one_hot(rows, 5)[..., index].float()


@pytest.mark.parametrize("method", ["anasod", "gaea", "darts"])
def test_the_operation_that_lowers_the_loss_wins(method):
    labels = torch.arange(40) % 10
    split = Split(torch.eye(10)[labels][:, None, None], labels)
    data = ImageData("one-hot", split, split, split, num_classes=10)
    rate = 0.1 if method == "darts" else None
    search = DifferentiableSearch(
        Toy(),
        data,
        DifferentiableSettings(method=method, epochs=30, batch_size=8, architecture_rate=rate),
        generator=torch.Generator().manual_seed(0),
    )
    epochs = search.run()
    shares = [epoch.probabilities[1] for epoch in epochs]
    assert shares[0] > 0.5
    assert shares[-1] > 0.85
    assert search.network().spec.count("nor_conv_3x3") >= 4


def test_the_best_of_the_samples_is_taken():
    labels = torch.arange(40) % 10
    split = Split(torch.eye(10)[labels][:, None, None], labels)
    data = ImageData("one-hot", split, split, split, num_classes=10)
    counts = []
    for num in (1, 64):
        settings = DifferentiableSettings(epochs=1, architecture_rate=1e-6, num_samples=num)
        search = DifferentiableSearch(
            Toy(), data, settings, generator=torch.Generator().manual_seed(1)
        )
        counts.append([search.network().spec.count("nor_conv_3x3") for _ in range(10)])
    # With even odds, one of 64 samples has 6 convolutions two times in three, and 5 nearly always.
    assert min(counts[1]) >= 5
    assert sum(counts[0]) / 10 < 4.5


@pytest.mark.parametrize("kind", ["nasbench201", "darts"])
def test_a_network_is_what_its_weights_leave(kind, rng):
    if kind == "nasbench201":
        net = supernet()
    else:
        skeleton = DARTSSkeleton(channels=2, num_cells=3, input_channels=1)
        net = DARTSSupernet(skeleton, generator=rng)
    for _ in range(10):
        drawn = sample_connected(net, torch.full((len(net.operations),), 0.25), generator=rng)
        weights = net.weights_of(drawn)
        assert weights.shape == (net.num_cells, net.num_edges, len(net.operations))
        assert set(weights.unique().tolist()) == {0.0, 1.0}
        again = net.discretize(weights)
        # The number of DARTS cells in a row is not part of the supernet.
        assert again.spec.split(",")[:2] == drawn.spec.split(",")[:2]


def test_equal_seeds_search_the_same():
    first, second, other = (searching(seed=seed).run() for seed in (0, 0, 1))
    assert first == second != other


def test_samples_follow_the_distribution_and_are_connected(rng):
    net = supernet(operations=("none", "skip_connect", "nor_conv_3x3"))
    nets = [sample_connected(net, torch.tensor([0.0, 0.3, 0.7]), generator=rng) for _ in range(150)]
    share = sum(one.spec.count("nor_conv_3x3") for one in nets) / 900
    assert share == pytest.approx(0.7, abs=0.06)
    for _ in range(20):
        one = sample_connected(net, torch.tensor([0.8, 0.1, 0.1]), generator=rng)
        assert one.cells[0].num_nodes > 2
    with pytest.raises(RuntimeError, match="none of 1000"):
        sample_connected(net, torch.tensor([1.0, 0.0, 0.0]), generator=rng)


def test_a_loss_that_diverges_is_an_error():
    with pytest.raises(RuntimeError, match="non-finite in epoch 1"):
        searching(replace(SETTINGS, learning_rate=1e30, clip=1e30)).run()


# --- checkpoints ----------------------------------------------------------------------------------


class Interruption(Exception):
    pass


@pytest.mark.parametrize("method", ["anasod", "darts"])
def test_a_continuation_equals_the_uninterrupted_search(method, tmp_path):
    settings = replace(SETTINGS, method=method)
    whole = searching(settings)
    expected = whole.run()

    def interrupt(epoch):
        if epoch is not None and len(search.epochs) == 2:
            raise Interruption

    path = tmp_path / "folder" / "search.pt"
    search = searching(settings, checkpoint=path)
    with pytest.raises(Interruption):
        search.run(every_epoch=interrupt)
    # Other weights and another generator: everything comes from the file.
    resumed = searching(settings, seed=5, checkpoint=path)
    assert len(resumed.epochs) == 2
    assert resumed.run() == expected
    for name, value in resumed.supernet.state_dict().items():
        assert torch.equal(value, whole.supernet.state_dict()[name])
    assert torch.equal(resumed.distributions.values, whole.distributions.values)
    assert [entry.name for entry in path.parent.iterdir()] == ["search.pt"]


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    path = tmp_path / "search.pt"
    searching(checkpoint=path).run()
    with pytest.raises(ValueError, match="another search: its settings"):
        searching(replace(SETTINGS, epochs=5), checkpoint=path)
    with pytest.raises(ValueError, match="another search: its operations"):
        searching(checkpoint=path, net=supernet(operations=("none", "nor_conv_3x3")))


class Malice:
    def __reduce__(self):
        return print, ("run by a checkpoint",)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"version": 1}, Malice()])
def test_what_is_no_checkpoint_is_refused_and_never_run(content, tmp_path, capsys):
    path = tmp_path / "search.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="is no checkpoint of a differentiable search"):
        searching(checkpoint=path)
    assert "run by" not in capsys.readouterr().out


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "gdas"),
        ("epochs", 0),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("clip", 0.0),
        ("architecture_rate", -0.1),
        ("architecture_decay", -0.1),
        ("reduction", "max"),
    ],
)
def test_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        DifferentiableSettings(**{name: value})


def test_settings_are_ready_for_json():
    assert json.loads(json.dumps(SETTINGS.to_json())) == asdict(SETTINGS)
    assert DifferentiableSettings(method="darts").rate == 3e-4
    assert DifferentiableSettings(architecture_rate=0.5).rate == 0.5
