"""Strings and descriptions that no space wrote are refused by the library's own error."""

import json

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Cell
from hotnas_torch.errors import ArchitectureError

JUNK = ("[", "|", "~", "9" * 5000, "\u00b2", "\uff11", "-1", "\ud800", "\0", "(", "1_0", "\n")


@pytest.mark.parametrize("name", spaces.NAMES)
def test_strings_with_junk_are_refused(name):
    space = spaces.get(name)
    generator = torch.Generator().manual_seed(0)
    for net in space.sample(3, generator=generator):
        text = space.to_string(net)
        for place in range(0, len(text), 3):
            for junk in set(JUNK) - {text[place]}:
                with pytest.raises(ArchitectureError):
                    space.from_string(text[:place] + junk + text[place + 1 :])


def test_a_description_nested_without_end_is_refused():
    deep = []
    for _ in range(5000):
        deep = [deep]
    good = json.loads(json.dumps(Cell(("input", "output"), ((0, 1),)).to_json()))
    for key in good:
        with pytest.raises(ArchitectureError):
            Cell.from_json(good | {key: deep})
