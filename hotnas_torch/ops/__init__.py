"""Batched optimal-transport ops: one module per op, each with a compiled core and a torch text of the same."""
