"""Runs CUDA kernels on the CPU, from the compiler's PTX: warps without a GPU.

    program = Program(compile_kernels(nvcc, "Transport", "float"), "ELi8EE")
    memory = Memory()
    cost = memory.upload(tensor.numpy().tobytes())
    values = [structure(8, 8, ("P", cost), ...), ...]
    tally = program.run(memory, values, threads=range(32), shared=4096)

A warp's threads run one at a time until an instruction of the warp (barrier, shuffle, vote,
reduction) and meet there: those that its mask names must come to the same instruction; at a barrier
of the block, all of its threads. Every access has to lie in memory that was uploaded, and a word
that one thread wrote is another's only after a barrier of their warp, or of the block where they
are in different warps. Arithmetic is rounded as the instruction says; approximate instructions
(`ex2`, `div.full`, `rcp`) are exact here.

This is for tests and for counting instructions; it interprets some millions of them a second.
"""

import math
import re
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from ctypes import c_float
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

__all__ = ["CYCLES", "Fault", "Memory", "Program", "Tally", "compile_kernels", "structure"]

CYCLES = {
    "ld.global": 250, "ld.shared": 30, "ld.param": 10, "shfl.sync": 25, "vote.sync": 12,
    "redux.sync": 25, "bar.warp": 10, "special": 20, "f64": 8, "mov": 2, "atom.global": 500,
}  # fmt: skip
"""Cycles until a result can be used, by kind of instruction; 5 for all others.

Global memory is what the second-level cache takes.
"""

_GLOBAL = 1 << 32
_SHARED = 1 << 20
_FORMATS = {"f32": "f", "f64": "d", "u64": "Q", "s64": "q", "u32": "I", "s32": "i", "b32": "I"}
_FORMATS |= {"b64": "Q", "u16": "H", "u8": "B"}
_KERNELS = Path(__file__).parents[2] / "csrc" / "cuda" / "kernels.cu"
_ALL = 1 << 32  # in place of a mask: the whole block
_WARP = ("bar.warp.sync", "bar.sync", "shfl.sync", "vote.sync", "redux.sync")


def compile_kernels(nvcc: str | Path, operator: str, scalar: str) -> str:
    """Compile the kernels of one operator for sm_90 with the options of the build.

    Args:
        nvcc: The compiler.
        operator: Such as `"Fgw"`; its item is `FgwItem` of `csrc/items`.
        scalar: `"float"` or `"double"`.

    Returns:
        PTX.

    Raises:
        subprocess.CalledProcessError: It does not compile.
    """
    defines = [f'-DHOTNAS_NAME="{operator}"', f"-DHOTNAS_ITEM={operator}Item"]
    defines += [f"-DHOTNAS_TYPE={scalar}"]
    options = ["-std=c++20", "-O3", "-arch=sm_90", "--prec-div=false"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.ptx"
        subprocess.run([nvcc, *options, *defines, "-ptx", "-o", path, _KERNELS], check=True)
        return path.read_text(encoding="utf-8")


def structure(*values: object) -> bytes:
    """Lay out a C structure.

    Args:
        *values: ints as `int`, floats as `double`; anything else as
            `(form, value)` with a form of Python's `struct`, such as `("P", address)`.
    """
    forms, flat = "", []
    for value in values:
        if isinstance(value, tuple):
            form, content = value
        else:
            form, content = "d" if isinstance(value, float) else "i", value
        forms += form
        flat.append(content)
    return struct.pack(f"@{forms}0P", *flat)


class Fault(Exception):
    """A kernel did what it must not do on a GPU."""


_BLOCK = 1 << 32
"""Barriers of the block count in such steps, those of a warp in steps of 1."""


def _unordered(
    other: tuple[int, int] | None, thread: int, epoch: int
) -> TypeGuard[tuple[int, int]]:
    """Whether no barrier lies between now and the access of another thread."""
    if other is None or other[0] == thread:
        return False
    if other[0] // 32 == thread // 32:
        return other[1] == epoch
    return other[1] // _BLOCK == epoch // _BLOCK


class Memory:
    """Global or shared memory; tells what lies outside of it and what threads race for."""

    def __init__(self, base: int = _GLOBAL) -> None:
        self.base = base
        self.data = bytearray()
        self.valid = bytearray()
        self.written: dict[int, tuple[int, int]] = {}
        self.read: dict[int, tuple[int, int]] = {}
        self.added: dict[int, int] = {}

    def upload(self, content: bytes) -> int:
        """Place bytes, with a gap before and after; return their address."""
        gap = bytes(256 + -len(self.data) % 256)
        self.data += gap
        self.valid += bytes(len(gap))
        address = self.base + len(self.data)
        self.data += content
        self.valid += b"\1" * len(content)
        return address

    @property
    def touched(self) -> int:
        """Words of the last run, each counted once."""
        return len(self.written.keys() | self.read.keys())

    def download(self, address: int, size: int) -> bytes:
        """Return bytes that the kernel may have changed."""
        return bytes(self.data[address - self.base :][:size])

    def _at(self, address: int, size: int, what: str) -> int:
        at = address - self.base
        if at < 0 or self.valid[at : at + size] != b"\1" * size:
            raise Fault(f"{what} of {size} bytes outside of the memory that it was given")
        if at % size:
            raise Fault(f"{what} of {size} bytes at an address that is not a multiple of it")
        return at

    def load(self, address: int, form: str, size: int, thread: int, epoch: int) -> Any:
        """Read one scalar."""
        at = self._at(address, size, "load")
        if _unordered(owner := self.written.get(at), thread, epoch):
            raise Fault(
                f"thread {thread} reads what thread {owner[0]} writes, with no barrier between"
            )
        self._not_added(at, thread, "reads")
        self.read[at] = (thread, epoch)
        return struct.unpack_from(form, self.data, at)[0]

    def _not_added(self, at: int, thread: int, does: str) -> None:
        if at in self.added:
            raise Fault(f"thread {thread} {does} what thread {self.added[at]} adds to")

    def add(self, address: int, more: int, thread: int) -> int:
        """Add to an integer of 64 bits in one step; return what was there.

        Additions are in no order among themselves, so that nothing else may be done there.
        """
        at = self._at(address, 8, "atomic addition")
        for log, does in ((self.written, "writes"), (self.read, "reads")):
            if at in log:
                raise Fault(f"thread {thread} adds to what thread {log[at][0]} {does}")
        self.added[at] = thread
        before: int = struct.unpack_from("Q", self.data, at)[0]
        struct.pack_into("Q", self.data, at, (before + more) % (1 << 64))
        return before

    def store(
        self, address: int, form: str, size: int, value: Any, thread: int, epoch: int
    ) -> None:
        """Write one scalar."""
        at = self._at(address, size, "store")
        for log, does in ((self.written, "writes"), (self.read, "reads")):
            if _unordered(other := log.get(at), thread, epoch):
                raise Fault(
                    f"thread {thread} writes what thread {other[0]} {does}, with no barrier between"
                )
        self._not_added(at, thread, "writes")
        self.written[at] = (thread, epoch)
        struct.pack_into(form, self.data, at, value)


@dataclass(frozen=True, slots=True)
class Tally:
    """What the threads of one warp took.

    Each place of the text counts as often as the thread that came there most, which is what a warp
    issues when its threads part and meet again.

    Attributes:
        kinds: Instructions by kind.
        cycles: Cycles of a warp that is alone: instructions start in order, each when its operands
            are there; a run of instructions ends when all of its results are there.
    """

    kinds: Counter[str]
    cycles: int

    @property
    def instructions(self) -> int:
        """All instructions."""
        return sum(self.kinds.values())


class _Thread:
    """Registers and place of one thread."""

    def __init__(self, number: int, width: int, block: int, blocks: int, registers: int) -> None:
        self.number, self.width, self.block, self.blocks = number, width, block, blocks
        self.r: list[Any] = [0] * registers
        self.segment = 0
        self.epoch = 0


def _f32(value: float) -> float:
    return c_float(value).value


def _down(value: float) -> float:
    """Round to a float that is not larger."""
    near = _f32(value)
    if near <= value or not math.isfinite(near):
        return near
    bits = struct.unpack("i", struct.pack("f", near))[0]
    step = -1 if bits > 0 else 1
    return float(struct.unpack("f", struct.pack("i", bits + step))[0])


def _divide(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def _cast(value: Any, to: str, source: str) -> Any:
    return struct.unpack(to, struct.pack(source, value))[0]


def _least(a: float, b: float) -> float:
    return b if a != a or b < a else a


def _exp2(x: float) -> float:
    return math.inf if x > 1023 else 2.0**x


_NAMES: dict[str, Any] = {
    "F": _f32, "down": _down, "divide": _divide, "cast": _cast, "least": _least, "exp2": _exp2,
    "inf": math.inf, "nan": math.nan, "copysign": math.copysign, "log2": math.log2,
}  # fmt: skip
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_COMPARE |= {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
_KINDS = {"%p": "pred", "%f": "f32", "%fd": "f64", "%r": "b32", "%rd": "b64", "%rs": "b16"}


class Program:
    """One kernel.

    Args:
        text: PTX as nvcc writes it.
        entry: Part of the kernel's name.

    Raises:
        ValueError: No kernel has that name, or it has an instruction that is not known here.
    """

    def __init__(self, text: str, entry: str = "") -> None:
        bodies = re.findall(
            r"\.entry\s+(\w+)\((.*?)\)\s*(?:\.\w+[^\n]*\n)*\{(.*?)\n\}", text, re.DOTALL
        )
        chosen = [body for body in bodies if entry in body[0]]
        if not chosen:
            raise ValueError(f"no kernel {entry!r} among {[body[0] for body in bodies]}")
        name, parameters, body = chosen[0]
        self.parameters = re.findall(rf"{name}_param_\d+", parameters)
        self._symbols: dict[str, int] = {}
        self._registers: dict[str, int] = {}
        body = re.sub(r"//[^\n]*", "", body)
        lines = [line.strip() for line in body.split("\n")]
        self._parse([line for line in lines if line not in ("", "{", "}") and line[0] != "."])

    def run(
        self,
        memory: Memory,
        values: Iterable[bytes],
        *,
        threads: Iterable[int],
        shared: int,
        width: int = 0,
        block: int = 0,
        blocks: int = 1,
        steps: int = 50_000_000,
    ) -> Tally:
        """Run threads of one block: some of a warp, or all.

        Args:
            memory: Global memory, which the kernel changes.
            values: Parameters in their order, as bytes.
            threads: Numbers within the block.
            shared: Bytes of shared memory.
            width: Threads of a block; 0 where all of them run.
            block: Number of the block.
            blocks: Blocks of the grid.
            steps: Instructions after which the kernel counts as endless.

        Returns:
            Instructions and cycles.

        Raises:
            Fault: An access outside of memory, a race, a barrier that not all of its threads reach.
        """
        near = Memory(_SHARED - 256)
        near.upload(bytes(shared))
        parameters = dict(zip(self.parameters, values, strict=True))
        memory.written, memory.read, memory.added = {}, {}, {}
        numbers = list(threads)
        width = width or len(numbers)
        alive = [_Thread(k, width, block, blocks, len(self._registers)) for k in numbers]
        visits: dict[int, Counter[int]] = {thread.number: Counter() for thread in alive}
        waiting: dict[int, tuple[int, _Thread]] = {}
        lane = {thread.number: thread for thread in alive}
        while alive:
            for thread in alive:
                if thread.number in waiting:
                    continue
                seen = visits[thread.number]
                while True:
                    segment = self._segments[thread.segment]
                    seen[thread.segment] += 1
                    steps -= segment.length
                    following, mask = segment.code(thread, thread.r, memory, near, parameters)
                    if following is None:
                        break
                    if mask is not None:
                        waiting[thread.number] = (mask, thread)
                        break
                    thread.segment = following
                    if steps < 0:
                        raise Fault("no end in sight")
                if following is None:
                    thread.segment = -1
            alive = [thread for thread in alive if thread.segment >= 0]
            released = False
            for number, (mask, thread) in list(waiting.items()):
                if number not in waiting:
                    continue
                if mask == _ALL:
                    named = list(lane)
                else:
                    named = [k + number // 32 * 32 for k in range(32) if mask >> k & 1]
                if number not in named:
                    raise Fault(f"thread {number} is not in the mask {mask:#x} with which it came")
                if not all(k in waiting for k in named):
                    gone = [k for k in named if k not in lane or lane[k].segment < 0]
                    if gone:
                        raise Fault(f"thread {number} waits for {gone}, which are not there")
                    continue
                places = {(waiting[k][1].segment, waiting[k][0]) for k in named}
                if len(places) > 1:
                    raise Fault(f"threads {named} meet at different instructions")
                group = [waiting.pop(k)[1] for k in named]
                self._segments[thread.segment].meet(group)
                for each in group:
                    each.segment += 1
                released = True
            if alive and not released:
                raise Fault("all threads wait")
        kinds: Counter[str] = Counter()
        cycles = 0
        for number, segment in enumerate(self._segments):
            most = max(seen[number] for seen in visits.values())
            cycles += most * segment.cycles
            for kind, times in segment.kinds.items():
                kinds[kind] += times * most
        return Tally(kinds, cycles)

    # ---------------------------------------------------------------------------- translation

    def _parse(self, lines: list[str]) -> None:
        """Cut into segments that end in a jump or an instruction of the warp; translate each."""
        text = " ".join(lines)
        text = re.sub(r"(\$\w+:)", r"\1;", text)
        statements = [part.strip() for part in text.split(";") if part.strip()]
        starts, pieces = {}, []
        current: list[str] = []
        for statement in statements:
            if statement.endswith(":"):
                if current:
                    pieces.append(current)
                    current = []
                starts[statement[:-1]] = len(pieces)
                continue
            current.append(statement)
            if re.match(r"(@!?%\w+ )?(bra|ret|exit)\b", statement) or statement.startswith(_WARP):
                pieces.append(current)
                current = []
        if current:
            pieces.append(current)
        self._starts = starts
        self._segments = [_Segment(self, k, piece) for k, piece in enumerate(pieces)]

    def register(self, name: str) -> str:
        """Return the expression of a register."""
        return f"r[{self._registers.setdefault(name, len(self._registers))}]"

    def operand(self, text: str) -> str:
        """Return the expression of a register, a number, or a symbol."""
        text = text.strip()
        if text == "%tid.x":
            return "t.number"
        if text == "%ctaid.x":
            return "t.block"
        if text == "%nctaid.x":
            return "t.blocks"
        if text == "%ntid.x":
            return "t.width"
        if text.startswith("%"):
            return self.register(text)
        if text.startswith("0f"):
            return repr(struct.unpack(">f", bytes.fromhex(text[2:]))[0])
        if text.startswith("0d"):
            return repr(struct.unpack(">d", bytes.fromhex(text[2:]))[0])
        if re.fullmatch(r"-?(0x[0-9A-Fa-f]+|\d+)U?", text):
            return str(int(text.rstrip("U"), 0))
        if text in self.parameters:
            return repr((text, 0))
        return str(_SHARED)  # the only other symbol is the block's shared memory

    def target(self, label: str) -> int:
        """Return the segment that a label begins."""
        return self._starts[label]


class _Segment:
    """A run of instructions without a way in or out but its ends."""

    def __init__(self, program: Program, number: int, statements: list[str]) -> None:
        self.length = len(statements)
        self.cycles = _cycles(statements)
        self.kinds: Counter[str] = Counter()
        self.program = program
        self.meet: Callable[[list[_Thread]], None] = lambda _: None
        lines = []
        for statement in statements:
            lines += self._translate(statement, number)
        body = "".join(f"  {line}\n" for line in [*lines, f"return {number + 1}, None"])
        scope = dict(_NAMES)
        exec(f"def code(t, r, far, near, parameters):\n{body}", scope)
        self.code: Callable[..., tuple[int | None, int | None]] = scope["code"]

    def _translate(self, statement: str, number: int) -> list[str]:
        guard = ""
        if match := re.match(r"@(!?)(%\w+)\s+", statement):
            guard = f"if {'not ' if match[1] else ''}{self.program.register(match[2])}: "
            statement = statement[match.end() :]
        name, _, rest = statement.replace("\t", " ").partition(" ")
        operands = _split(rest)
        self.kinds[_kind(name)] += 1
        if name in ("ret", "exit"):
            return [guard + "return None, None"]
        if name.startswith("bra"):
            return [f"{guard}return {self.program.target(operands[0])}, None"]
        if name.startswith(_WARP):
            return [f"return {number}, {self._meeting(name, operands)}"]
        try:
            return [guard + line for line in self._lines(name, operands)]
        except KeyError:
            raise ValueError(f"unknown instruction {name}") from None

    def _meeting(self, name: str, operands: list[str]) -> str:
        """Set what happens when the threads of the mask have met; return the mask's expression."""
        index = {
            operand: int(self.program.register(operand)[2:-1])
            for text in operands
            for operand in re.findall(r"%\w+", text)
        }

        def value(thread: _Thread, text: str) -> Any:
            return thread.r[index[text]] if text in index else int(text, 0)

        if name == "bar.sync":

            def meet(group: list[_Thread]) -> None:
                for thread in group:
                    thread.epoch = (thread.epoch // _BLOCK + 1) * _BLOCK

            self.meet = meet
            return str(_ALL)

        if name == "bar.warp.sync":

            def meet(group: list[_Thread]) -> None:
                for thread in group:
                    thread.epoch += 1

        elif name.startswith("shfl.sync.bfly"):
            to, own, distance = operands[0].split("|")[0], operands[1], operands[2]

            def meet(group: list[_Thread]) -> None:
                by_lane = {thread.number % 32: value(thread, own) for thread in group}
                for thread in group:
                    other = thread.number % 32 ^ value(thread, distance)
                    if other not in by_lane:
                        raise Fault(f"thread {thread.number} asks a lane that is not in its mask")
                    thread.r[index[to]] = by_lane[other]

        elif name.startswith("shfl.sync.idx"):
            to, own, lane, bounds = operands[0].split("|")[0], *operands[1:4]

            def meet(group: list[_Thread]) -> None:
                by_lane = {thread.number % 32: value(thread, own) for thread in group}
                for thread in group:
                    # the bits that say which section of the warp a lane belongs to
                    section = value(thread, bounds) >> 8
                    asked = thread.number % 32 & section | value(thread, lane) & ~section
                    if asked not in by_lane:
                        raise Fault(f"thread {thread.number} asks a lane that is not in its mask")
                    thread.r[index[to]] = by_lane[asked]

        elif name.startswith("vote.sync.ballot"):

            def meet(group: list[_Thread]) -> None:
                votes = 0
                for thread in group:
                    votes |= bool(value(thread, operands[1])) << thread.number % 32
                for thread in group:
                    thread.r[index[operands[0]]] = votes

        elif name == "redux.sync.min.s32":

            def meet(group: list[_Thread]) -> None:
                least = min((value(thread, operands[1]) ^ 1 << 31) for thread in group) ^ 1 << 31
                for thread in group:
                    thread.r[index[operands[0]]] = least

        else:
            raise ValueError(f"unknown instruction {name}")
        self.meet = meet
        return self.program.operand(operands[-1])

    def _lines(self, name: str, operands: list[str]) -> list[str]:
        parts = name.split(".")
        op, kind = parts[0], parts[-1]
        if op in ("ld", "st"):
            return self._memory(parts, operands)
        if name == "atom.global.add.u64":
            to, address, more = (self.program.operand(operand.strip("[]")) for operand in operands)
            return [f"{to} = far.add({address}, {more}, t.number)"]
        to = operands[0].split("|")[0]
        if to.startswith("{") or (op == "mov" and operands[1].startswith("{")):
            return self._halves(operands)
        source = [self.program.operand(operand) for operand in operands[1:]]
        value = self._value(op, parts, kind, operands, source)
        return [f"{self.program.register(to)} = {value}"]

    def _value(
        self, op: str, parts: list[str], kind: str, operands: list[str], source: list[str]
    ) -> str:
        a, b, c = (*source, "", "")[:3] if len(source) < 3 else source[:3]
        if op == "mov":
            return self._moved(operands, a)
        if op == "cvta":
            return a
        if op == "setp":
            return _compared(parts[1], kind, a, b)
        if op == "selp":
            return f"({a} if {c} else {b})"
        if op == "cvt":
            return _converted(parts, a)
        if kind == "pred":
            return {"and": f"({a} and {b})", "or": f"({a} or {b})", "xor": f"({a} != {b})",
                    "not": f"(not {a})"}[op]  # fmt: skip
        if kind in ("f32", "f64"):
            exact = {
                "add": f"{a} + {b}", "sub": f"{a} - {b}", "mul": f"{a} * {b}",
                "fma": f"{a} * {b} + {c}", "mad": f"{a} * {b} + {c}", "neg": f"-{a}",
                "abs": f"abs({a})", "min": f"least({a}, {b})", "max": f"-least(-{a}, -{b})",
                "div": f"divide({a}, {b})", "rcp": f"divide(1.0, {a})", "ex2": f"exp2({a})",
                "lg2": f"log2({a})", "copysign": f"copysign({b}, {a})",
            }[op]  # fmt: skip
            if "rm" in parts:
                return f"down({exact})"
            return f"F({exact})" if kind == "f32" else exact
        return _integer(op, parts, kind, a, b, c)

    def _moved(self, operands: list[str], a: str) -> str:
        to, source = (_register_kind(operand) for operand in operands[:2])
        if to in ("f32", "f64") and source in ("b32", "b64"):
            return f"cast({a}, '{_FORMATS[to]}', '{_FORMATS[source]}')"
        if to in ("b32", "b64") and source in ("f32", "f64"):
            return f"cast({a}, '{_FORMATS[to]}', '{_FORMATS[source]}')"
        if to in ("b32", "b64") and re.match(r"-\d", a):
            return str(int(a) % (1 << int(to[1:])))
        return a

    def _halves(self, operands: list[str]) -> list[str]:
        """`mov.b64` between a register of 64 bits and two of 32."""
        to, source = operands
        if to.startswith("{"):
            low, high = _split(to[1:-1])
            bits = self.program.operand(source)
            if _register_kind(source) == "f64":
                bits = f"cast({bits}, 'Q', 'd')"
            return [
                f"bits = {bits}",
                f"{self.program.register(low)} = bits & 0xffffffff",
                f"{self.program.register(high)} = bits >> 32",
            ]
        low, high = (self.program.operand(half) for half in _split(source[1:-1]))
        bits = f"({low} | {high} << 32)"
        if _register_kind(to) == "f64":
            bits = f"cast({bits}, 'd', 'Q')"
        return [f"{self.program.register(to)} = {bits}"]

    def _memory(self, parts: list[str], operands: list[str]) -> list[str]:
        op, space, kind = parts[0], parts[1], parts[-1]
        if space not in ("param", "global", "shared"):
            raise ValueError(f"unknown memory in {'.'.join(parts)}")
        form = _FORMATS[kind]
        size = struct.calcsize(form)
        address, data = (operands[1], operands[0]) if op == "ld" else operands[:2]
        base, _, offset = address.strip("[]").partition("+")
        base, offset = self.program.operand(base), int(offset or 0)
        names = _split(data.strip("{}"))
        where = "near" if space == "shared" else "far"
        lines = []
        for k, part in enumerate(names):
            at = f"{base} + {offset + k * size}, '{form}', {size}"
            if op == "st":
                value = _stored(self.program.operand(part), kind)
                lines.append(f"{where}.store({at}, {value}, t.number, t.epoch)")
                continue
            if space == "param":
                value = f"parameter(parameters, {base}, {offset + k * size}, '{form}')"
            else:
                value = f"{where}.load({at}, t.number, t.epoch)"
            to = _register_kind(part)
            if to in ("f32", "f64") and kind not in ("f32", "f64"):
                value = f"cast({value}, '{_FORMATS[to]}', '{form}')"
            elif kind in ("s32", "s64"):
                value = f"{value} & {(1 << (64 if to == 'b64' else 32)) - 1}"
            lines.append(f"{self.program.register(part)} = {value}")
        return lines


def _parameter(parameters: dict[str, bytes], at: tuple[str, int], offset: int, form: str) -> Any:
    name, begin = at
    return struct.unpack_from(form, parameters[name], begin + offset)[0]


_NAMES["parameter"] = _parameter


def _kind(name: str) -> str:
    """Class an instruction by what it costs."""
    op, *parts = name.split(".")
    if op in ("ld", "st", "atom"):
        return f"{op}.{parts[0]}"
    if name.startswith(_WARP):
        return ".".join(name.split(".")[:2])
    if op in ("mov", "cvta"):
        return "mov"
    if parts and parts[-1] == "f64":
        return "f64"
    if op in ("ex2", "lg2", "rcp", "div", "rem", "popc", "brev", "bfind"):
        return "special"
    return "jump" if op in ("bra", "ret", "exit") else "arithmetic"


def _cycles(statements: list[str]) -> int:
    """Cycles of instructions that start in order, until the last result is there."""
    clock = 0
    ready: dict[str, int] = {}
    for statement in statements:
        guard = re.match(r"@!?(%\w+)\s+", statement)
        name, _, rest = statement[guard.end() if guard else 0 :].replace("\t", " ").partition(" ")
        operands = _split(rest)
        results = [] if name.startswith(("st.", "bra", "bar.")) else operands[:1]
        needed = re.findall(r"%\w+", " ".join(operands[len(results) :]))
        needed += [guard[1]] if guard else []
        start = max([clock, *(ready.get(register, 0) for register in needed)])
        clock = start + 1
        for register in re.findall(r"%\w+", " ".join(results)):
            ready[register] = start + CYCLES.get(_kind(name), 5)
    return max([clock, *ready.values()])


def _split(text: str) -> list[str]:
    """Cut at commas outside of braces and brackets."""
    return [part.strip() for part in re.split(r",\s*(?![^{\[]*[}\]])", text.strip()) if part]


def _register_kind(name: str) -> str | None:
    match = re.match(r"(%(?:p|fd|f|rd|rs|r))\d+$", name.strip())
    return _KINDS[match[1]] if match else None


def _stored(value: str, kind: str) -> str:
    if kind in ("f32", "f64"):
        return value
    return f"{value} & {(1 << 8 * struct.calcsize(_FORMATS[kind])) - 1}"


def _signed(value: str, bits: int) -> str:
    if re.fullmatch(r"-?\d+", value):
        return value
    half = 1 << bits - 1
    return f"(({value} ^ {half}) - {half})"


def _compared(relation: str, kind: str, a: str, b: str) -> str:
    if kind[0] == "s":
        a, b = _signed(a, int(kind[1:])), _signed(b, int(kind[1:]))
    elif kind[0] in "ub":
        a, b = (str(int(x) % (1 << int(kind[1:]))) if re.match(r"-\d", x) else x for x in (a, b))
    if relation in ("num", "nan"):
        return f"({'' if relation == 'num' else 'not '}({a} == {a} and {b} == {b}))"
    if relation.endswith("u") and kind[0] == "f":
        return f"({a} {_COMPARE[relation[:-1]]} {b} or {a} != {a} or {b} != {b})"
    if relation == "ne" and kind[0] == "f":
        return f"({a} != {b} and {a} == {a} and {b} == {b})"
    return f"({a} {_COMPARE[relation]} {b})"


def _converted(parts: list[str], a: str) -> str:
    to, source = parts[-2], parts[-1]
    if "sat" in parts:
        return f"(0.0 if not {a} > 0 else 1.0 if {a} > 1 else {a})"
    if to[0] == "f":
        value = a if source[0] in "fu" else _signed(a, int(source[1:]))
        return f"F({value})" if to == "f32" else f"float({value})"
    if source[0] == "f":
        raise ValueError(f"unknown instruction {'.'.join(parts)}")
    value = _signed(a, int(source[1:])) if source[0] == "s" else a
    return f"({value}) & {(1 << int(to[1:])) - 1}"


def _integer(op: str, parts: list[str], kind: str, a: str, b: str, c: str) -> str:
    bits = int(kind[1:])
    every = (1 << bits) - 1
    signed = kind[0] == "s"
    sa, sb = (_signed(x, bits) if x else "" for x in (a, b))
    if "wide" in parts:
        wide = (1 << 2 * bits) - 1
        product = f"{sa} * {sb}" if signed else f"{a} * {b}"
        return f"({product}{f' + {c}' if op == 'mad' else ''}) & {wide}"
    return {
        "add": f"add({a}, {b}, {every})",
        "sub": f"({a} - {b}) & {every}",
        "mul": f"({a} * {b}) & {every}",
        "mad": f"({a} * {b} + {c}) & {every}",
        "div": f"quotient({sa}, {sb}) & {every}" if signed else f"{a} // {b}",
        "rem": f"{sa} - {sb} * quotient({sa}, {sb}) & {every}" if signed else f"{a} % {b}",
        "neg": f"-{a} & {every}",
        "abs": f"abs({sa}) & {every}",
        "not": f"{a} ^ {every}",
        "and": f"({a} & {b}) & {every}",
        "or": f"({a} | {b}) & {every}",
        "xor": f"({a} ^ {b}) & {every}",
        "shl": f"({a} << {b}) & {every} if {b} < {bits} else 0",
        "shr": f"{sa} >> min({b}, {bits - 1}) & {every}"
        if signed
        else f"({a} >> {b} if {b} < {bits} else 0)",
        "min": f"min({sa}, {sb}) & {every}" if signed else f"min({a}, {b})",
        "max": f"max({sa}, {sb}) & {every}" if signed else f"max({a}, {b})",
        "popc": f"({a}).bit_count()",
        "brev": f"int(format({a}, '032b')[::-1], 2)",
        "bfind": f"(32 - ({a}).bit_length() if {a} else 0xffffffff)",
    }[op]


def _add(a: Any, b: Any, every: int) -> Any:
    """Sum of integers; an address within a parameter moves within it."""
    if isinstance(a, tuple):
        return a[0], a[1] + (b if b <= every >> 1 else b - every - 1)
    return (a + b) & every


def _quotient(a: int, b: int) -> int:
    """Quotient of integers, rounded towards 0."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_NAMES["add"] = _add
_NAMES["quotient"] = _quotient
