import re
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from hotnas_torch.arch import Network
from hotnas_torch.arch.operation import Operation
from hotnas_torch.distances import HOTNN
from hotnas_torch.errors import TracingError
from hotnas_torch.importing import FAMILIES, Kind, from_module, kind_names, operation_tree, trace

IMAGE = torch.empty(2, 3, 32, 32)


@pytest.fixture(autouse=True)
def _own_randomness() -> Iterator[None]:
    # Modules draw their weights, which nothing here reads.
    with torch.random.fork_rng():
        yield


class Residual(nn.Module):
    """A block of two convolutions and a shortcut."""

    def __init__(self, width: int = 8, *, other_order: bool = False) -> None:
        super().__init__()
        parts = {
            "conv1": nn.Conv2d(width, width, 3, padding=1),
            "bn1": nn.BatchNorm2d(width),
            "conv2": nn.Conv2d(width, width, 3, padding=1),
            "bn2": nn.BatchNorm2d(width),
        }
        for name in reversed(parts) if other_order else parts:
            self.add_module(name, parts[name])

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        y += x
        return functional.relu(y)


class Net(nn.Module):
    """A stem, equal blocks, and a head."""

    def __init__(self, blocks: int = 3, width: int = 8, *, other_order: bool = False) -> None:
        super().__init__()
        if other_order:
            self.head = nn.Linear(width, 5)
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        body = [Residual(width, other_order=other_order) for _ in range(blocks)]
        self.body = nn.Sequential(*body)
        if not other_order:
            self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Attention(nn.Module):
    """Attention, by torch's function or written out."""

    def __init__(self, *, written_out: bool) -> None:
        super().__init__()
        self.qkv, self.out, self.written_out = nn.Linear(16, 48), nn.Linear(16, 16), written_out

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        if self.written_out:
            y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        else:
            y = functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(b, n, 16))


def kinds(module: object, inputs: object, **options: object) -> list[str]:
    return [node.kind for node in trace(module, inputs, **options).nodes]


def counted(module: nn.Module, *inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        module.eval()(*inputs)
    return counter.get_total_flops() // 2


def distance(first: Network, second: Network) -> float:
    metric = HOTNN(tree=operation_tree())
    return float(metric([first], [second])[0, 0])


def test_a_network_is_a_stem_equal_blocks_that_are_one_object_and_a_head() -> None:
    network = from_module(Net(), IMAGE, granularity=10, numbers=())
    stem, *blocks, head = network.cells
    assert stem.ops == ("input", "conv", "output")
    assert sorted(blocks[0].ops[1:-1]) == sorted(
        ["conv", "batch_norm", "relu", "conv", "batch_norm", "sum", "relu"]
    )
    assert blocks[0] is blocks[1] is blocks[2]
    assert head.ops == ("input", "global_avg_pool", "linear", "output")
    assert network.channels == (8, 8, 8, 8, 5)
    assert network.downsampling == (2, 2, 2, 2, 32)


def test_the_shortcut_of_a_block_is_an_edge_from_its_input() -> None:
    (cell,) = from_module(Residual(), torch.empty(1, 8, 4, 4), numbers=()).cells
    assert "input" in {cell.ops[i] for i in cell.predecessors(cell.ops.index("sum"))}


def test_shortcuts_between_cells_are_edges_of_the_macro_graph() -> None:
    network = from_module(Residual(), torch.empty(1, 8, 4, 4), granularity=2, numbers=())
    assert (0, network.num_cells) in network.edges or not network.is_chain


def test_labels_carry_numbers() -> None:
    conv = nn.Conv2d(8, 16, (3, 3), stride=2, dilation=2, groups=2)
    (label,) = from_module(conv, torch.empty(4, 8, 33, 33)).cells[0].ops[1:-1]
    found = Operation.parse(label)
    assert found.kind == "grouped_conv"
    assert dict(found.numbers) == {
        "dilation": 2, "groups": 2, "kernel": 3, "positions": 15 * 15, "stride": 2, "width": 16,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        (nn.Conv2d(3, 4, 1), IMAGE, ["pointwise_conv"]),
        (nn.Conv1d(4, 4, 3, groups=4), torch.empty(1, 4, 9), ["depthwise_conv"]),
        (nn.ConvTranspose2d(3, 4, 2), IMAGE, ["transposed_conv"]),
        (nn.LSTM(4, 5, 2), torch.empty(3, 1, 4), ["lstm"]),
        (nn.GRU(4, 5, batch_first=True), torch.empty(1, 3, 4), ["gru"]),
        (nn.Embedding(9, 4), torch.zeros(2, 3, dtype=torch.int64), ["embedding"]),
        (nn.LayerNorm(4), torch.empty(2, 4), ["layer_norm"]),
        (nn.RMSNorm(4), torch.empty(2, 4), ["rms_norm"]),
        (nn.GroupNorm(2, 4), torch.empty(2, 4, 3), ["group_norm"]),
        (nn.AdaptiveAvgPool2d(1), IMAGE, ["global_avg_pool"]),
        (nn.MaxPool2d(2), IMAGE, ["max_pool"]),
        (nn.Upsample(scale_factor=2), IMAGE, ["resize"]),
        (nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3072, 2)), IMAGE, ["linear"]),
        (lambda x: torch.cat([x.relu(), x.tanh()], 1), IMAGE, ["relu", "tanh", "concat"]),
        (lambda x: x * torch.sigmoid(x), IMAGE, ["silu"]),
        (lambda x: x * torch.rsqrt(x.pow(2).mean(-1, True) + 1e-6), IMAGE, ["rms_norm"]),
        (lambda x: (x.float() / 255 - 0.5).relu(), IMAGE.to(torch.uint8), ["relu"]),
    ],
)  # fmt: skip
def test_every_operation_has_its_kind(module: object, inputs: Tensor, expected: list[str]) -> None:
    assert kinds(module, inputs) == expected


def test_attention_is_one_operation_however_it_is_written() -> None:
    tokens = torch.empty(2, 5, 16)
    found = [from_module(Attention(written_out=w), tokens) for w in (False, True)]
    assert found[0].key == found[1].key
    assert kinds(Attention(written_out=True), tokens) == ["linear", "attention", "linear"]


def test_gelu_written_out_is_one_operation() -> None:
    def gelu(x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * torch.pow(x, 3))))

    assert kinds(gelu, IMAGE) == ["gelu"]


def test_parameters_and_constants_that_are_added_or_multiplied_are_kept_numbers_are_not() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain, self.offset = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return 2 * x * self.gain + self.offset - 1

    found = trace(Scaled(), torch.empty(2, 4))
    assert [node.kind for node in found.nodes] == ["scale", "shift"]
    assert found.parameters == 8


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Net(), IMAGE),
        (Attention(written_out=True), torch.empty(2, 5, 16)),
        (nn.Conv2d(8, 16, 3, groups=4), torch.empty(1, 8, 9, 9)),
        (nn.ConvTranspose2d(8, 16, 3, stride=2), torch.empty(1, 8, 9, 9)),
        (nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6)), torch.empty(7, 4)),
    ],
)
def test_counts_are_those_of_torch(module: nn.Module, inputs: Tensor) -> None:
    found = trace(module, inputs)
    assert found.parameters == sum(p.numel() for p in module.parameters())
    assert found.multiply_adds == counted(module, inputs)


def test_fused_attention_counts_as_written_out() -> None:
    tokens = torch.empty(2, 5, 16)
    first, second = (trace(Attention(written_out=w), tokens) for w in (False, True))
    assert first.multiply_adds == second.multiply_adds


def test_sizes_that_depend_on_data_are_said_to_be() -> None:
    with pytest.warns(UserWarning, match="sizes depend on the values"):
        assert kinds(lambda x: x[x > 0].relu(), IMAGE)[-1] == "relu"


def test_a_program_with_sizes_left_open_has_those_of_its_example() -> None:
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Net().eval(), (IMAGE,), dynamic_shapes=({0: batch},))
    assert from_module(program) == from_module(Net(), IMAGE)


def test_a_shared_module_is_two_operations_and_its_parameters_count_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.tied = self.layer.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)) @ self.tied

    found = trace(Twice(), torch.empty(2, 4))
    assert [node.kind for node in found.nodes] == ["linear"] * 3
    assert found.parameters == 20


def test_the_same_module_twice_in_another_order_or_with_other_names_is_the_same() -> None:
    first = from_module(Net(), IMAGE)
    for other in (Net(), Net(other_order=True), nn.Sequential(Net())):
        found = from_module(other, IMAGE)
        assert found.key == first.key
        assert found == first
    plain = [from_module(Net(other_order=o), IMAGE, numbers=()) for o in (False, True)]
    assert distance(*plain) == 0


def test_modules_on_meta_programs_graphs_and_callables_are_the_same_network() -> None:
    model = Net().eval()
    expected = from_module(model, IMAGE)
    with torch.device("meta"):
        empty = Net()
    assert from_module(empty, IMAGE) == expected
    assert from_module(torch.export.export(model, (IMAGE,))) == expected
    assert from_module(torch.export.export(model, (IMAGE,), strict=False)) == expected
    assert from_module(model.forward, IMAGE).channels == expected.channels
    found = from_module(torch.fx.symbolic_trace(model), IMAGE)
    assert sum(c.num_operations for c in found.cells) == sum(
        c.num_operations for c in expected.cells
    )
    assert trace(lambda x: model(x), IMAGE).parameters == trace(model, IMAGE).parameters


def test_training_mode_and_weights_are_left_as_they_were() -> None:
    model = Net().train()
    model.stem.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    from_module(model, IMAGE)
    assert model.training
    assert model.body.training
    assert not model.stem.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_several_inputs_and_outputs_by_place_and_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(5, 6)

        def forward(self, x: Tensor, *, y: Tensor) -> dict[str, Tensor]:
            return {"sum": self.a(x) + self.b(y), "first": self.a(x)}

    found = from_module(Two(), {"x": torch.empty(2, 4), "y": torch.empty(2, 5)}, numbers=())
    assert sorted(found.cells[0].ops[1:-1]) == ["linear", "linear", "linear", "sum"]


class Branching(nn.Module):
    """Takes a branch by its data."""

    def __init__(self) -> None:
        super().__init__()
        self.yes, self.no = nn.Linear(4, 4), nn.Conv1d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.yes(x)
        return self.no(x[:, None])


def test_a_branch_that_depends_on_data_is_imported_for_false_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"inner.*depends on the values.*as for 0 or False"):
        network = from_module(_Holding(Branching()), torch.empty(2, 4), numbers=())
    assert network.cells[0].ops == ("input", "pointwise_conv", "output")


class _Holding(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_recording_a_run_finds_what_exporting_finds() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.branch = Net(), Branching()

        def forward(self, x: Tensor) -> Tensor:
            if bool(x.sum() > 0):
                return self.branch(x)
            return self.net(x)

    with pytest.warns(UserWarning, match="values of tensors"):
        found = trace(Mixed(), IMAGE)
    expected = trace(Net(), IMAGE)
    assert [n.kind for n in found.nodes] == [n.kind for n in expected.nodes]
    assert found.parameters == expected.parameters
    assert found.multiply_adds == expected.multiply_adds


def test_a_custom_autograd_function_is_followed() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: object, x: Tensor) -> Tensor:
            return x.sin()

        @staticmethod
        def backward(_ctx: object, grad: Tensor) -> Tensor:
            return grad

    assert kinds(lambda x: Doubled.apply(x).relu(), IMAGE) == ["elementwise", "relu"]


def test_in_place_operations_on_views_reach_the_whole() -> None:
    def written(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 0] = x[:, 1].tanh()
        return y.relu()

    found = from_module(written, IMAGE, numbers=())
    assert sorted(found.cells[0].ops[1:-1]) == ["relu", "tanh"]


def test_granularity_bounds_cells() -> None:
    for most in (1, 3, 10, 1000):
        network = from_module(Net(4), IMAGE, granularity=most)
        assert max(cell.num_operations for cell in network.cells) <= most
        assert sum(cell.num_operations for cell in network.cells) == 31
    assert from_module(lambda x: x.view(2, -1), IMAGE).cells[0].num_operations == 0


def test_an_unknown_operation_is_named_and_has_a_default_kind() -> None:
    with torch.library._scoped_library("hotnas_test", "DEF") as library:
        library.define("mystery(Tensor x) -> Tensor")
        library.impl("mystery", lambda x: x.clone(), "CompositeExplicitAutograd")
        call = torch.ops.hotnas_test.mystery

        def model(x: Tensor) -> Tensor:
            return call(x).relu()

        with pytest.warns(UserWarning, match="'hotnas_test::mystery' in the root module"):
            assert kinds(model, IMAGE) == ["other", "relu"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kinds(model, IMAGE, kinds={"hotnas_test::mystery": "conv"}) == ["conv", "relu"]
            own = {call: Kind("mystery", "smooth", numbers=lambda c: {"rank": len(c.out)})}
            (cell,) = from_module(model, IMAGE, kinds=own, numbers=("rank",)).cells
        assert cell.ops == ("input", "mystery[rank=4]", "relu", "output")
        assert "mystery" in operation_tree(own).labels


def test_every_kind_that_is_read_is_in_the_tree() -> None:
    assert set(operation_tree().labels) == set(kind_names())
    assert len(FAMILIES) >= 15


@pytest.mark.parametrize(
    ("module", "inputs", "error", "message"),
    [
        (nn.Linear, torch.empty(1, 4), TypeError, "pass an object of the class"),
        (3, torch.empty(1, 4), TypeError, "module must be a torch.nn.Module"),
        (nn.Linear(4, 4), None, TypeError, "example_inputs must be given"),
        (nn.Linear(4, 4), "x", TypeError, "example_inputs must be a tensor"),
        (nn.Linear(4, 4), (), TracingError, "at least one tensor"),
        (nn.Linear(4, 4), {1: torch.empty(1, 4)}, TypeError, "names of arguments"),
        (nn.Linear(4, 4), torch.empty(1, 5), TracingError, "do example_inputs fit it"),
        (nn.Linear(4, 4), (torch.empty(1, 4),) * 2, TracingError, "too many positional argument"),
        (nn.Bilinear(4, 4, 4), IMAGE, TracingError, "^example_inputs do not fit .*Bilinear"),
        (nn.Bilinear(4, 4, 4), IMAGE, TracingError, "missing a required argument: 'input2'"),
        (nn.Linear(4, 4), {"x": IMAGE}, TracingError, "^example_inputs do not fit .*'input'"),
        (lambda x, y: x + y, IMAGE, TracingError, "^example_inputs do not fit .*lambda.*'y'"),
        (torch.relu, (IMAGE, IMAGE), TracingError, r"^the module itself \(relu\) raised Type"),
        (nn.Conv2d(4, 4, 3), IMAGE, TracingError, r"^the module itself \(Conv2d\) raised"),
        (_Holding(nn.Linear(4, 4)), IMAGE, TracingError, r"^module 'inner' \(Linear\) raised"),
        (nn.LazyLinear(4), torch.empty(1, 5), TracingError, "uninitialized"),
        (lambda _: torch.zeros(3), IMAGE, TracingError, "do not depend on example_inputs"),
        (lambda x: x.numpy().sum() + x, IMAGE, TracingError, "cannot be followed"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_refused_in_words(
    module: object,
    inputs: object,
    error: type[Exception],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(error, match=message):
        from_module(module, inputs)
    assert capfd.readouterr().err == ""


def test_what_depends_on_values_is_said_once_and_torch_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def model(x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 0 else x.tanh()

    with pytest.warns(UserWarning, match="depends on the values of tensors") as said:
        assert kinds(model, IMAGE) == ["tanh"]
    assert len(said) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"granularity": 0}, ValueError, "granularity must be at least 1"),
        ({"granularity": 2.5}, TypeError, "granularity must be an integer"),
        ({"numbers": "width"}, TypeError, "pass a tuple"),
        ({"kinds": ["relu"]}, TypeError, "kinds must be a mapping"),
        ({"kinds": {"relu": "relux"}}, ValueError, "kinds['relu'] must be one of"),
        ({"kinds": {3: "relu"}}, TypeError, "names of operators"),
        ({"kinds": {"relu": Kind("conv", "gate")}}, ValueError, "a name of the library's"),
    ],
)
def test_settings_are_checked(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        from_module(Net(), IMAGE, **options)


def test_kinds_are_checked() -> None:
    with pytest.raises(ValueError, match="family of the kind 'x' must be one of"):
        Kind("x", "nothing")
    with pytest.raises(ValueError, match="without"):
        Kind("x[1]", "gate")
    with pytest.raises(ValueError, match="length"):
        Kind("x", "gate", -1.0)


@pytest.mark.parametrize(
    ("numbers", "message"), [(3, "must return a mapping"), ({"a": -1}, "a of")]
)
def test_numbers_of_own_kinds_are_checked(numbers: object, message: str) -> None:
    own = {"relu": Kind("mine", "gate", numbers=lambda _: numbers)}
    with pytest.raises((TypeError, ValueError), match=message):
        from_module(nn.ReLU(), torch.empty(1, 3), kinds=own)


class _ByTorchDiv(nn.Module):
    """Cuts its input into windows, counted by a tensor, after a branch that depends on data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x > 0).any().item():
            x = x.relu()
        count = torch.div(x.shape[1], 8, rounding_mode="trunc")
        return x.view(x.shape[0], count, 8).softmax(-1).flatten(1)


def test_sizes_that_tensors_divide_are_known_where_a_module_has_to_run() -> None:
    with pytest.warns(UserWarning, match="depends on the values of tensors"):
        network = from_module(_ByTorchDiv(), torch.empty(2, 32), numbers=())
    assert network.cells[0].ops == ("input", "softmax", "output")
