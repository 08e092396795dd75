"""Every module of the package can be imported, also where optional packages are missing."""

import subprocess
import sys
import textwrap

import pytest

WALK = textwrap.dedent(
    """
    import importlib, pkgutil, sys
    for name in sys.argv[1:]:
        sys.modules[name] = None
    import hotnas_torch
    count = 0
    for module in pkgutil.walk_packages(hotnas_torch.__path__, "hotnas_torch."):
        importlib.import_module(module.name)
        count += 1
    assert count > 150, count
    """
)
USE = textwrap.dedent(
    """
    import sys, torch
    for name in ("optuna", "ray", "zarr"):
        sys.modules[name] = None
    from hotnas_torch import HOTNN, spaces
    from hotnas_torch.integrations.ray import RayExecutor
    from hotnas_torch.integrations.optuna import StrategySampler
    from hotnas_torch.integrations.ray.tune import StrategySearcher
    from hotnas_torch.matrices import GramStore
    from hotnas_torch.search import RandomSearch
    space = spaces.Pooling()
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    for use, remedy in (
        (lambda: StrategySampler(strategy), "hotnas-torch[optuna]"),
        (lambda: StrategySearcher(strategy), "hotnas-torch[tune]"),
        (lambda: RayExecutor("auto"), "hotnas-torch[ray]"),
        (lambda: HOTNN(space=space).gram_store(list(space), "never.zarr"), "hotnas-torch[ray]"),
        (lambda: GramStore("."), "hotnas-torch[ray]"),
    ):
        try:
            use()
        except ImportError as error:
            assert remedy in str(error), error
        else:
            raise AssertionError(remedy)
    """
)
COMPILE = textwrap.dedent(
    """
    import sys, torch
    import hotnas_torch as ht
    import hotnas_torch.gp, hotnas_torch.search
    space = ht.spaces.Pooling()
    networks = space.sample(3, generator=torch.Generator().manual_seed(0))
    cost = torch.tensor([[3.0, 1.0], [1.0, 2.0]], requires_grad=True)
    ht.ot.sinkhorn(cost, epsilon=0.1).objective.backward()
    distances = ht.HOTNN(space=space)(networks)
    assert "torch._dynamo" not in sys.modules  # it takes as long as the rest of torch
    twice = lambda c: 2 * ht.ot.transport(c).objective
    whole = torch.compile(twice, backend="aot_eager", fullgraph=True)
    assert whole(cost).item() == 2.0
    import torch._dynamo
    assert ht.HOTNN.__call__._torchdynamo_disable
    apart = torch.compile(lambda n: ht.HOTNN(space=space)(n) + 1, backend="aot_eager")
    assert torch.equal(apart(networks), distances + 1)
    """
)


def run(program, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**__import__("os").environ, **environment},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("disabled", "missing"),
    [("", ()), ("1", ("optuna", "ray", "zarr"))],
    ids=["compiled, all", "torch alone, no extras"],
)
def test_all_modules_can_be_imported(disabled, missing):
    run(WALK, *missing, HOTNAS_DISABLE_EXT=disabled, HOTNAS_REQUIRE_EXT="")


def test_what_is_missing_is_said_when_it_is_used():
    run(USE)


@pytest.mark.compile
def test_the_compiler_of_torch_waits_until_somebody_compiles_and_then_knows_our_functions():
    run(COMPILE)
