"""Terms and solver settings: as objects or by the names of their fields."""

import dataclasses
import inspect

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch import Solver, Terms
from hotnas_torch.distances import HOTNN, IFGW

TERMS = {
    "pairs": "ordered",
    "linear_term": "literal",
    "normalize": False,
    "unreachable": 1.5,
    "max_nodes": 6,
}
SOLVER = {
    "num_starts": 2,
    "tol": 1e-2,
    "max_iter": 50,
    "backend": "torch",
    "dtype": torch.float64,
    "device": "cpu",
    "memory_budget": 5000,
}


@pytest.mark.parametrize("kind", [IFGW, HOTNN])
def test_fields_and_objects_make_the_same_distance(kind, tree, cells, networks):
    flat = kind(tree=tree, lam=0.3, **TERMS, **SOLVER)
    held = kind(tree=tree, lam=0.3, terms=Terms(**TERMS), solver=Solver(**SOLVER))
    assert flat.config() == held.config()
    expected = {**TERMS, **SOLVER, "dtype": "float64"}
    found = flat.config()
    assert {name: found[name] for name in expected if name in found} == {
        name: value for name, value in expected.items() if name in found
    }
    items = cells[:3] if kind is IFGW else networks[:3]
    assert torch.equal(flat(items), held(items))


def test_a_field_by_name_wins_over_the_object_and_both_over_the_preset(tree):
    solver = Solver(tol=1e-5, num_starts=1)
    metric = HOTNN(tree=tree, solver=solver, tol=1e-2)
    assert metric.ifgw.solver == dataclasses.replace(solver, tol=1e-2)
    metric = IFGW(tree=tree, preset="paper", terms=Terms(pairs="directed"), normalize=True)
    assert (metric.pairs, metric.linear_term, metric.normalize) == ("directed", "literal", True)


def test_hotnn_holds_its_ifgw(tree, networks):
    metric = HOTNN(tree=tree, eps=0.4, terms=Terms(unreachable=2.0), solver=Solver(tol=1e-4))
    alone = IFGW(tree=tree, eps=0.4, terms=Terms(unreachable=2.0), solver=Solver(tol=1e-4))
    assert metric.ifgw.config() == alone.config()
    cells = [cell for net in networks for cell in net.cells]
    assert torch.equal(metric.ifgw(cells), alone(cells))


def test_the_state_scale_is_a_term_of_networks_alone(tree):
    scale = {"state_scale": (2, 4)}
    assert HOTNN(tree=tree, zeta=0.5, **scale).state_scale == (2.0, 4.0)
    assert HOTNN(tree=tree, zeta=0.5, terms=Terms(**scale)).state_scale == (2.0, 4.0)
    with pytest.raises(ValueError, match="state_scale is of HOTNN"):
        IFGW(tree=tree, terms=Terms(**scale))
    with pytest.raises(TypeError, match="IFGW has no setting 'state_scale'"):
        IFGW(tree=tree, **scale)


@pytest.mark.parametrize("kind", [IFGW, HOTNN])
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"paairs": "ordered"}, TypeError, r"no setting 'paairs' \(did you mean 'pairs'\?\)"),
        ({"numstarts": 1}, TypeError, r"did you mean 'num_starts'\?\); it knows backend, "),
        ({"learning_rate": 1}, TypeError, "has no setting 'learning_rate'; it knows backend"),
        ({"terms": {"pairs": "ordered"}}, TypeError, "terms must be a Terms or None; got"),
        ({"solver": Terms()}, TypeError, "solver must be a Solver or None; got Terms"),
        ({"max_nodes": 0}, ValueError, "max_nodes must be at least 1; got 0"),
        ({"memory_budget": 1.5}, TypeError, "memory_budget must be an integer >= 1; got 1.5"),
        ({"unreachable": "far"}, TypeError, "unreachable must be a finite number >= 0"),
        ({"device": "abacus"}, ValueError, "device must be 'cpu', 'cuda'"),
    ],
)
def test_what_is_wrong_is_refused_by_name(kind, settings, error, message, tree):
    with pytest.raises(error, match=message):
        kind(tree=tree, **settings)


def test_objects_refuse_what_they_cannot_be_at_once():
    with pytest.raises(ValueError, match="tol must be finite and >= 0"):
        Solver(tol=-1.0)
    with pytest.raises(ValueError, match="pairs must be one of 'directed', 'ordered'"):
        Terms(pairs="all")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Solver().tol = 0.1


def test_what_is_not_set_is_decided_when_the_object_is_made():
    assert (Solver().dtype, Solver().device) == (torch.get_default_dtype(), torch.device("cpu"))
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert HOTNN(space=ht.spaces.Pooling()).dtype == torch.float64
    finally:
        torch.set_default_dtype(before)
    assert HOTNN(space=ht.spaces.Pooling()).dtype == before


@pytest.mark.parametrize("kind", [IFGW, HOTNN, Terms, Solver])
def test_no_constructor_has_more_than_ten_named_parameters(kind):
    parameters = inspect.signature(kind).parameters.values()
    named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    assert len(named) <= 10
    if kind in (IFGW, HOTNN):
        assert {p.name for p in named} < set(kind.SETTINGS)
