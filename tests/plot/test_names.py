from hotnas_torch.arch import Operation
from hotnas_torch.plot import short_name
from hotnas_torch.plot.names import operation_names


def test_short_names_fit():
    assert short_name("64-1234-basic") == "64-1234-basic"
    cell = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    assert short_name(cell) == "conv3 + none avgpool3 + skip conv1 none"
    long = short_name("x" * 50 + "y" * 50, 21)
    assert len(long) == 21
    assert long == "x" * 10 + "…" + "y" * 10


def test_operations_are_named_by_their_kind_and_the_numbers_that_tell_most():
    def conv(**numbers):
        return str(Operation("conv", **({"groups": 1, "kernel": 3, "width": 8} | numbers)))

    assert operation_names(["relu", "odd[3x3]", "odd]"]) == {
        x: x for x in ("relu", "odd[3x3]", "odd]")
    }
    assert operation_names([conv()])[conv()] == "conv\nkernel 3, width 8"
    assert operation_names([conv(kernel=1, width=1)])[conv(kernel=1, width=1)] == "conv"
    # What tells two apart comes before what they share, however little it tells of one alone.
    pair = [conv(positions=1024, dilation=1), conv(positions=1024, dilation=2)]
    assert list(operation_names(pair).values()) == [
        "conv\nkernel 3, dilation 1",
        "conv\nkernel 3, dilation 2",
    ]
    three = [conv(kernel=k, width=w, gain=g) for k in (3, 5) for w in (8, 512) for g in (1.5, 2.25)]
    names = operation_names(three)
    assert len(set(names.values())) == 8
    assert names[three[0]] == "conv\nkernel 3, width 8\ngain 1.5"
    assert operation_names([*pair, "conv"])["conv"] == "conv"
