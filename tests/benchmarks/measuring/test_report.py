import json
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks.measuring import machine
from benchmarks.measuring.machine import Load
from benchmarks.measuring.report import Claim, Column, Report, Table, number


def table() -> Table:
    columns = (Column("name", "solver"), Column("rate", "pairs/s", number()))
    rows = [{"name": "ours", "rate": 123456.7}, {"name": "other", "rate": None}]
    return Table("rates", "Rates", columns, rows)


def test_tables_line_up() -> None:
    lines = table().markdown().splitlines()[2:]
    assert lines[0] == "| solver | pairs/s |"
    assert lines[2] == "| ours   | 123,457 |"
    assert lines[3] == "| other  |       - |"
    assert {len(line) for line in lines} == {len(lines[0])}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.8, "1,234,568"),
        (12, "12"),
        (0.12345, "0.123"),
        (1.2e-7, "1.20e-07"),
        (0.0, "0"),
        (-2345.6, "-2,346"),
        (True, "yes"),
        (None, "-"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number()(value) == text


def test_a_claim_is_met_at_its_target_and_never_by_nan() -> None:
    assert Claim("c", ">=", 2.0, 2.0).met
    assert not Claim("c", ">=", 2.0, 1.9).met
    assert Claim("c", "<=", 2.0, 1.9).met
    assert not Claim("c", "<=", 2.0, math.nan).met


def test_a_report_says_with_what_it_was_measured(tmp_path: Path) -> None:
    report = Report("x", "why?", {"seed": 3}, [table()], [Claim("c", "<=", 2.0, 3.0)], ["n"])
    with Load() as load:
        pass
    report.load = load
    report.figures["more"] = Figure()
    report.write(tmp_path)
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["versions"].keys() >= {"hotnas_torch", "torch", "numpy", "POT", "python"}
    assert document["machine"].keys() >= {"processor", "instruction_set", "torch_threads"}
    assert document["tables"]["rates"][0] == {"name": "ours", "rate": 123456.7}
    assert document["claims"][0]["met"] is False
    assert document["settings"] == {"seed": 3}
    assert document["date"].endswith("+00:00")
    text = (tmp_path / "x.md").read_text()
    assert "| ours   | 123,457 |" in text
    assert "![x-more](x-more.png)" in text
    assert (tmp_path / "x-more.png").stat().st_size > 0
    assert document["revision"] == machine.revision()
