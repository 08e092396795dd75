"""Strategies without a model of the objective."""
