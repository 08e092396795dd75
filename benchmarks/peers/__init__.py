"""Do the tests of other libraries pass with our code in the place of theirs?

`sources` obtains the tests at recorded versions, never into this repository; `pot`,
`single_task_gp`, `gpytorch_cases` and `optuna_cases` put our code where the tests expect theirs;
`record` notes which cases reached it; `known.toml` says of each failure whether it is a
convention or an open fault.
"""

from benchmarks.peers.command import CHOICES, QUICK, Settings, run

__all__ = ["CHOICES", "ON_REQUEST", "QUICK", "Settings", "run"]

ON_REQUEST = "fetches those tests"
