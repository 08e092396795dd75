import gzip
import json
import os

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import ArchitectureError, TableError
from hotnas_torch.objectives import (
    ENASMacroTable,
    NASBench101Table,
    NASBench201Table,
    NASBench301Table,
    NASBenchMacroTable,
    PoolingTable,
    TransNASMacroTable,
    TransNASMicroTable,
    open_table,
)
from hotnas_torch.objectives.benchmarks import _graph_hashes

FILES = {
    "enas_macro": "enas-macro-dvae/final_structures6.txt.gz",
    "nasbench101": "nas-bench-101/nb101_test_5v.csv.gz",
    "nasbench201": "nas-bench-201/nb201.csv.gz",
    "nasbench301": "nas-bench-301/nb301_surrogate_samples.csv",
    "nasbench_macro": "nas-bench-macro/nas-bench-macro_cifar10.json",
    "pooling": "pooling-cifar10-resnet20/pooling36.csv",
    "transnas_macro": "transnas-bench-101/macro_subset_best.csv",
    "transnas_micro": "transnas-bench-101/micro_4096_final.csv.gz",
}


@pytest.fixture(scope="module")
def path_of(data_dir):
    return {name: data_dir / file for name, file in FILES.items()}


# --- the published files, against figures published with them -------------------------------------


@pytest.mark.parametrize(
    ("name", "column", "num_values", "best", "is_whole"),
    [
        ("nasbench101", None, 2532, None, False),
        ("nasbench201", None, 15625, 100 - 94.3733, True),
        ("nasbench201", "cifar100_test", 15625, 100 - 73.5133, True),
        ("nasbench301", None, 609, 100 - 94.49, False),
        ("nasbench_macro", None, 6561, 100 - 93.1267, True),
        ("pooling", None, 36, 100 - 92.01, True),
        ("transnas_macro", None, 662, 100 - 47.47, False),
        ("transnas_macro", "class_scene", 662, 100 - 56.91, False),
        ("transnas_macro", "jigsaw", 725, 100 - 96.92, False),
        ("transnas_macro", "autoencoder", 725, 100 - 76.88, False),
        ("transnas_micro", None, 4096, None, True),
        ("transnas_micro", "autoencoder", 4096, 100 - 57.7231, True),
        ("enas_macro", None, 20_015, 100 - 75.02, False),
    ],
)
def test_published_figures(path_of, name, column, num_values, best, is_whole):
    table = open_table(name, path_of[name], column)
    assert len(table) == num_values
    if best is not None:
        assert table.best_value == pytest.approx(best, abs=0.006)
    assert table.space.size() == num_values
    assert isinstance(table.space, spaces.Subset) != is_whole
    # A network that the table's space draws has a value, its own.
    drawn = table.space.sample(5, generator=torch.Generator().manual_seed(0))
    found = [table(net) for net in drawn]
    assert all(evaluation.value >= table.best_value for evaluation in found)
    assert all(evaluation.cost == 0.0 for evaluation in found)


def test_known_rows(path_of):
    table = NASBench201Table(path_of["nasbench201"], "cifar100_test")
    net = table.space.from_string(
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
        "+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    found = table(net)
    assert found.value == pytest.approx(100 - 52.913333)
    assert found.metrics["cifar10_test"] == 85.863333
    assert found.metrics["params_M_cifar10"] == 0.129306

    table = TransNASMacroTable(path_of["transnas_macro"], "autoencoder")
    found = table(table.space.from_string("64-1114-basic"))
    assert found.value == pytest.approx(100 * (1 - 0.691339))
    assert found.metrics["class_scene"] == 50.109474

    table = TransNASMicroTable(path_of["transnas_micro"], "autoencoder")
    found = table(table.space.from_string("64-41414-0_00_002"))
    assert found.value == pytest.approx(100 - 0.5548)
    assert found.metrics["class_object"] == 26.547571

    table = ENASMacroTable(path_of["enas_macro"])
    text = "[[1], [4, 0], [5, 0, 0], [0, 1, 1, 1], [2, 1, 1, 1, 1], [3, 0, 0, 0, 0, 1]]"
    assert table(table.space.from_string(text)).value == pytest.approx(100 - 73.02)

    table = PoolingTable(path_of["pooling"])
    assert table(table.space.from_string("[7,1,2]")).value == table.best_value

    table = NASBench301Table(path_of["nasbench301"])
    with open(path_of["nasbench301"], encoding="utf-8") as file:
        normal, reduce, accuracy = file.read().splitlines()[1].split(",")[:3]
    # The order of a node's two pairs does not matter.
    pairs = normal.split()
    swapped = " ".join([pairs[1], pairs[0], *pairs[2:]])
    net = spaces.DARTS().from_genotype(swapped, reduce)
    assert table(net).value == pytest.approx(100 - float(accuracy))


def test_the_three_runs_of_nas_bench_macro(path_of):
    path = path_of["nasbench_macro"]
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    tables = {run: NASBenchMacroTable(path, run) for run in ("mean", 0, 1, 2, "random")}
    space = tables["mean"].space
    assert tables["mean"].best_value == pytest.approx(100 - 93.1267, abs=1e-4)
    drawn = []
    for text in list(content)[::50]:
        net = space.from_string(text)
        runs = content[text]["test_acc"]
        for run in range(3):
            assert tables[run](net).value == pytest.approx(100 - runs[run])
        found = tables["random"](net)
        assert found.metrics["mean_acc"] == content[text]["mean_acc"]
        drawn.append([abs(100 - found.value - accuracy) < 1e-9 for accuracy in runs])
    counts = torch.tensor(drawn).float().mean(dim=0)
    assert bool((counts > 0.2).all())
    again = NASBenchMacroTable(path, "random", seed=0)
    other = NASBenchMacroTable(path, "random", seed=1)
    assert again.values.equal(tables["random"].values)
    assert not other.values.equal(again.values)
    assert other.describe() != again.describe()
    assert open_table("nasbench_macro", path, "1").values.equal(tables[1].values)
    with pytest.raises(ValueError, match="run must be 'mean', 'random', 0, 1 or 2; got 3"):
        NASBenchMacroTable(path, 3)


def test_isomorphic_cells_find_their_row(path_of):
    table = NASBench101Table(path_of["nasbench101"])
    space = spaces.NASBench101()
    generator = torch.Generator().manual_seed(1)
    renumbered = 0
    for net, value in zip(table.networks()[::15], table.values[::15].tolist(), strict=True):
        matrix, ops = space.to_matrix(net)
        size = len(ops)
        for _ in range(6):
            inner = 1 + torch.randperm(size - 2, generator=generator)
            order = torch.cat([torch.tensor([0]), inner, torch.tensor([size - 1])])
            shuffled = matrix[order][:, order]
            if bool(shuffled.tril().any()):
                continue  # no topological numbering
            other = space.from_matrix(shuffled, [ops[place] for place in order.tolist()])
            renumbered += other != net
            assert table(other).value == value
    assert renumbered > 20


def test_hashes_tell_cells_apart_as_canonical_forms_do():
    space = spaces.NASBench101()
    nets = space.sample(3000, generator=torch.Generator().manual_seed(0))
    hashes = _graph_hashes([net.spec for net in nets]).tolist()
    pairs = {(number, space.key(net)) for number, net in zip(hashes, nets, strict=True)}
    assert len(pairs) == len({number for number, _ in pairs}) == len({key for _, key in pairs})


@pytest.mark.slow
def test_the_whole_of_nas_bench_101(data_dir, path_of):
    whole = NASBench101Table(data_dir / "nas-bench-101" / "nb101_test.csv.gz")
    assert len(whole) == 423_624
    assert whole.best_value == pytest.approx(100 - 94.3176, abs=1e-4)
    assert whole.space == whole._space
    assert len(whole._hashes.unique()) == 423_624
    part = NASBench101Table(path_of["nasbench101"])
    for net in part.networks()[::25]:
        assert whole(net).value == pytest.approx(part(net).value, abs=1e-9)


def test_a_better_architecture_has_a_smaller_rank(path_of):
    table = PoolingTable(path_of["pooling"])
    values = sorted(table.values.tolist())
    assert [table.rank(value) for value in values] == list(range(36))


# --- what is wrong is named -----------------------------------------------------------------------


def test_the_checksum_is_noted_and_compared(path_of):
    path = path_of["nasbench_macro"]
    published = "686dee8363cc21cca8c1f321ad5749454f2d9b9ca5972682e137e539bc522297"
    table = NASBenchMacroTable(path, sha256=published.upper())
    assert table.sha256 == published == table.describe()["sha256"]
    with pytest.raises(TableError, match=r"nas-bench-macro_cifar10.json has sha256 686dee"):
        NASBenchMacroTable(path, sha256="0" * 64)


def test_a_network_without_a_value_is_named(path_of):
    table = TransNASMacroTable(path_of["transnas_macro"])
    space = spaces.TransNASMacro()
    with pytest.raises(TableError, match=r"line \d+: '64-1144-basic' has no 'class_object'"):
        table(space.from_string("64-1144-basic"))
    missing = next(net for net in space if net.spec not in table._places)
    with pytest.raises(TableError, match=rf"no row for '{missing.spec}' \(it has 725 of 3,256"):
        table(missing)
    with pytest.raises(ArchitectureError, match="not a network of"):
        table(spaces.Pooling().from_string("[7,1,2]"))
    assert not table.space.contains(missing)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("nasbench201", "cifar10", "'nasbench201' table has no column 'cifar10'; it has 'cifar10_"),
        ("transnas_macro", "normal", "has no column 'normal' "),
        ("pooling", "error", "no column 'error'; it has 'accuracy'"),
    ],
)
def test_a_missing_column_is_named(path_of, name, column, message):
    with pytest.raises(TableError, match=message):
        open_table(name, path_of[name], column)


@pytest.mark.parametrize("name", sorted(FILES))
def test_another_benchmarks_file_is_refused(path_of, name):
    for other in sorted(FILES):
        if other != name:
            with pytest.raises(TableError, match=os.path.basename(FILES[other])):
                open_table(name, path_of[other])


def test_a_space_of_another_benchmark_is_refused(path_of):
    with pytest.raises(ValueError, match="space must be a 'pooling' space"):
        PoolingTable(path_of["pooling"], space=spaces.NASBench201())
    space = spaces.NASBench201(contract_skip=True)
    table = NASBench201Table(path_of["nasbench201"], space=space)
    assert table.space is space


def test_unknown_formats_are_named():
    with pytest.raises(ValueError, match=r"name must be one of 'nasbench101', .* 'imagenet'"):
        open_table("imagenet", "x.csv")


ROWS_101 = "v,adj,ops,test_acc,params\n4,110101,22,0.88,1\n"
ROWS_ENAS = "[[1], [4, 0], [5, 0, 0], [0, 1, 1, 1], [2, 1, 1, 1, 1], [3, 0, 0, 0, 0, 1]], 0.73\n"
ROWS_201 = "arch,cifar10_test\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,10.0\n"


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        (NASBench101Table, ROWS_101 + "4,11010,22,0.88,1\n", r"line 3: '4,11010,22' is no nasb"),
        (NASBench101Table, ROWS_101 + "4,110101,22,0.9,1\n", "line 3: .* of line 2 again"),
        # The same cell, its two inner vertices exchanged.
        (
            NASBench101Table,
            ROWS_101.replace("110101,22", "110011,01") + "4,110011,10,0.9,1\n",
            "line 3: .* of line 2 again",
        ),
        (NASBench101Table, ROWS_101 + "4,110101\n", "line 3: expected 5 entries; got 2"),
        (NASBench201Table, ROWS_201 + "|none~0|,10.0\n", r"line 3: '\|none~0\|' is no nasb"),
        (NASBench201Table, ROWS_201 + ROWS_201.splitlines()[1], "line 3: .* of line 2 again"),
        (NASBench201Table, ROWS_201.replace("10.0", "ten"), "line 2: .* numbers; got 'ten'"),
        (NASBench201Table, ROWS_201.replace("10.0", "inf"), "line 2: .* finite"),
        (NASBench201Table, ROWS_201.replace("10.0", ""), "column 'cifar10_test' is empty"),
        (NASBench201Table, "arch,cifar10_test\n", "holds no rows"),
        (NASBench201Table, "", "must begin with a header"),
        (TransNASMicroTable, "arch,class_object\n64-41414-3,9\n", "line 2: .64-41414-3. is no tra"),
        (ENASMacroTable, ROWS_ENAS + ROWS_ENAS.replace("0.73", "0.74"), "line 2: .*line 1 again"),
        (ENASMacroTable, ROWS_ENAS + "\n", "line 2: expected a network and its accuracy"),
        (ENASMacroTable, ROWS_ENAS.replace("0.73", "good"), "line 1: .* numbers; got 'good'"),
        (ENASMacroTable, ROWS_ENAS.replace("[1]", "[6]"), r"line 1: .*an operation 0\.\.5 at"),
        (ENASMacroTable, "", "holds no rows"),
        (NASBenchMacroTable, "{", "is no JSON file"),
        (NASBenchMacroTable, "[]", "must hold an object"),
        (NASBenchMacroTable, '{"00000000": {"test_acc": [1, 2]}}', "key '00000000': expected"),
        (PoolingTable, "block1,block2,block3,accuracy\n7,1,3,92\n", r"line 2: '\[7,1,3\]'"),
    ],
)
def test_damaged_files_are_refused_with_the_line(tmp_path, table, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TableError, match=message) as caught:
        table(path)
    assert "table.csv" in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path, path_of):
    with pytest.raises(TableError, match=r"cannot read the table .*nowhere.csv: No such file"):
        PoolingTable(tmp_path / "nowhere.csv")
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(path_of["nasbench201"].read_bytes()[:1000])
    with pytest.raises(TableError, match=r"cut.csv.gz is damaged"):
        NASBench201Table(cut)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(TableError, match="damaged or no text file"):
        PoolingTable(binary)


def test_plain_and_compressed_files_are_one(tmp_path, path_of):
    path = tmp_path / "pooling.csv.gz"
    path.write_bytes(gzip.compress(path_of["pooling"].read_bytes()))
    assert PoolingTable(path).values.equal(PoolingTable(path_of["pooling"]).values)
