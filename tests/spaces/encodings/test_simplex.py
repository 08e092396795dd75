import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from hotnas_torch.spaces.encodings import ascend_simplex
from hotnas_torch.spaces.encodings.simplex import exponentiated_gradient


def random_points(num, k, rng):
    return torch.softmax(torch.randn(num, k, generator=rng, dtype=torch.float64), dim=1)


def test_a_step_minimises_the_linear_model_plus_the_divergence(rng):
    # Mirror descent: argmin_q  rate <g, q> + KL(q || p), solved by scipy.
    (point,) = random_points(1, 4, rng)
    gradient = torch.randn(4, generator=rng, dtype=torch.float64)
    p, g = point.numpy(), gradient.numpy()
    solution = minimize(
        lambda q: 0.7 * q @ g + np.sum(q * np.log(q / p)),
        np.full(4, 0.25),
        bounds=[(1e-9, 1.0)] * 4,
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1.0},
        options={"ftol": 1e-14},
    )
    step = exponentiated_gradient(point, gradient, 0.7)
    assert torch.allclose(step, torch.from_numpy(solution.x), atol=1e-5)


def test_steps_stay_on_the_simplex_and_above_the_floor(rng):
    points = random_points(50, 5, rng)
    gradient = 1e4 * torch.randn(50, 5, generator=rng, dtype=torch.float64)
    stepped = exponentiated_gradient(points, gradient, 10.0)
    assert torch.allclose(stepped.sum(dim=1), torch.ones(50, dtype=torch.float64))
    assert float(stepped.min()) > 0.9e-5
    # A share on the floor comes back.
    back = exponentiated_gradient(stepped, -gradient, 1.0)
    assert bool((back.argmax(dim=1) != stepped.argmax(dim=1)).all())


def test_a_constant_gradient_moves_nothing(rng):
    points = random_points(3, 4, rng)
    assert torch.allclose(exponentiated_gradient(points, torch.full_like(points, 9.0), 2.0), points)


@pytest.mark.parametrize("inside", [True, False])
def test_ascent_finds_the_maximum_that_scipy_finds(inside, rng):
    target = torch.tensor([0.5, 0.3, 0.2] if inside else [0.9, 0.4, -0.3], dtype=torch.float64)
    solution = minimize(
        lambda q: np.sum((q - target.numpy()) ** 2),
        np.full(3, 1 / 3),
        bounds=[(0.0, 1.0)] * 3,
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1.0},
    )
    found = ascend_simplex(
        lambda points: -(points - target).square().sum(dim=1),
        random_points(6, 3, rng),
        steps=300,
        rate=0.5,
    )
    expected = torch.from_numpy(solution.x).expand(6, -1)
    assert torch.allclose(found, expected, atol=0.02)


def test_ascent_never_ends_below_its_start(rng):
    start = random_points(20, 4, rng)

    def wavy(points):
        return (40.0 * points).sin().sum(dim=1)

    found = ascend_simplex(wavy, start, steps=5)
    assert bool((wavy(found) >= wavy(start)).all())
    assert torch.equal(ascend_simplex(wavy, start, steps=0), start)
