from hotnas_torch.plot import short_name


def test_short_names_fit():
    assert short_name("64-1234-basic") == "64-1234-basic"
    cell = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    assert short_name(cell) == "conv3 + none avgpool3 + skip conv1 none"
    long = short_name("x" * 50 + "y" * 50, 21)
    assert len(long) == 21
    assert long == "x" * 10 + "…" + "y" * 10
