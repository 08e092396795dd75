"""The tests of other libraries, run on ours through thin adapters: ``python -m benchmarks.peers``.

`sources` obtains the tests at recorded versions, never into this repository; `pot`,
`single_task_gp`, `gpytorch_cases` and `optuna_cases` put our code where the tests expect theirs;
`record` notes which cases reached it; ``known.toml`` says of each failure whether it is a
convention or an open fault.
"""
