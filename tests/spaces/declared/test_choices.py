"""Declared spaces: what the choices mean, how many there are, and what is refused."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from hotnas_torch import Cell, Network, OperationTree, spaces
from hotnas_torch.errors import ArchitectureError, SizeError
from hotnas_torch.spaces import Block, Choice, Choices


def chain(choices):
    cell = Cell(("input", str(choices.get("operation", "conv")), "output"), ((0, 1), (1, 2)))
    num = int(choices.get("depth", 1) or 1)
    return Network((cell,) * num, (int(choices.get("width", 8)),) * num, (1,) * num)


SMALL = {"operation": ["conv", "pool"], "depth": [1, 2, 3], "width": [16, 32, 64]}


def test_the_build_function_gets_what_was_chosen():
    seen = []

    def build(choices):
        seen.append(choices)
        return chain(choices)

    space = Choices(SMALL, build)
    seen.clear()
    fresh = Choices(SMALL, build).from_choices({"operation": "pool", "depth": 2, "width": 32})
    assert {"operation": "pool", "depth": 2, "width": 32} in seen
    assert fresh.num_cells == 2
    assert fresh.spec == "operation=pool,depth=2,width=32"
    assert space.to_choices(fresh) == {"operation": "pool", "depth": 2, "width": 32}


def test_ordered_choices_step_and_others_jump():
    choices = {"number": [1, 2, 3, 4], "fell": [4, 2, 1], "mixed": [1, 3, 2], "word": list("abc")}
    block = Block(choices)
    around = {block.format(code) for code in block.neighbor_codes((1, 1, 1, 1))}
    assert around == {
        *(f"number={number},fell=2,mixed=3,word=b" for number in (1, 3)),
        *(f"number=2,fell={number},mixed=3,word=b" for number in (4, 1)),
        *(f"number=2,fell=2,mixed={number},word=b" for number in (1, 2)),
        *(f"number=2,fell=2,mixed=3,word={word}" for word in "ac"),
    }
    ordered = Block({"word": Choice(list("abcd"), ordered=True)})
    assert list(ordered.neighbor_codes((0,))) == [(1,)]
    free = Block({"number": Choice([1, 2, 3], ordered=False)})
    assert list(free.neighbor_codes((0,))) == [(1,), (2,)]


def test_conditions_decide_what_is_chosen():
    block = Block(
        {
            "kernel": Choice([3, 5], when={"operation": "conv"}),
            "operation": ["conv", "pool", "skip"],
            "size": Choice([2, 3], when={"operation": lambda operation: operation == "pool"}),
            "dilation": Choice([1, 2, 3], when={"kernel": 5, "operation": ["conv", "pool"]}),
        }
    )
    texts = {block.format(code) for code in block.all_codes()}
    assert texts == {
        "operation=skip",
        "operation=pool,size=2",
        "operation=pool,size=3",
        "kernel=3,operation=conv",
        *(f"kernel=5,operation=conv,dilation={dilation}" for dilation in (1, 2, 3)),
    }
    assert block.count() == block.bound() == 7
    generator = torch.Generator().manual_seed(0)
    for code in [block.draw_code(generator) for _ in range(50)]:
        assert block.format(code) in texts
        assert block.parse(block.format(code)) == code
        assert block.format(block.mutate_code(code, generator)) in texts
        assert {block.format(other) for other in block.neighbor_codes(code)} <= texts


@pytest.mark.parametrize("seed", range(8))
def test_counting_is_listing(seed):
    """Random conditions, which may depend on each other, against brute force."""
    generator = torch.Generator().manual_seed(seed)

    def draw(most):
        return int(torch.randint(most, (), generator=generator))

    choices = {}
    for place in range(6):
        when = {}
        for parent in range(place):
            if draw(3) == 0:
                when[f"c{parent}"] = [0] if draw(2) else lambda option: option > 0
        choices[f"c{place}"] = Choice(list(range(2 + draw(2))), when=when)
    block = Block(choices)
    codes = list(block.all_codes())
    assert len(set(codes)) == len(codes) == block.count()
    values = [range(-1, len(choice.options)) for choice in choices.values()]
    every = itertools.product(*values)
    in_range = (
        code
        for code in every
        if all(value in found for value, found in zip(code, block.columns.values(), strict=True))
    )
    assert {code for code in in_range if block.fault_of(code) is None} == set(codes)


def test_a_constraint_counts_and_lists_exactly():
    def light(choices):
        return choices["depth"] * choices["width"] <= 64

    space = Choices(SMALL, chain, constraint=light)
    allowed = [(d, w) for d in (1, 2, 3) for w in (16, 32, 64) if d * w <= 64]
    assert space.size() == 2 * len(allowed) == len(list(space))
    assert all(light(space.to_choices(net)) for net in space)
    with pytest.raises(ArchitectureError, match="the constraint refuses operation=conv,depth=3"):
        space.from_string("operation=conv,depth=3,width=64")
    with pytest.raises(ArchitectureError, match="the constraint refuses"):
        space.decode(torch.tensor([[0.0, 2.0, 2.0]]))


def test_a_large_constrained_space_has_a_bound_and_no_size():
    many = {f"c{place}": [0, 1] for place in range(30)}
    space = Choices(many, chain, constraint=lambda choices: choices["c0"] == choices["c29"])
    assert space.size_bound() == 2**30
    with pytest.raises(SizeError, match=r"1,073,741,824 .*more than 1,048,576.*size_bound"):
        space.size()
    nets = space.sample(20, generator=torch.Generator().manual_seed(0), distinct=True)
    assert len(set(nets)) == 20


@pytest.mark.slow  # draws of a space that is too large to list
def test_a_constraint_that_refuses_nearly_everything_is_drawn_from():
    many = {f"c{place}": [0, 1] for place in range(21)}
    space = Choices(many, chain, constraint=lambda choices: sum(choices.values()) <= 1)
    nets = space.sample(60, generator=torch.Generator().manual_seed(0))
    assert len(set(nets)) >= 10
    assert all(space.contains(net) for net in nets)
    with pytest.raises(ValueError, match=r"draws found nothing beyond 2\d distinct networks"):
        space.sample(30, generator=torch.Generator().manual_seed(0), distinct=True)
    few = {f"c{place}": list(range(10)) for place in range(4)}
    listed = Choices(few, chain, constraint=lambda choices: sum(choices.values()) >= 35)
    nets = listed.sample(300, generator=torch.Generator().manual_seed(0))
    assert len(set(nets)) == listed.size() == 5


def test_sizes_are_those_of_the_combinations():
    blocks = {f"block{place}": Block({"a": [1, 2, 3], "b": ["x", "y"]}) for place in range(5)}
    assert Block(blocks).count() == 6**5
    huge = Block({f"stage{place}": Block(blocks) for place in range(40)})
    assert huge.count() == 6**200


@pytest.mark.parametrize(
    "options",
    [
        [np.int64(3), np.int64(5)],
        np.array([3, 5]),
        torch.tensor([3, 5]),
        range(3, 7, 2),
        (3, 5),
    ],
)
def test_numbers_of_any_kind_are_options(options):
    block = Block({"kernel": options})
    assert [block.format(code) for code in block.all_codes()] == ["kernel=3", "kernel=5"]
    assert type(block.chosen((0,))["kernel"]) is int


@pytest.mark.parametrize(
    "options",
    [
        [True, False],
        [None, 0, 0.5, -1, 1e-9],
        ["", " ", "a b", "a,b", "a=b", "(", ")(", '"', "\\", "\n", "null", "1", "é", "a "],
        ["true", True],
        ["None", None],
        [np.bool_(True), np.float64(0.1)],
    ],
)
def test_every_plain_option_is_written_and_read(options):
    block = Block({"first": options, "second": ["x", *options]})
    texts = [block.format(code) for code in block.all_codes()]
    assert len(set(texts)) == len(options) * (1 + len(options))
    for code, text in zip(block.all_codes(), texts, strict=True):
        assert block.parse(text) == code
        assert block.from_plain(block.to_plain(code)) == code
        around = Block({"block": block, "last": [1]})
        assert around.parse(around.format((*code, 0))) == (*code, 0)


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({}, ValueError, "choices must hold at least one"),
        ([("a", [1])], TypeError, "choices must be a mapping"),
        ({"a": []}, ValueError, "options of 'a' must hold at least one"),
        ({"a": "abc"}, TypeError, "options of 'a' must be a list or tuple; got 'abc'"),
        ({"a": {1, 2}}, TypeError, "options of 'a' must be a list or tuple"),
        ({"a": 3}, TypeError, "options of 'a' must be a list or tuple"),
        ({"a": [1, 2, 1]}, ValueError, r"options\[2\] = 1 is options\[0\] = 1"),
        ({"a": [1, 1.0]}, ValueError, r"options\[1\] = 1.0 is options\[0\] = 1"),
        ({"a": [1, True]}, ValueError, r"options\[1\] = True is options\[0\] = 1"),
        ({"a": [np.int64(2), 2]}, ValueError, r"options\[1\] = 2 is options\[0\] = 2"),
        ({"a": [(3, 2)]}, TypeError, r"options\[0\] of 'a' must be an int, a float"),
        ({"a": [torch.nn.ReLU]}, TypeError, r"options\[0\] of 'a' must be .*name it by a str"),
        ({"a": [math.nan]}, ValueError, r"options\[0\] of 'a' must be finite; got nan"),
        ({"a,b": [1]}, ValueError, r"names of choices must .*'a,b'; it holds ','"),
        ({"a=b": [1]}, ValueError, "it holds '='"),
        ({"a\n": [1]}, ValueError, r"names of choices must be printable"),
        ({"": [1]}, ValueError, "names of choices must"),
        ({" a": [1]}, ValueError, "spaces at their ends"),
        ({1: [1]}, TypeError, "names of choices must be strings; got 1"),
        (
            {"a": Choice([1], when={"b": 1})},
            ValueError,
            "when of 'a' names 'b', which is no choice",
        ),
        ({"a": Choice([1], when={"a": 1})}, ValueError, "circle; got 'a' when 'a'"),
        (
            {"a": Choice([1], when={"b": 1}), "b": Choice([1], when={"c": 1}), "c": [1, 2]},
            None,
            "",
        ),
        (
            {"a": Choice([1], when={"b": 1}), "b": Choice([1], when={"a": 1})},
            ValueError,
            "conditions must not go in a circle; got 'a' when 'b' when 'a'",
        ),
        (
            {"a": [1], "b": Choice([1], when={"a": 2})},
            ValueError,
            "when of 'b': a must be one of 1",
        ),
        (
            {"a": [1], "b": Choice([1], when={"a": []})},
            ValueError,
            "when of 'b' must hold for an option",
        ),
        (
            {"a": [1], "b": Choice([1], when={"a": lambda _: False})},
            ValueError,
            "when of 'b' must hold for an option of 'a'; it does for none",
        ),
        (
            {"a": [1], "b": Choice([1], when={"a": lambda option: option.size})},
            ValueError,
            "when of 'b' raised AttributeError for an option of 'a'",
        ),
        ({"a": [1], "b": Choice([1], when="a")}, TypeError, "when of 'b' must be a mapping"),
        ({"a": Choice([1], ordered="yes")}, TypeError, "ordered of 'a' must be True or False"),
        ({"a": Choice(Block({"b": [1]}), ordered=True)}, ValueError, "ordered of 'a' must be None"),
        (
            {"a": Block({"b": [1]}), "c": Choice([1], when={"a": 1})},
            ValueError,
            "when of 'c' names 'a', which is no list of options",
        ),
    ],
)
def test_what_cannot_be_declared_is_refused(choices, error, message):
    if error is None:
        assert Choices(choices, chain).size() == 2
        return
    with pytest.raises(error, match=message):
        Choices(choices, chain)


def test_a_constraint_that_nothing_satisfies_is_found_at_once():
    with pytest.raises(ValueError, match="it refuses all 18 combinations"):
        Choices(SMALL, chain, constraint=lambda _: False)
    many = {f"c{place}": [0, 1] for place in range(40)}
    with pytest.raises(
        ValueError, match=r"refused all of 10,000 random ones, the last of them c0="
    ):
        Choices(many, chain, constraint=lambda _: False)
    with pytest.raises(
        ArchitectureError, match=r"constraint raised KeyError: 'dept'.*operation=conv"
    ):
        Choices(SMALL, chain, constraint=lambda choices: choices["dept"] > 1)
    with pytest.raises(TypeError, match="constraint must be a function"):
        Choices(SMALL, chain, constraint=True)


def test_a_build_function_that_fails_names_the_choices():
    def build(choices):
        if choices["depth"] == 3:
            raise RuntimeError("too deep")
        return chain(choices)

    with pytest.raises(ArchitectureError, match=r"build raised RuntimeError: too deep.*depth=3,"):
        Choices(SMALL, build)
    for wrong in (None, 3, "conv", [chain({})], Network):
        with pytest.raises(TypeError, match=r"build must return a Network, a Cell or .*depth=1,"):
            Choices(SMALL, lambda _, wrong=wrong: wrong)
    with pytest.raises(TypeError, match=r"pass example_inputs="):
        Choices(SMALL, lambda _: torch.nn.ReLU())
    with pytest.raises(TypeError, match="build must be a function"):
        Choices(SMALL, chain({}))


def test_a_build_function_that_plays_dice_is_refused():
    count = itertools.count(1)
    with pytest.raises(ArchitectureError, match="two different ones for operation=conv,depth=1"):
        Choices(SMALL, lambda choices: chain({**choices, "width": next(count)}))

    later = {"extra": 0}
    space = Choices(SMALL, lambda choices: chain({**choices, "width": 8 + later["extra"]}))
    net = space.sample_one(generator=torch.Generator().manual_seed(0))
    later["extra"] = 1
    fresh = Choices(SMALL, lambda choices: chain({**choices, "width": 9}))
    forged = fresh.from_string(net.spec)
    with pytest.raises(ArchitectureError, match=f"two different ones for {net.spec}"):
        space.contains(forged)


def test_a_cell_is_a_network_of_one_cell():
    space = Choices({"operation": ["a", "b"]}, lambda choices: chain(choices).cells[0])
    assert space.from_string("operation=b").cells[0].ops == ("input", "b", "output")


def test_what_is_known_of_all_networks_can_be_said_or_found():
    space = Choices(SMALL, chain)
    assert space.operations == ("conv", "pool")
    assert space.max_nodes == 3
    assert space.state_scale == (6.0, 1.0)
    costs = OperationTree.from_matrix(
        ("input", "conv", "pool", "output"), 1 - torch.eye(4, dtype=torch.float64)
    )
    said = Choices(SMALL, chain, tree=costs, max_nodes=9, state_scale=(3.0, 2.0))
    assert (said.tree, said.max_nodes, said.state_scale) == (costs, 9, (3.0, 2.0))
    for options, message in (
        ({"operations": ["conv"]}, "operation 'pool', which the space does not know"),
        ({"max_nodes": 2}, "a cell of 3 nodes, more than max_nodes = 2"),
        ({"state_scale": (0.0, 1.0)}, "state_scale must be"),
        ({"name": "darts"}, "name must be not the name of a space of the library"),
        ({"name": ""}, "name must be not empty"),
        ({"operations": "conv"}, "operations must be a list"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Choices(SMALL, chain, **options)


def test_every_option_is_seen_before_a_search():
    names = [f"operation {number}" for number in range(150)]
    block = Block({"kind": ["one", "two"], "name": Choice(names, when={"kind": "two"})})

    def build(choices):
        name = choices["block"].get("name", "one")
        return chain({"operation": f"{choices['more']} {name}"})

    space = Choices({"block": block, "more": list("abc")}, build)
    seen = {label.partition(" ")[2] for label in space.operations}
    assert seen == {"one", *names}
    flat = Choices({"operation": names, "depth": [1, 2, 3]}, chain)
    assert set(flat.operations) == set(names)


def test_a_rare_operation_is_found_when_it_is_built():
    many = {f"c{place}": list(range(10)) for place in range(8)}

    def build(choices):
        rare = all(choices[f"c{place}"] == 7 for place in range(8))
        return chain({"operation": "rare" if rare else "common"})

    space = Choices(many, build)
    text = ",".join(f"c{place}=7" for place in range(8))
    with pytest.raises(ArchitectureError, match=f"network of {text} has the operation 'rare'"):
        space.from_string(text)
    assert Choices(many, build, operations=["common", "rare"]).from_string(text).num_cells == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("operation=conv,depth=1", "the choice 'width' is missing"),
        ("operation=conv,depth=1,width=16,more=1", "there is no choice 'more'"),
        ("operation=conv,depht=1,width=16", r"no choice 'depht' \(did you mean 'depth'\?\)"),
        ("depth=1,operation=conv,width=16", "expected the order 'operation=conv"),
        ("operation=conv,depth=01,width=16", "depth=01 must be one of 1, 2, 3"),
        ("operation=conv,depth=1.0,width=16", "depth=1.0 must be one of"),
        ("operation=conv,depth=1,depth=1,width=16", "expected another name at position 23"),
        ("operation=conv,(depth=1,width=16", r"expected '\)'"),
        ("operation", "expected name=option at position 0"),
    ],
)
def test_strings_that_are_none_say_why(text, message):
    with pytest.raises(ArchitectureError, match=message):
        Choices(SMALL, chain).from_string(text)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"operation": "conv", "depth": 1}, "the choice 'width' is missing"),
        ({"operation": "conv", "depth": 4, "width": 16}, "depth must be one of 1, 2, 3; got 4"),
        ({"operation": "conv", "depth": True, "width": 16}, "depth must be one of"),
        ({"operation": ["conv"], "depth": 1, "width": 16}, "operation must be an int"),
        (["conv", 1, 16], "choices must be"),
    ],
)
def test_choices_that_are_none_say_why(choices, message):
    with pytest.raises((TypeError, ArchitectureError), match=message):
        Choices(SMALL, chain).from_choices(choices)


def test_a_space_goes_to_other_processes_where_its_functions_do():
    space = Choices(SMALL, chain)
    net = space.from_string("operation=pool,depth=2,width=32")
    assert pickle.loads(pickle.dumps(space)).contains(net)


def test_descriptions_tell_spaces_apart():
    described = [
        Choices(choices, build, name=name).description()
        for choices, build, name in (
            (SMALL, chain, "choices"),
            (SMALL | {"depth": [1, 2]}, chain, "choices"),
            (SMALL, lambda choices: chain({**choices, "width": 8}), "choices"),
            (SMALL, chain, "other"),
        )
    ]
    assert len({str(one) for one in described}) == 4


def test_other_spaces_stand_at_places():
    def build(choices):
        return choices["cell"]

    space = Choices({"cell": spaces.Pooling(), "unused": [1, 2]}, build)
    assert space.size() == 72
    net = space.from_string("cell=([7,1,2]),unused=2")
    assert net.downsampling == spaces.Pooling().from_string("[7,1,2]").downsampling
    assert space.to_choices(net) == {"cell": "[7,1,2]", "unused": 2}


@pytest.mark.parametrize("said", [None, "no", 0.3, math.nan, [], [False], torch.tensor([True])])
def test_only_true_and_false_are_answers(said):
    with pytest.raises(TypeError, match=r"constraint returns for operation=conv.* True or False"):
        Choices(SMALL, chain, constraint=lambda _: said)
    with pytest.raises(TypeError, match="when of 'b' returns for a=1 must be True or False"):
        Block({"a": [1], "b": Choice([1], when={"a": lambda _: said})})


@pytest.mark.parametrize("said", [True, 1, np.bool_(True), torch.tensor(True)])
def test_numbers_and_numpys_answers_count(said):
    block = Block(
        {"a": [1], "b": Choice([1], when={"a": lambda _: said})}, constraint=lambda _: said
    )
    assert [block.format(code) for code in block.all_codes()] == ["a=1,b=1"]


def test_a_choice_called_as_one_within_a_block_is_refused():
    with pytest.raises(ValueError, match=r"names of choices must differ .*got 'a\.b' twice"):
        Block({"a.b": [1, 2], "a": Block({"b": [1, 2, 3]})})


def test_a_block_whose_build_function_fails_names_the_choices():
    block = Block({"x": [1, 2]}, lambda chosen: chosen["x"] / 0)
    for constraint in (None, lambda _: True):
        with pytest.raises(ArchitectureError, match=r"build of a block raised ZeroDiv.*for x=1"):
            Choices({"block": block}, chain, constraint=constraint)


def test_hyperparameters_stand_beside_a_space():
    for one in (spaces.Log(1e-4, 1.0), spaces.Integer(1, 8), spaces.Ordered([1, 2])):
        with pytest.raises(TypeError, match=r"options of 'lr' must be .*Joint\(space"):
            Choices({"lr": one}, chain)
    joint = spaces.Joint(spaces.Pooling(), {"lr": spaces.Log(1e-4, 1.0)})
    with pytest.raises(ValueError, match=r"options of 'part' must be a space of networks alone"):
        Choices({"part": joint}, chain)


def test_long_lists_and_numbers_are_refused_at_once():
    with pytest.raises(
        ValueError, match=r"options of 'a' must be at most 65,536; got 1,000,000,000"
    ):
        Block({"a": range(10**9)})
    assert Block({"a": list(range(20_000))}).count() == 20_000
    with pytest.raises(ValueError, match=r"options\[0\] of 'a' must be finite; got inf"):
        Block({"a": [10**5000]})


def test_a_list_of_too_many_networks_is_refused_and_a_loop_is_not():
    many = Choices({f"c{place}": [0, 1] for place in range(40)}, chain)
    with pytest.raises(SizeError, match=r"too many networks for a list, 1,099,511,627,776 where"):
        list(many)
    assert len(list(itertools.islice(many, 5))) == 5


def test_rare_networks_are_drawn_in_the_end():
    """Of 41 networks, each is half as likely as the one before."""
    choices = {"c0": [0, 1]}
    for place in range(1, 40):
        choices[f"c{place}"] = Choice([0, 1], when={f"c{place - 1}": 1})
    space = Choices(choices, chain)
    assert space.size() == 41
    for num in (20, 41):
        nets = space.sample(num, generator=torch.Generator().manual_seed(0), distinct=True)
        assert len({net.spec for net in nets}) == num
