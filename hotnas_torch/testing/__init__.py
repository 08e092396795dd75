"""Contract suites: tests that every implementation of an interface has to pass.

They need pytest. Nothing in the library imports them.
"""

import pytest

# So that a failing assert shows its values, as in a test module.
pytest.register_assert_rewrite("hotnas_torch.testing.strategy")
