import pytest
import torch

from hotnas_torch import _ext
from hotnas_torch.ot._operators import sinkhorn, transport
from hotnas_torch.ot._operators.operator import Operator


def inputs() -> tuple[torch.Tensor, ...]:
    return torch.eye(2)[None], torch.full((1, 2), 0.5), torch.full((1, 2), 0.5)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r'"auto", "ext" or "torch"; got \'cuda\''):
        transport(*inputs(), backend="cuda")


def test_a_missing_core_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ext, "loaded", False)
    monkeypatch.setattr(_ext, "reason", "it was left out on purpose")
    with pytest.raises(ValueError, match='left out on purpose; use backend="auto"'):
        transport(*inputs(), backend="ext")
    assert transport(*inputs(), backend="auto")[1].item() == 0


@pytest.mark.ext
def test_the_compiled_core_refuses_other_devices() -> None:
    elsewhere = [tensor.to("meta") for tensor in inputs()]
    with pytest.raises(ValueError, match='"ext" has no kernels for tensors on meta'):
        transport(*elsewhere, backend="ext")


@pytest.mark.ext
def test_auto_takes_the_compiled_core() -> None:
    with torch.profiler.profile() as profile:
        assert transport(*inputs())[1].item() == 0
        transport(*inputs(), backend="torch")
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["hotnas::transport"] == counts["hotnas_reference::transport"] == 1


def test_unrolling_runs_the_torch_text() -> None:
    cost = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    masses = torch.full((1, 3), 1 / 3)
    f, *_ = sinkhorn(cost, masses, masses, 0.5, 0.0, 3, differentiate="unroll")
    assert f.grad_fn is not None
    assert "sinkhorn" not in f.grad_fn.name()
    if _ext.loaded:
        with pytest.raises(ValueError, match="records the steps of the reference"):
            sinkhorn(cost, masses, masses, 0.5, 0.0, 3, differentiate="unroll", backend="ext")


def _double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def test_an_operator_without_a_derivative_rule_refuses_derivatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_ext, "loaded", False)  # there is no compiled op of this name
    double = Operator("double_for_tests", _double, fake=torch.empty_like)
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="double_for_tests is not differentiable; detach"):
        double(x, backend="torch").sum().backward()
    with pytest.raises(RuntimeError, match="double_for_tests is not differentiable; detach"):
        torch.func.jvp(lambda x: double(x, backend="torch"), (x.detach(),), (x.detach(),))
