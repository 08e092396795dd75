"""The small architectures of the distances' tests."""

from tests.distances.conftest import cells, networks, tree

__all__ = ["cells", "networks", "tree"]
