"""Entry point of `python -m benchmarks`."""

import os
import sys


def _one_thread_per_library() -> None:
    """Keep other libraries at one thread; these variables count only until they are loaded.

    The measurements set torch's threads themselves.
    """
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ.setdefault(
        "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    # Otherwise POT imports whatever deep-learning library it finds.
    for library in ("TENSORFLOW", "CUPY", "JAX"):
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{library}", "1")


if __name__ == "__main__":
    _one_thread_per_library()
    from benchmarks.measuring.command import main

    sys.exit(main())
