"""Measurements of hotnas_torch, beside what a user would pick instead.

A module of this folder is a benchmark, and all have one shape:

- the first line of its docstring is the question that it answers;
- `Settings`, a frozen dataclass, says how much is measured; its fields are options of the command;
- `QUICK` are settings for a first look;
- `run(settings)` measures and returns a `Report`, or raises `Unavailable` if something is missing;
- `draw(report)`, if there is one, makes the picture;
- `ON_REQUEST`, if there is one, says why it runs only when it is named;
- `CHOICES`, if there is one, has what the elements of a field may be.

`python -m benchmarks` answers all questions, `python -m benchmarks speed threads` some.
`benchmarks.measuring` is what they share. Every figure that a table shows was measured in the run
that printed it, or is on record from one of the same settings and version.
"""
