"""Contract suites: tests that every implementation of an interface has to pass.

They need pytest. Nothing in the library imports them.
"""

import sys
from typing import TYPE_CHECKING

from hotnas_torch._lazy import lazily

if TYPE_CHECKING:
    from hotnas_torch.testing import space, strategy
    from hotnas_torch.testing.space import SearchSpaceContract
    from hotnas_torch.testing.strategy import StrategyContract
else:
    __getattr__, __dir__ = lazily(
        __name__, space=("SearchSpaceContract",), strategy=("StrategyContract",)
    )

if "pytest" in sys.modules:
    # So that a failing assert shows its values, as in a test module.
    sys.modules["pytest"].register_assert_rewrite(
        "hotnas_torch.testing.space", "hotnas_torch.testing.strategy"
    )

__all__ = ["SearchSpaceContract", "StrategyContract", "space", "strategy"]
