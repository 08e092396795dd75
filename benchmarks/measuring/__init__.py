"""What the benchmarks share: the command, reports, clocks, problems, readers and statistics."""
