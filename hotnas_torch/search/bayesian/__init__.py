"""Strategies that fit a model of the objective to networks and maximise an acquisition function."""
