"""What a search with a model is asked beyond the contract's cheap questions."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before those that -m leaves out are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole searches are slow; whether a model is of use, the other tests of each method say."""
    for item in items:
        whole = getattr(item, "originalname", "") == "test_beats_random_search"
        if whole and HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
