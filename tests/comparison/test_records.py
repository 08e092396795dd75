import json

import pytest

from hotnas_torch.comparison.records import Record, path_of, read_record, write_record
from hotnas_torch.errors import StorageError

RECORD = Record("t", "m", 0, {}, ("a", "b"), (1.0, 2.0), (0.0, 0.0), (1.0, 1.0), 0.5, (3, 3))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "0"},
        {"networks": ["a"]},
        {"networks": "ab"},
        {"values": [1.0, 2.0, 3.0]},
        {"values": [1.0, "x"]},
        {"reported": [1.0, None]},
        {"identity": []},
        {"better": [1.5, 2.0]},
        {"version": "2"},
        {"version": 1.5},
        {"version": -1},
        {"seed": 1.0},
        {"best_value": True},
        {"more": 1},
    ],
)
def test_a_record_of_another_form_is_refused(tmp_path, change):
    write_record(RECORD, tmp_path)
    path = path_of(tmp_path, "t", "m", 0)
    assert read_record(path) == RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StorageError, match="is no record of a comparison"):
        read_record(path)
    for text in ("[" * 100_000, "7", "", "1" * 5000):
        path.write_text(text)
        with pytest.raises(StorageError, match="is no record of a comparison"):
            read_record(path)
