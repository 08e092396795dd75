"""Losses and sets of pairs, by the numbers that operators know them by, as parameters of tests."""

import pytest

TERMS = [(loss, pairs) for loss in (0, 1) for pairs in (0, 1, 2)]
TERM_NAMES = [f"{('l1', 'l2')[loss]}-{('all', 'directed', 'ordered')[p]}" for loss, p in TERMS]

# Derivatives are one code for both backends; the text's values, and the slopes of its quadratic
# cost, are compared at all terms elsewhere.
of_derivatives = pytest.mark.parametrize(
    ("backend", "loss", "pairs"),
    [
        pytest.param(
            backend,
            *terms,
            id=f"{backend}-{name}",
            marks=pytest.mark.ext
            if backend == "ext"
            else [pytest.mark.slow] * (name not in ("l1-ordered", "l2-all")),
        )
        for backend in ("ext", "torch")
        for terms, name in zip(TERMS, TERM_NAMES, strict=True)
    ],
)
