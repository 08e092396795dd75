"""Running searches: trials, workers, what is recorded."""
