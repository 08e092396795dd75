"""How distances between networks behave under the transforms and tracers of torch."""

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.distances import (
    HOTNN,
    IFGW,
    OTMANN,
    EditDistance,
    TreeWasserstein,
    WeisfeilerLehman,
)
from hotnas_torch.errors import ArchitectureError

SPACE = spaces.NASBench201()
NETS = SPACE.sample(4, generator=torch.Generator().manual_seed(0))
EDGES = len(TreeWasserstein(SPACE).tree.edges)
F64 = torch.float64


def otmann(nu):
    return OTMANN(SPACE, nu=nu)(NETS)


def tree_wasserstein(lengths):
    return TreeWasserstein(SPACE, lengths=lengths)(NETS)


def of_alpha(alpha):
    return TreeWasserstein(SPACE, alpha=alpha)(NETS)


def hotnn(lengths):
    return HOTNN(tree=SPACE.tree.with_lengths(lengths), dtype=F64)(NETS)


def ifgw(lam):
    return IFGW(space=SPACE, lam=lam, dtype=F64)([net.cells[0] for net in NETS])


FUNCTIONS = {
    "nu": (otmann, torch.tensor([0.1, 0.3], dtype=F64)),
    "lengths": (tree_wasserstein, torch.linspace(0.5, 1.0, EDGES, dtype=F64)),
    "alpha": (of_alpha, torch.tensor(0.3, dtype=F64)),
    "tree": (hotnn, SPACE.tree.lengths_tensor(dtype=F64) * 1.1),
    "lam": (ifgw, torch.tensor(0.4, dtype=F64)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_without_one_value_are_refused(name):
    function, at = FUNCTIONS[name]
    kinds = (ValueError, ArchitectureError)
    argument = {"tree": "lengths"}.get(name, name)
    for mapped in (function, torch.func.jacrev(function)):
        with pytest.raises(kinds, match=rf"^{argument} must be one .*what torch.vmap maps"):
            torch.func.vmap(mapped)(torch.stack([at, at]))
    with pytest.raises(kinds, match=rf"^{argument} must be one .* records"):
        torch.func.linearize(function, at)


def test_a_mapped_cost_matrix_is_refused():
    matrix = 1 - torch.eye(3, dtype=F64)
    costs = torch.func.vmap(lambda m: type(SPACE.tree).from_matrix("abc", m).distance_matrix())
    with pytest.raises(ArchitectureError, match="matrix must be one set of numbers"):
        costs(torch.stack([matrix, matrix]))


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which torch keeps to itself
@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_code_leaves_distances_to_python(name):
    """A tracer that follows them makes hundreds of graphs, in minutes."""
    function, at = FUNCTIONS[name]
    leaf = at.clone().requires_grad_()
    expected = torch.autograd.grad(function(leaf).square().sum(), leaf)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    loss = torch.compile(lambda p: function(p).square().sum(), backend=backend)(leaf)
    assert torch.equal(torch.autograd.grad(loss, leaf)[0], expected[0])
    assert len(graphs) <= 3


@pytest.mark.parametrize("kind", [EditDistance, OTMANN, TreeWasserstein, WeisfeilerLehman])
def test_a_setting_that_a_distance_lacks_is_refused(kind):
    with pytest.raises(TypeError, match=f"{kind.__name__} has no setting 'weight'"):
        kind(spaces.NASBench201(), weight=1.0)


@pytest.mark.parametrize("kind", [EditDistance, OTMANN, TreeWasserstein, WeisfeilerLehman])
def test_parts_report_their_progress(kind):
    seen = []
    kind(space=SPACE).part_distances(NETS, progress=lambda *call: seen.append(call))
    assert seen
    _, done, total = seen[-1]
    assert done == total
