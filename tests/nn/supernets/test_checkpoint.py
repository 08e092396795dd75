import io
import json
import math
import re
import zipfile

import pytest
import torch

from hotnas_torch.errors import StorageError
from hotnas_torch.nn.supernets.checkpoint import applying, read_checkpoint, write_checkpoint

IDENTITY = {"seed": 0}


def read(path):
    return read_checkpoint(path, IDENTITY, kind="search", device=torch.device("cpu"))


@pytest.fixture
def path(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {"weights": torch.randn(40, generator=generator), "epochs": "[1, 2]"}
    write_checkpoint(tmp_path / "search.pt", IDENTITY, state)
    return tmp_path / "search.pt"


def test_no_damaged_byte_goes_unnoticed(path):
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(StorageError, match=f"{re.escape(str(path))} is no checkpoint"):
            read(path)
    for end in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(StorageError, match="is no checkpoint of a search"):
            read(path)


def test_others_can_read_it_and_earlier_ones_are_read(path, tmp_path):
    state = read(path)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], state["weights"])
    buffer = io.BytesIO()
    torch.save({"version": 1, "identity": json.dumps(IDENTITY), "weights": torch.ones(64)}, buffer)
    old = tmp_path / "old.pt"
    old.write_bytes(buffer.getvalue())
    assert torch.equal(read(old)["weights"], torch.ones(64))
    content = bytearray(buffer.getvalue())
    content[content.index(torch.ones(64).numpy().tobytes()) + 9] ^= 1
    old.write_bytes(content)
    with pytest.raises(StorageError, match="is no checkpoint"):
        read(old)


@pytest.mark.parametrize(
    "content",
    [
        *({"version": v, "identity": "{}"} for v in ("new", "1", 1.5, -1, 0, True, math.inf)),
        {"version": 1, "identity": "[" * 100_000},
        {"version": 1, "identity": "7"},
        {"version": 1},
        [1],
    ],
)
def test_other_content_is_refused(tmp_path, content):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(StorageError, match="is no checkpoint of a search"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(StorageError, match="is no checkpoint of a search"):
        read(path)
    with (
        pytest.raises(StorageError, match=r"a\.pt does not fit this search: KeyError"),
        applying(path, "search"),
    ):
        {}["epochs"]
