"""Where calls are dear the host looks at the items seldom, and finds the same to the bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hotnas_torch.ot._reference.entropic_fgw import entropic_fgw
from hotnas_torch.ot._reference.semirelaxed_fgw import semirelaxed_fgw
from hotnas_torch.ot._reference.sinkhorn import sinkhorn
from hotnas_torch.ot._reference.unbalanced_sinkhorn import unbalanced_sinkhorn
from tests.generators.far_device import FAR, far_device, near
from tests.generators.operations import Counted

Call = Callable[..., tuple[Tensor, ...]]

# tensors, what follows them, and waits; were every step looked at, these would be 39, 19 and 83
CALLS: dict[str, tuple[Call, tuple[int, ...], tuple[Any, ...], int]] = {
    "sinkhorn": (sinkhorn, (0, 3, 4), (0.1, 1e-4, 100), 9),
    "unbalanced": (unbalanced_sinkhorn, (0, 3, 4), (0.1, 1.0, 1.0, 0, 1e-4, 100), 6),
    "entropic": (entropic_fgw, (0, 1, 2, 3, 4, 5, 6), (0.1, 0, 1, 0, 1e-4, 20, 1e-4, 100), 60),
}


def problem(rng: torch.Generator, items: int = 64, n: int = 8) -> list[Tensor]:
    cost, x, y = (torch.rand(items, n, n, generator=rng) for _ in range(3))
    masses = torch.full((items, n), 1 / n)
    return [cost, x, y, masses, masses.clone(), torch.full((items,), 0.5), torch.empty(0)]


@pytest.mark.parametrize("name", CALLS)
def test_a_device_is_waited_for_seldom(name: str, rng: torch.Generator) -> None:
    solve, which, settings, waits = CALLS[name]
    given = [problem(rng)[k] for k in which]
    expected = solve(*given, *settings)
    with far_device() as moved:
        found = solve(*(tensor.to(FAR) for tensor in given), *settings)
    for value, other in zip(found, expected, strict=True):
        assert torch.equal(near(value), other)
    assert moved.waits - len(given) < waits


def test_semirelaxed_steps_ask_once_who_goes_on(rng: torch.Generator) -> None:
    """By masks in place of numbers of items these would be 300 waits."""
    cost, x, y, a, b, alpha, none = problem(rng)
    with Counted() as counted:
        *_, status = semirelaxed_fgw(cost, x, y, a, b, alpha, none, none, 0, 1, 1, 1e-4, 100)
    assert (status == 0).all()
    assert counted.waits < 100
