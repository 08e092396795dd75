"""Reference implementations of every op in plain torch: what the compiled core is held to."""
