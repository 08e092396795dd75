"""Searches of boxes of numbers, such as generators' settings: budgets and several objectives."""
