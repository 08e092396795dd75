import pytest
import torch
from ot.gromov import fused_gromov_wasserstein2
from ot.utils import dist
from torch import Tensor

import hotnas_torch as ht
from tests.generators.problems import F64, uniform


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def graphs(rng: torch.Generator, sizes: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    structs = [(uniform(rng, n, n) < 0.5).to(F64) for n in sizes]
    return [torch.maximum(s, s.mT) for s in structs], [uniform(rng, n, 2) for n in sizes]


def layer(**settings: object) -> ht.nn.FGWTemplates:
    return ht.nn.FGWTemplates(3, 4, 2, generator=generator(), **settings).double()


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_distances_are_not_above_those_of_pots_layer(
    rng: torch.Generator, alpha: float | None
) -> None:
    templates = layer(alpha=alpha)
    structs, features = graphs(rng, [5, 7, 4, 8, 6, 5])
    with torch.no_grad():
        ours, known = templates(structs, features), templates.templates()
    theirs = torch.empty_like(ours)
    for row, (struct, nodes) in enumerate(zip(structs, features, strict=True)):
        for column in range(3):
            theirs[row, column] = fused_gromov_wasserstein2(
                dist(nodes, known.features[column].detach()),
                struct,
                known.struct[column],
                p=torch.full((len(struct),), 1 / len(struct), dtype=F64),
                q=known.masses[column],
                alpha=0.5 if alpha is None else alpha,
                symmetric=True,
            )
    # Both end in one of several optima.
    assert float(ours.mean()) <= float(theirs.mean()) * (1 + 1e-3)
    assert float((ours - theirs).abs().max()) <= 0.05 * float(theirs.max())


def test_gradients_are_pots_where_the_couplings_are(rng: torch.Generator) -> None:
    """Layers that have equal distances of a graph learn the same from it."""
    module = layer()
    with torch.no_grad():
        module.mass_logits.add_(0.3 * uniform(rng, 3, 4))
    structs, features = graphs(rng, [5, 7, 4, 8, 6, 5, 7, 8])
    parameters = list(module.parameters())
    ours, equal = module(structs, features), 0
    for row, (struct, nodes) in enumerate(zip(structs, features, strict=True)):
        for column in range(3):
            known = module.templates()
            theirs = fused_gromov_wasserstein2(
                dist(nodes, known.features[column]),
                struct,
                known.struct[column],
                p=torch.full((len(struct),), 1 / len(struct), dtype=F64),
                q=known.masses[column],
                alpha=module.alpha_logit.sigmoid()[None],
                symmetric=True,
            )
            assert ours[row, column].item() <= theirs.item() * (1 + 1e-6)
            if theirs.item() <= ours[row, column].item() * (1 + 1e-12):
                equal += 1
                slopes = torch.autograd.grad(ours[row, column], parameters, retain_graph=True)
                expected = torch.autograd.grad(theirs, parameters)
                for slope, wanted in zip(slopes, expected, strict=True):
                    assert torch.allclose(slope, wanted, rtol=1e-8, atol=1e-10)
    assert equal >= 6


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("per_template", [False, True])
def test_all_parameters_have_the_gradient_of_finite_differences(
    rng: torch.Generator, loss: str, per_template: bool
) -> None:
    # The best of all starts: optima of equal value that one alone ends in change places.
    module = layer(loss=loss, per_template=per_template, num_starts=3)
    structs, features = graphs(rng, [3, 5])
    structs = [struct + 0.2 * uniform(rng, *struct.shape) for struct in structs]
    names = [name for name, _ in module.named_parameters()]
    assert set(names) == {"struct", "features", "mass_logits", "alpha_logit"}
    values = [
        (value.detach() + 0.1 * uniform(rng, 1, *value.shape)[0]).requires_grad_()
        for value in module.parameters()
    ]

    def distances(*values: Tensor) -> Tensor:
        return torch.func.functional_call(
            module, dict(zip(names, values, strict=True)), (structs, features)
        )

    assert torch.autograd.gradcheck(distances, values, eps=1e-7, atol=1e-5)


def test_graphs_have_gradients_too(rng: torch.Generator) -> None:
    module = layer()
    structs, features = graphs(rng, [4, 4])
    inputs = [torch.stack(x).requires_grad_() for x in (structs, features)]
    assert torch.autograd.gradcheck(module, inputs, eps=1e-7, atol=1e-5)


def test_a_list_is_its_padded_batch_and_each_graph_alone(rng: torch.Generator) -> None:
    module = layer()
    structs, features = graphs(rng, [3, 6, 5])
    listed = module(structs, features)
    padded = ht.ot.pad_graphs(structs, features)
    assert torch.equal(listed, module(padded.struct, padded.features, padded.masses))
    for row in range(3):
        assert torch.equal(module(structs[row], features[row]), listed[row])
    noise = torch.full_like(padded.features, torch.nan)
    noise = torch.where(padded.masses[..., None] > 0, padded.features, noise)
    assert torch.equal(listed, module(padded.struct, noise, padded.masses))


def test_the_order_of_nodes_changes_nothing(rng: torch.Generator) -> None:
    module = layer(num_starts=2)
    structs, features = graphs(rng, [6])
    order = torch.randperm(6, generator=rng)
    moved = module(structs[0][order][:, order], features[0][order])
    assert torch.allclose(moved, module(structs[0], features[0]), atol=1e-10)


def test_a_template_is_at_no_distance_from_itself() -> None:
    module = layer(train_masses=False)
    known = module.templates()
    distances = module(known.struct, known.features)
    assert torch.allclose(distances.diagonal(), torch.zeros(3, dtype=F64), atol=1e-12)
    assert bool((distances + torch.eye(3) > 1e-3).all())


def test_it_learns_and_its_state_can_be_stored(rng: torch.Generator) -> None:
    module = layer(alpha=0.5)
    structs, features = graphs(rng, [5] * 12)
    wanted = torch.tensor([float(s.sum()) for s in structs], dtype=F64)
    wanted = (wanted - wanted.mean()) / wanted.std()
    readout = torch.zeros(3, dtype=F64, requires_grad=True)
    optimizer = torch.optim.Adam([*module.parameters(), readout], lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        error = (module(structs, features) @ readout - wanted).square().mean()
        error.backward()
        optimizer.step()
        losses.append(error.item())
    assert losses[-1] < 0.3 * losses[0]
    other = layer(alpha=0.5)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(structs, features), module(structs, features))


def test_equal_generators_make_equal_layers() -> None:
    first, second = layer(), layer()
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert repr(first) == "FGWTemplates(3, 4, 2, alpha=learned, loss='l2')"


def test_masses_that_are_not_trained_are_no_parameter() -> None:
    module = layer(train_masses=False)
    assert "mass_logits" not in dict(module.named_parameters())
    assert torch.equal(module.templates().masses, torch.full((3, 4), 0.25, dtype=F64))


def test_without_features_structure_is_all(rng: torch.Generator) -> None:
    module = ht.nn.FGWTemplates(2, 3, generator=generator()).double()
    structs, _ = graphs(rng, [4, 5])
    known = module.templates()
    expected = ht.ot.fgw(
        torch.zeros(4, 3, dtype=F64), structs[0], known.struct[1], b=known.masses[1], alpha=1.0,
        loss="l2",
    ).objective  # fmt: skip
    assert torch.allclose(module(structs)[0, 1], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_templates": 0}, "num_templates must be at least 1"),
        ({"nodes": 2.5}, "nodes must be an integer"),
        ({"num_features": -1}, "num_features must be at least 0"),
        ({"alpha": 2.0}, "alpha must be in"),
        ({"alpha": 0.5, "num_features": 0}, "alpha must be 1 or None without features"),
        ({"loss": "kl"}, "loss must be one of"),
        ({"num_starts": 4}, "num_starts must be between 1 and 3"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"per_template": 1}, "per_template must be True or False"),
        ({"train_masses": "no"}, "train_masses must be True or False"),
        ({"generator": None}, "generator must be given"),
        ({"generator": 3}, "generator must be a torch Generator"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings: dict[str, object], message: str) -> None:
    call = {"num_templates": 2, "nodes": 3, "num_features": 2, "generator": generator()} | settings
    with pytest.raises((TypeError, ValueError), match=message):
        ht.nn.FGWTemplates(**call)


def test_wrong_graphs_say_what_is_wrong(rng: torch.Generator) -> None:
    module = layer()
    structs, features = graphs(rng, [3, 4])
    with pytest.raises(ValueError, match=r"features must have 2 numbers per node.* got 0"):
        module(structs)
    with pytest.raises(TypeError, match=r"structs must be torch\.float64 on cpu"):
        module([s.float() for s in structs], [f.float() for f in features])
    with pytest.raises(ValueError, match="features must have one item per graph, 2"):
        module(structs, features[:1])
    with pytest.raises(ValueError, match=r"features\[1\] must have shape \(4, 2\)"):
        module(structs, [features[0], features[0]])
    with pytest.raises(ValueError, match=r"structs\[1\] must have shape \(n, n\)"):
        module([structs[0], structs[1][:2]], features)
    with pytest.raises(TypeError, match=r"structs\[0\] must be float32 or float64"):
        module([s.bool() for s in structs], features)
    with pytest.raises(TypeError, match="masses must be a list as structs is"):
        module(structs, features, torch.ones(2, 4, dtype=F64) / 4)
