"""Matchings to draw."""

import pytest

from hotnas_torch import spaces
from hotnas_torch.distances import HOTNN


@pytest.fixture(scope="module")
def matching():
    space = spaces.get("nasbench201")
    texts = [
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
        "|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    ]
    metric = HOTNN(space=space)
    networks = [space.from_string(text) for text in texts]
    result = metric.matching(*networks)
    return result, metric.ifgw.matching(networks[0].cells[0], networks[1].cells[0])
