from pathlib import Path

import pytest

from hotnas_torch.comparison import compare


@pytest.fixture(scope="session")
def compared(data_dir, tmp_path_factory):
    """A small comparison: its records and the folder of their files."""
    folder: Path = tmp_path_factory.mktemp("comparison")
    records = compare(
        ["transnas_jigsaw", "nasbench_macro"],
        ["random", "evolution"],
        data=data_dir,
        folder=folder,
        num_seeds=3,
        num_evaluations=70,
        progress=False,
    )
    return records, folder
