"""What fits in rounds keep, element by element of a batch."""

import torch

from hotnas_torch.gp.rounds import _keep

F64 = torch.float64


class Likelihood(torch.nn.Module):
    """A parameter per element of a batch, and, where asked, one that all elements share."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.own = torch.nn.Parameter(torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=F64))
        if shared:
            self.shared = torch.nn.Parameter(torch.tensor(5.0, dtype=F64))


def moved(likelihood: Likelihood, value: list[float], best: list[float]) -> torch.Tensor:
    """Move all parameters by one, and keep what is better than `best`."""
    kept = {name: tensor.detach().clone() for name, tensor in likelihood.named_parameters()}
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter += 1.0
    found = _keep(likelihood, kept, torch.tensor(value, dtype=F64), torch.tensor(best, dtype=F64))
    for name, parameter in likelihood.named_parameters():
        assert torch.equal(kept[name], parameter)
    return found


def test_each_element_keeps_its_own_best() -> None:
    likelihood = Likelihood(shared=False)
    found = moved(likelihood, [0.5, 3.0], [1.0, 1.0])
    assert found.tolist() == [0.5, 1.0]
    assert likelihood.own.tolist() == [[2.0, 2.0], [2.0, 2.0]]  # the first moved, the second not


def test_elements_that_share_a_parameter_move_together() -> None:
    likelihood = Likelihood(shared=True)
    assert moved(likelihood, [0.5, 1.2], [1.0, 1.0]).tolist() == [0.5, 1.2]
    assert (likelihood.own[1].tolist(), likelihood.shared.item()) == ([3.0, 3.0], 6.0)
    likelihood = Likelihood(shared=True)
    assert moved(likelihood, [0.5, 3.0], [1.0, 1.0]).tolist() == [1.0, 1.0]
    assert (likelihood.own[0].tolist(), likelihood.shared.item()) == ([1.0, 1.0], 5.0)
