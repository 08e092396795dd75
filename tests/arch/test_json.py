"""Checks on parsed JSON and digests that do not depend on the run."""

import pytest

from hotnas_torch.arch._json import check_value, content_digest
from hotnas_torch.errors import ArchitectureError


@pytest.mark.parametrize(("value", "kind"), [(1, float), (1.5, float), (2, int), ("x", str)])
def test_values_of_the_right_kind_pass_unchanged(value: object, kind: type) -> None:
    assert check_value(value, kind, "x") is value


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, float, "x must be a number; got True of type bool"),
        (1.0, int, "x must be an integer; got 1.0 of type float"),
        (None, dict, "x must be an object; got None of type NoneType"),
    ],
)
def test_other_kinds_are_named(value: object, kind: type, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        check_value(value, kind, "x")


def test_digest_depends_on_content_alone() -> None:
    assert content_digest([["a"], [[0, 1]]]) == content_digest((("a",), ((0, 1),)))
    assert content_digest(["a", "b"]) != content_digest(["ab"])
    assert len(content_digest(None)) == 32
