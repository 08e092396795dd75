import json
from pathlib import Path

from benchmarks.measuring.records import recorded


def test_what_is_recorded_is_not_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "squares.jsonl"
    measured = []

    def measure(key: dict[str, int]) -> dict[str, int]:
        measured.append(key["number"])
        return {"square": key["number"] ** 2}

    def ask(*numbers: int, version: int = 1) -> list[dict[str, int]]:
        wanted = [{"number": number} for number in numbers]
        return recorded(file, {"version": version}, wanted, measure, title="squares")

    assert ask(1, 2) == [{"number": 1, "square": 1}, {"number": 2, "square": 4}]
    assert ask(3, 1) == [{"number": 3, "square": 9}, {"number": 1, "square": 1}]
    assert measured == [1, 2, 3]
    # An interrupted run leaves half a line, which costs that measurement and no other.
    text = file.read_text()
    file.write_text(text[: text.index('"square": 9')])
    assert [one["square"] for one in ask(1, 2, 3, 4)] == [1, 4, 9, 16]
    assert measured == [1, 2, 3, 3, 4]
    ask(1, version=2)
    assert measured == [1, 2, 3, 3, 4, 1]
    assert sum(json.loads(line)["key"]["number"] == 3 for line in _whole(file)) == 1


def _whole(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line.endswith("}")]
