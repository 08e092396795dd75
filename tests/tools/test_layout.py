"""The script that measures the house, on houses whose measures are known."""

from pathlib import Path

from tools.layout import PASSAGE, measure, repeated


def test_passages_that_stand_twice_are_counted_and_imports_are_not(tmp_path: Path) -> None:
    imports = "".join(f"import module_{number}\n" for number in range(PASSAGE))
    passage = "".join(f"value_{number} = {number}\n" for number in range(PASSAGE // 3 + 1))
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text(imports + "a = 1\n" + passage)
    two.write_text(imports + "# said otherwise\n" + passage + "b = 2\n")
    assert repeated([one, two]) == (1, 2 * (PASSAGE // 3 + 1))
    two.write_text(imports + passage.replace("value_3 ", "other "))
    assert repeated([one, two]) == (0, 0)


def test_a_small_house_is_measured(tmp_path: Path) -> None:
    package = tmp_path / "hotnas_torch"
    for folder in ("", "part", "part/_private"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").write_text('__all__ = ["Wide"]\n' + _WIDE)
    (package / "long.py").write_text("x = 1\n" * 401)
    found = measure(tmp_path)
    assert found["folders of the package"] == "1 and 1 inside them"
    assert found["modules over 400 lines"] == "1 (longest: long.py, 401)"
    assert found["exported names"] == "2 by 2 public packages, 1 distinct"
    assert found["largest public constructor"].startswith("11 parameters (hotnas_torch")
    assert found["public constructors over 10 parameters"] == "2"


_WIDE = f"""
class Wide:
    def __init__(self, {", ".join(f"a{number}" for number in range(10))}, *, b=1, **more): ...
"""
