"""Batched optimal-transport ops, each with a compiled core and a torch text of the same."""
