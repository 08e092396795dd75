"""The batched ensemble against networks that torch.nn and torch.optim train one by one."""

import pytest
import torch
from torch import nn

from hotnas_torch import spaces
from hotnas_torch.search.bayesian.ensemble import MLPEnsemble, _initial, _orders, _outputs, _trained
from hotnas_torch.spaces.encodings import PathEncoding

SPACE = spaces.NASBenchMacro()


def data(num, seed=0):
    nets = SPACE.sample(num, generator=torch.Generator().manual_seed(seed), distinct=True)
    values = [
        sum(int(digit) * (1.0 + 0.1 * place) for place, digit in enumerate(net.spec))
        for net in nets
    ]
    return SPACE.encode(nets), torch.tensor(values, dtype=torch.float64)[:, None]


def ensemble(num=30, seed=0, **settings):
    X, Y = data(num)
    generator = torch.Generator().manual_seed(seed)
    return MLPEnsemble(
        X, Y, space=SPACE, encoding=PathEncoding(SPACE), generator=generator, **settings
    )


def test_every_member_is_trained_as_if_it_were_alone(rng):
    inputs = (torch.rand(21, 6, generator=rng) < 0.5).double()
    inputs[:, 4] = 0.0
    targets = torch.randn(21, generator=rng).double()
    layers = _initial((6, 5, 4, 1), 3, rng, inputs)
    orders = _orders(4, 3, 21, rng)
    trained = _trained(layers, inputs, targets, orders=orders, batch_size=8, learning_rate=0.02)
    other = torch.randn(7, 6, generator=rng).double()
    for member in range(3):
        linears = []
        for weights, biases in layers:
            with torch.random.fork_rng(devices=[]):
                linear = nn.Linear(*weights.shape[1:]).double()
            linear.weight.data = weights[member].mT.clone()
            linear.bias.data = biases[member, 0].clone()
            linears += [linear, nn.ReLU()]
        network = nn.Sequential(*linears[:-1])
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02, betas=(0.9, 0.99))
        for order in orders[:, member]:
            for batch in order.split(8):
                optimizer.zero_grad()
                nn.functional.l1_loss(network(inputs[batch]).squeeze(1), targets[batch]).backward()
                optimizer.step()
        with torch.no_grad():
            assert torch.allclose(_outputs(trained, other)[member], network(other), atol=1e-9)


def test_initial_weights_are_those_of_glorot(rng):
    ((weights, biases),) = _initial((300, 100), 2, rng, torch.zeros(1, dtype=torch.float64))
    assert weights.std() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert weights.abs().max() <= (6 / 400) ** 0.5
    assert not torch.equal(weights[0], weights[1])
    assert not biases.any()


def test_every_epoch_of_every_member_meets_every_example_once(rng):
    orders = _orders(3, 4, 9, rng)
    assert torch.equal(orders.sort(-1).values, torch.arange(9).expand(3, 4, 9))
    assert len(torch.unique(orders.reshape(12, 9), dim=0)) == 12


def test_it_learns_and_is_less_certain_elsewhere():
    model = ensemble(100)
    X, Y = data(100)
    Z, expected = data(60, seed=1)
    with torch.no_grad():
        at_data, elsewhere = model.posterior(X), model.posterior(Z)
    both = torch.stack([elsewhere.mean.flatten(), expected.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.85
    assert (at_data.mean - Y).abs().mean() < 0.4 * Y.std()
    assert elsewhere.variance.mean() > at_data.variance.mean()


def test_shapes_are_those_of_botorch():
    model = ensemble(12, epochs=2, num_members=3)
    X, _ = data(12)
    posterior = model.posterior(X.reshape(4, 3, -1))
    assert posterior.values.shape == (4, 3, 3, 1)
    assert posterior.mean.shape == posterior.variance.shape == (4, 3, 1)
    assert torch.allclose(posterior.mean.reshape(12, 1), model.posterior(X).mean)
    assert model.num_outputs == 1


def test_only_the_generator_is_random():
    X, _ = data(12)
    first, second, other = (
        ensemble(12, seed=seed, epochs=3).posterior(X).mean for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)


def test_equal_targets_are_no_division_by_zero():
    X, _ = data(6)
    Y = torch.full((6, 1), 3.0, dtype=torch.float64)
    model = MLPEnsemble(
        X, Y, space=SPACE, encoding=PathEncoding(SPACE), generator=torch.Generator(), epochs=1
    )
    assert torch.isfinite(model.posterior(X).mean).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_members": 1}, "num_members must be at least 2; got 1"),
        ({"num_layers": 0}, "num_layers must be at least 1; got 0"),
        ({"width": 0}, "width must be at least 1"),
        ({"epochs": -1}, "epochs must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ensemble(**settings)


def test_bad_shapes_are_refused():
    X, Y = data(4)
    with pytest.raises(ValueError, match=r"\(n, d\) and \(n, 1\); got \(4, 8\) and \(4,\)"):
        MLPEnsemble(
            X, Y[:, 0], space=SPACE, encoding=PathEncoding(SPACE), generator=torch.Generator()
        )
