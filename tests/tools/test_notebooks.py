import json
import os
import sys

import pytest

from tools import notebooks

pytest.importorskip("sphinx_gallery", reason="sphinx-gallery is not installed")


def test_a_notebook_holds_the_cells_of_its_script(tmp_path, capsys):
    notebooks.main(["--out", str(tmp_path)])
    names = sorted(name.rpartition("/")[2][:-3] for name in notebooks.TUTORIALS)
    assert sorted(path.stem for path in tmp_path.iterdir()) == names
    assert len(capsys.readouterr().out.splitlines()) == 4
    cells = json.loads((tmp_path / "plot_search.ipynb").read_text())["cells"]
    assert "".join(cells[0]["source"]) == notebooks.FIRST_CELL
    assert "A search, interrupted and resumed" in "".join(cells[1]["source"])
    code = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = (notebooks.ROOT / "examples" / "search" / "plot_search.py").read_text()
    assert [line for line in script.splitlines() if "run(" in line and line not in code] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", notebooks.TUTORIALS)
def test_a_tutorial_runs_in_a_notebook_and_shows_its_figures(name, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    (path,) = notebooks.write(tmp_path, [notebooks.ROOT / "examples" / name])
    book = nbformat.read(path, as_version=4)
    # A kernel of this interpreter, whatever kernels are installed for the user.
    book.metadata.kernelspec = {"name": "here", "display_name": "here", "language": "python"}
    folder = tmp_path / "kernels" / "here"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "here", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    before = dict(os.environ)
    os.environ["JUPYTER_PATH"] = str(tmp_path)
    os.environ["PYTHONPATH"] = str(notebooks.ROOT)
    try:
        client.NotebookClient(
            book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    shown = [
        output
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert shown
