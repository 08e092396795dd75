"""The CUDA kernels as compiled, run without a GPU: tests/csrc/ptx.py interprets their PTX.

What lanes that are threads cannot show: shuffle masks, groups of a warp that part, the places of
the work space in shared and global memory, what the compiler made of all this.
"""

import functools
import re
import struct
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gpu_occupancy import lanes_for
from hotnas_torch.ot._operators import (
    cell_distances,
    entropic_fgw,
    entropic_transport,
    fgw,
    fgw_lower_bound,
    kl_transport,
    network_distances,
    semirelaxed_fgw,
    sinkhorn,
    transport,
    unbalanced_sinkhorn,
)
from tests.csrc.ptx import Fault, Memory, Program, Tally, compile_kernels, structure
from tests.generators.problems import Graphs, graphs

pytestmark = pytest.mark.ext

Compile = Callable[[str, str], str]


@pytest.fixture(scope="session")
def compile_ptx(build_dir: Path) -> Compile:
    """PTX of an operator's kernels for a scalar type."""
    cache = (build_dir / "CMakeCache.txt").read_text(encoding="utf-8")
    nvcc = re.search(r"^HOTNAS_NVCC:\w+=(/.+)$", cache, re.MULTILINE)
    if nvcc is None or not hasattr(torch.ops.hotnas, "cuda_kernels"):
        pytest.skip("no nvcc in this build (make cuda)")
    return functools.cache(functools.partial(compile_kernels, nvcc[1]))


class Device:
    """Memory with tensors in it."""

    def __init__(self) -> None:
        self.memory = Memory()

    def to(self, tensor: Tensor) -> tuple[str, int]:
        """Address of a copy."""
        return "P", self.memory.upload(tensor.contiguous().numpy().tobytes())

    def back(self, address: tuple[str, int], like: Tensor) -> Tensor:
        """What lies there now."""
        raw = bytearray(self.memory.download(address[1], like.numel() * like.element_size()))
        return torch.frombuffer(raw, dtype=like.dtype).view(like.shape)


def calls(p: Graphs, device: Device, loss: int, pairs: int) -> dict[str, tuple[bytes, Any, Any]]:
    """By operator: its C structure, what it gives on the CPU, and where the results are."""
    d, dtype = device, p.cost.dtype
    batch, n, m = p.cost.shape
    real = "f" if dtype == torch.float32 else "d"
    none = p.cost.new_empty(0)
    cost, x, y, a, b, alpha = (d.to(tensor) for tensor in p.tensors())
    null = ("P", 0)
    labels_x = torch.arange(batch * n).view(batch, n) % 3
    labels_y = torch.arange(batch * m).view(batch, m) % 3
    table = 1 - torch.eye(3, dtype=dtype)
    feature_x, feature_y = p.a[:, :, None].contiguous(), p.b[:, :, None].contiguous()
    index, other = torch.arange(batch), torch.arange(batch).flip(0)
    plan = (p.a[:, :, None] * p.b[:, None, :]).contiguous()
    found: dict[str, tuple[bytes, Any, Any]] = {}

    def add(name: str, head: Sequence[object], expected: Any, order: Sequence[int]) -> None:
        expected = (expected,) if isinstance(expected, Tensor) else tuple(expected)
        places = [d.to(torch.zeros_like(value)) for value in expected]
        found[name] = structure(*head, *(places[k] for k in order)), expected, places

    add("Transport", [n, m, 0, cost, a, b],
        transport(p.cost, p.a, p.b, backend="ext"), range(6))  # fmt: skip
    add("Sinkhorn", [n, m, cost, a, b, 0.1, 1e-4, 30],
        sinkhorn(p.cost, p.a, p.b, 0.1, 1e-4, 30, backend="ext"), range(5))  # fmt: skip
    add("EntropicTransport", [n, m, cost, a, b, 0.1, 1e-4, 30],
        entropic_transport(p.cost, p.a, p.b, 0.1, 1e-4, 30, backend="ext"), range(8))  # fmt: skip
    add("Fgw", [n, m, cost, x, y, a, b, alpha, null, null, 0, loss, pairs, 3, 1e-4, 50, 0],
        fgw(*p.tensors(), none, none, loss, pairs, 3, 1e-4, 50, backend="ext"),
        range(7))  # fmt: skip
    backward = (plan, p.struct_x, p.struct_y, p.alpha, loss, pairs)
    add("SemirelaxedFgw", [n, m, cost, x, y, a, b, alpha, null, null, 0, loss, pairs, 2, 1e-4, 30],
        semirelaxed_fgw(*p.tensors(), none, none, loss, pairs, 2, 1e-4, 30, backend="ext"),
        range(6))  # fmt: skip
    add("UnbalancedSinkhorn", [n, m, cost, a, b, 0.1, 0.3, inf, loss, 1e-4, 30],
        unbalanced_sinkhorn(p.cost, p.a, p.b, 0.1, 0.3, inf, loss, 1e-4, 30, backend="ext"),
        range(5))  # fmt: skip
    add("KlTransport", [n, m, cost, a, b, 0.3, inf if loss else 0.5, 1e-6, 30],
        kl_transport(p.cost, p.a, p.b, 0.3, inf if loss else 0.5, 1e-6, 30, backend="ext"),
        range(7))  # fmt: skip
    add("FgwBackward", [n, m, d.to(plan), x, y, alpha, loss, pairs],
        torch.ops.hotnas.fgw_backward(*backward), range(3))  # fmt: skip
    add("EntropicFgw",
        [n, m, cost, x, y, a, b, alpha, null, 0.2, loss, pairs, 0, 1e-4, 5, 1e-4, 20],
        entropic_fgw(*p.tensors(), none, 0.2, loss, pairs, 0, 1e-4, 5, 1e-4, 20, backend="ext"),
        range(6))  # fmt: skip
    add("LowerBound", [n, m, cost, x, y, a, b, alpha, loss, pairs],
        fgw_lower_bound(*p.tensors(), loss, pairs, backend="ext"), range(1))  # fmt: skip
    side = [("q", batch), n, d.to(labels_x), d.to(feature_x), x, a]
    side += [("q", batch), m, d.to(labels_y), d.to(feature_y), y, b]
    add("CellDistances",
        [*side, d.to(table), 3, 1, d.to(index), d.to(other), (real, 0.5), loss, pairs, 0, 3, 0,
         null, 1e-4, 50],
        cell_distances(labels_x, feature_x, p.struct_x, p.a, labels_y, feature_y, p.struct_y, p.b,
                       table, index, other, 0.5, loss, pairs, 0, 3, none, 1e-4, 50, backend="ext"),
        range(4))  # fmt: skip
    side = [("q", batch), n, d.to(labels_x), a, d.to(feature_x)]
    side += [("q", batch), m, d.to(labels_y), b, d.to(feature_y)]
    add("NetworkDistances", [*side, d.to(table), ("q", 3), ("q", 3), 1, d.to(index), d.to(other)],
        network_distances(table, labels_x, p.a, feature_x, labels_y, p.b, feature_y, index, other,
                          backend="ext"),
        range(1))  # fmt: skip
    return found


def work_space(name: str, dtype: torch.dtype, nodes: int) -> tuple[int, int]:
    """Bytes of shared and of global memory per problem that the launcher hands out, and no more."""
    bits = 8 * dtype.itemsize
    for line in torch.ops.hotnas.cuda_kernels().splitlines():
        operator, *numbers = line.split()
        if [operator, *map(int, numbers[:2])] == [name, bits, nodes]:
            return int(numbers[3]), int(numbers[4])
    raise AssertionError(f"the core has no such kernel: {name} {bits} {nodes}")


DESCENTS = {"Fgw": 1, "CellDistances": 0, "SemirelaxedFgw": 1}
"""Operators that descend to a local minimum, and which of their results is its value."""

OPERATORS = [
    "Transport",
    "Sinkhorn",
    "EntropicTransport",
    "Fgw",
    "SemirelaxedFgw",
    "UnbalancedSinkhorn",
    "KlTransport",
    "FgwBackward",
    "EntropicFgw",
    "LowerBound",
    "CellDistances",
    "NetworkDistances",
]


def assert_as_on_the_cpu(
    name: str, device: Device, expected: Any, places: Any, items: Sequence[int]
) -> None:
    """Compare what a kernel left with what the CPU's operator gives."""
    tolerance = 1e-5 if expected[0].dtype == torch.float32 else 1e-9
    if name in DESCENTS:
        # lanes add in another order, and of two vertices that are as good either may be found
        tolerance = 1e-4
        expected, places = ([part[DESCENTS[name]]] for part in (expected, places))
    for value, place in zip(expected, places, strict=True):
        torch.testing.assert_close(
            device.back(place, value)[items],
            value[items],
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
        )


def check(
    name: str,
    compiled: Compile,
    rng: torch.Generator,
    shape: tuple[int, int] = (5, 8),
    dtype: torch.dtype = torch.float32,
    nodes: int = 8,
    terms: tuple[int, int] = (0, 1),
    without: str = "",
) -> Tally:
    """Run the first warp of a block of a kernel, of that for up to `nodes`; compare with the CPU.

    The block's other warps do not run; an access beyond the work space is a fault. Each group of
    lanes takes one item, and whichever is done first another one, in the same work space.
    """
    lanes = lanes_for(nodes)
    width = 128 if lanes == 32 else 256
    groups = width // lanes
    ran = [*range(32 // lanes), groups]
    text = compiled(name, "float" if dtype == torch.float32 else "double")
    program = Program(text.replace(without, "") if without else text, f"ELi{nodes}EE")
    device = Device()
    p = graphs(rng, groups + 1, *shape, absent=0.2).to(dtype)
    arguments, expected, places = calls(p, device, *terms)[name]
    near, far = work_space(name, dtype, nodes)
    space = device.to(torch.zeros(far * (32 // lanes), dtype=torch.uint8))
    tally = program.run(
        device.memory,
        [
            arguments,
            struct.pack("q", groups + 1),
            struct.pack("QQ", near, far),
            structure(space),
            structure(device.to(torch.zeros(1, dtype=torch.int64))),
        ],
        threads=range(32),
        width=width,
        shared=near * (32 // lanes),
    )
    assert_as_on_the_cpu(name, device, expected, places, ran)
    return tally


# with 37 columns, of which a fifth is absent, some problems leave a row of lanes without any
@pytest.mark.parametrize(("shape", "nodes"), [((1, 1), 8), ((5, 8), 8), ((8, 8), 8), ((5, 37), 64)])
def test_transport_as_on_the_cpu(
    shape: tuple[int, int], nodes: int, compile_ptx: Compile, rng: torch.Generator
) -> None:
    check("Transport", compile_ptx, rng, shape, nodes=nodes)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_as_on_the_cpu(
    name: str, dtype: torch.dtype, compile_ptx: Compile, rng: torch.Generator
) -> None:
    check(name, compile_ptx, rng, (7, 8), dtype)
    check(name, compile_ptx, rng, (4, 3), dtype, terms=(1, 2))
    check(name, compile_ptx, rng, (9, 6), dtype, nodes=16, terms=(0, 0))
    check(name, compile_ptx, rng, (3, 17), dtype, nodes=32, terms=(0, 2))
    check(name, compile_ptx, rng, (2, 37), dtype, nodes=64, terms=(0, 1))


# with 140 columns, of which a fifth is absent, some problems have one row of lanes and others two
@pytest.mark.parametrize(
    ("name", "shape"),
    [("Transport", (3, 140))]
    + [pytest.param(name, None, marks=pytest.mark.slow) for name in OPERATORS],
)
def test_a_block_works_on_a_large_problem(
    name: str, shape: tuple[int, int] | None, compile_ptx: Compile, rng: torch.Generator
) -> None:
    # more columns than a warp has lanes, and, where that does not take minutes, a second item
    if shape is None:
        dear = {"Fgw": (2, 33), "CellDistances": (2, 33), "LowerBound": (1, 33)}
        shape = dear.get(name, (5, 40))
    items = 1 if name in ("CellDistances", "LowerBound") else 2
    program = Program(compile_ptx(name, "float"), "6blocks")
    device = Device()
    p = graphs(rng, 2, *shape, absent=0.2).to(torch.float32)
    arguments, expected, places = calls(p, device, 0, 1)[name]
    far = 8 << 20
    space = device.to(torch.zeros(far, dtype=torch.uint8))
    values = [arguments, struct.pack("q", items), struct.pack("QQ", 0, far), structure(space)]
    values.append(structure(device.to(torch.zeros(1, dtype=torch.int64))))
    program.run(device.memory, values, threads=range(128), shared=128, steps=500_000_000)
    assert_as_on_the_cpu(name, device, expected, places, list(range(items)))


def test_a_barrier_that_is_gone_is_missed(compile_ptx: Compile, rng: torch.Generator) -> None:
    text = compile_ptx("Transport", "float")
    barrier = re.search(r"\tbar\.warp\.sync[^\n]*\n", text)
    assert barrier is not None
    with pytest.raises(Fault, match="with no barrier between"):
        check("Transport", compile_ptx, rng, without=barrier[0])


def test_barriers_of_a_block_order_its_warps() -> None:
    stores = "st.global.u32 [%rd4], %r1; BARRIER; ld.global.u32 %r2, [%rd2];"

    def run(barrier: str) -> Tally:
        body = stores.replace("BARRIER", barrier)
        program, memory = Program(KERNEL.replace("BODY", body)), Memory()
        out = struct.pack("Q", memory.upload(bytes(4 * 64)))
        return program.run(memory, [out], threads=range(64), shared=0, steps=10_000)

    assert run("bar.sync 0").instructions > 0
    with pytest.raises(Fault, match=r"thread 32 reads what thread 0 writes"):
        run("bar.warp.sync -1")


KERNEL = """
.visible .entry kernel(
	.param .u64 kernel_param_0
)
{
	.reg .b32 %r<9>;
	ld.param.u64 	%rd1, [kernel_param_0];
	cvta.to.global.u64 	%rd2, %rd1;
	mov.u32 	%r1, %tid.x;
	mul.wide.u32 	%rd3, %r1, 4;
	add.s64 	%rd4, %rd2, %rd3;
	BODY
	ret;
}
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("st.global.u32 [%rd4], %r1;", None),
        ("st.global.u32 [%rd4+4], %r1;", "store of 4 bytes outside"),
        ("ld.global.u32 %r2, [%rd4+-4];", "load of 4 bytes outside"),
        ("ld.global.u32 %r2, [%rd4+2];", "load of 4 bytes (outside|at an address)"),
        ("st.global.u32 [%rd2], %r1;", "thread 1 writes what thread 0 writes"),
        ("st.global.u32 [%rd4], %r1; ld.global.u32 %r2, [%rd2];", "thread 1 reads what thread 0"),
        ("st.global.u32 [%rd4], %r1; bar.warp.sync 15; ld.global.u32 %r2, [%rd2];", None),
        ("bar.warp.sync 14;", "not in the mask"),
        ("bar.warp.sync 31;", "which are not there"),
        (
            "setp.eq.s32 %p1, %r1, 0; @%p1 bra $L1; bar.warp.sync 15; $L1: bar.warp.sync 15;",
            "meet at different instructions",
        ),
        ("$L1: bra $L1;", "no end in sight"),
        ("atom.global.add.u64 %rd5, [%rd2], 1;", None),
        ("atom.global.add.u64 %rd5, [%rd4], 1;", "atomic addition of 8 bytes (outside|at an addr)"),
        (
            "atom.global.add.u64 %rd5, [%rd2], 1; ld.global.u32 %r2, [%rd2];",
            "thread 0 reads what thread 0 adds to",
        ),
        ("mov.u32 %r3, 0; shfl.sync.idx.b32 %r2|%p1, %r1, %r3, 6175, 15;", None),
        (
            "mov.u32 %r3, 5; shfl.sync.idx.b32 %r2|%p1, %r1, %r3, 31, 15;",
            "asks a lane that is not in its mask",
        ),
    ],
)
def test_what_no_kernel_may_do(body: str, says: str | None) -> None:
    program, memory = Program(KERNEL.replace("BODY", body)), Memory()
    out = struct.pack("Q", memory.upload(bytes(16)))

    def run() -> Tally:
        return program.run(memory, [out], threads=range(4), shared=0, steps=1000)

    if says is None:
        assert run().instructions >= 7
    else:
        with pytest.raises(Fault, match=says):
            run()


def test_every_thread_gets_another_number_from_a_queue() -> None:
    body = "add.s64 %rd6, %rd2, 64; atom.global.add.u64 %rd5, [%rd6], 1; cvt.u32.u64 %r2, %rd5;"
    program = Program(KERNEL.replace("BODY", body + " st.global.u32 [%rd4], %r2;"))
    memory = Memory()
    out = memory.upload(bytes(72))
    program.run(memory, [struct.pack("Q", out)], threads=range(16), shared=0)
    *numbers, queue = struct.unpack("16iQ", memory.download(out, 72))
    assert sorted(numbers) == list(range(16))
    assert queue == 16


def test_a_shuffle_brings_what_the_first_lane_of_a_section_has() -> None:
    # as __shfl_sync(mask, value, 0, 8): the bits above 8 hold the section
    body = "mov.u32 %r3, 0; shfl.sync.idx.b32 %r2|%p1, %r1, %r3, 6175, -1;"
    program = Program(KERNEL.replace("BODY", body + " st.global.u32 [%rd4], %r2;"))
    memory = Memory()
    out = memory.upload(bytes(128))
    program.run(memory, [struct.pack("Q", out)], threads=range(32), shared=0)
    found = struct.unpack("32i", memory.download(out, 128))
    assert found == tuple(k // 8 * 8 for k in range(32))


def test_unknown_instructions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown instruction tanh\.approx\.f32"):
        Program(KERNEL.replace("BODY", "tanh.approx.f32 %f1, %f2;"))
