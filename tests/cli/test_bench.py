import csv
import gzip

import pytest

from hotnas_torch.cli.main import main


def bench(data_dir, out, *options):
    arguments = ["bench", "search", "--data", str(data_dir), "--out", str(out), "--seeds", "2"]
    return main([*arguments, "--methods", "random", "evolution", *options])


def test_tables_pictures_and_a_line_per_evaluation(data_dir, tmp_path, capsys):
    tasks = ("--tasks", "transnas_jigsaw", "nasbench_macro", "--evaluations", "60")
    assert bench(data_dir, tmp_path, *tasks) == 0
    printed = capsys.readouterr().out
    assert "### After 35 evaluations, 2 seeds" in printed
    assert "### After 60 evaluations, 2 seeds" in printed
    assert "8 searches" in printed
    assert (tmp_path / "table.md").read_text() in printed + "\n"
    for name in ("regret.png", "ranks.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    with (tmp_path / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 2 * 60
    # The same command finds everything done; another one does not mix with it.
    assert bench(data_dir, tmp_path, *tasks, "--quiet") == 0
    assert bench(data_dir, tmp_path, *tasks[:3], "--evaluations", "61") == 2
    assert "num_evaluations = 60, now it is 61" in capsys.readouterr().err


def test_searches_of_a_result_are_run_again(data_dir, tmp_path, capsys):
    assert bench(data_dir, tmp_path, "--tasks", "nasbench_macro", "--evaluations", "30") == 0
    check = ["bench", "check", "--data", str(data_dir), "--rows", "3", "--quiet"]
    result = tmp_path / "results.csv"
    assert main([*check, str(result)]) == 0
    assert "3 of 3 searches are as recorded" in capsys.readouterr().out
    lines = result.read_text().splitlines()
    packed = tmp_path / "other.csv.gz"
    # The last two networks of the first search in each other's place.
    packed.write_bytes(gzip.compress("\n".join(_exchanged(lines, 29, 30)).encode()))
    assert main([*check[:-2], "9", "--quiet", str(packed)]) == 1
    out, error = capsys.readouterr()
    assert "nasbench_macro, random, seed 0: differs from evaluation 29 of 30 on" in out
    assert "3 of 4 searches are as recorded" in out
    assert f"this code does not propose what {packed} says" in error
    result.write_text("\n".join(lines[:1] + lines[2:]))
    assert main([*check, str(result)]) == 2
    assert "line 2 is evaluation 2, expected 1" in capsys.readouterr().err


def _exchanged(lines, one, other):
    rows = [line.split(",") for line in lines]
    rows[one][4:], rows[other][4:] = rows[other][4:], rows[one][4:]
    return [",".join(row) for row in rows]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["--initial", "1"], "--initial must be at least 2; got 1"),
        (["--evaluations", "10"], "--evaluations must be at least 11; got 10"),
        (["--tasks", "mnist"], "invalid choice: 'mnist'"),
        (["--data", "nowhere", "--tasks", "nasbench_macro"], "--data: there is no folder nowhere"),
    ],
)
def test_bad_input_is_one_line(options, message, data_dir, tmp_path, capsys):
    arguments = ["bench", "search", "--data", str(data_dir), "--out", str(tmp_path / "out")]
    try:
        code = main([*arguments, *options])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_help_lists_tasks_and_methods(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "search", "--help"])
    printed = capsys.readouterr().out
    for expected in ("examples:", "nb201_cifar100", "NB201 CIFAR-100", "hotnas_paper"):
        assert expected in printed
