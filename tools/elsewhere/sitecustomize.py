"""Let the path decide which checkout is imported, not the one that is installed in place."""

import sys

# The installed one has a finder that goes before the path.
sys.meta_path[:] = [
    finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable_")
]
