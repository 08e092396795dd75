"""Readable torch texts of every op: the specification that the compiled core is held to."""
