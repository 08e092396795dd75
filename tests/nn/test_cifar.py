import numpy as np
import pytest
import torch

from hotnas_torch.nn import cifar10, cifar100


@pytest.fixture
def folder(tmp_path):
    """Small files in the published format: label, then red, green and blue planes by rows."""
    random = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        labels = random.integers(0, 10, size=(8, 1), dtype=np.uint8)
        planes = random.integers(0, 256, size=(8, 3072), dtype=np.uint8)
        (tmp_path / name).write_bytes(np.concatenate([labels, planes], axis=1).tobytes())
    return tmp_path


def test_pixels_and_labels_are_where_the_format_says(folder, rng):
    data = cifar10(folder, generator=rng, num_train=24)
    assert data.input_shape == (3, 32, 32)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [24, 16, 8]
    raw = np.frombuffer((folder / "test_batch.bin").read_bytes(), np.uint8).reshape(8, 3073)
    assert data.test.labels.tolist() == raw[:, 0].tolist()
    # Scaling is affine per channel, so pixels of a channel keep their order and ratios.
    green = torch.from_numpy(raw[:, 1 + 1024 : 1 + 2048].reshape(8, 32, 32).astype(np.float32))
    scaled = data.test.images[:, 1]
    slope = (scaled[0, 0, 0] - scaled[0, 5, 7]) / (green[0, 0, 0] - green[0, 5, 7])
    assert torch.allclose(scaled, slope * (green - green[0, 0, 0]) + scaled[0, 0, 0], atol=1e-4)
    assert torch.allclose(data.train.images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(data.train.images.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4)


def test_parts_are_disjoint_and_follow_the_generator(folder):
    first, second, other = (
        cifar10(folder, generator=torch.Generator().manual_seed(seed), num_train=20)
        for seed in (0, 0, 1)
    )
    assert first.digest() == second.digest() != other.digest()
    together = torch.cat([first.train.images, first.validation.images]).flatten(1)
    assert len(together.unique(dim=0)) == 40


def test_files_are_checked(folder, rng):
    with pytest.raises(ValueError, match="at most 40 together"):
        cifar10(folder, generator=rng, num_train=41)
    (folder / "data_batch_3.bin").write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(ValueError, match=r"data_batch_3.bin holds the label 11"):
        cifar10(folder, generator=rng, num_train=8)
    (folder / "data_batch_3.bin").write_bytes(bytes(3000))
    with pytest.raises(ValueError, match=r"data_batch_3.bin must consist of records of 3073 bytes"):
        cifar10(folder, generator=rng, num_train=8)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*data_batch_3.bin"):
        cifar10(folder, generator=rng, num_train=8)


def test_cifar100_has_the_fine_labels_of_its_two(tmp_path, rng):
    random = np.random.default_rng(1)
    for name in ("train.bin", "test.bin"):
        coarse = random.integers(0, 20, size=(12, 1), dtype=np.uint8)
        fine = random.integers(50, 100, size=(12, 1), dtype=np.uint8)
        planes = random.integers(0, 256, size=(12, 3072), dtype=np.uint8)
        (tmp_path / name).write_bytes(np.concatenate([coarse, fine, planes], axis=1).tobytes())
    data = cifar100(tmp_path, generator=rng, num_train=8)
    raw = np.frombuffer((tmp_path / "test.bin").read_bytes(), np.uint8).reshape(12, 3074)
    assert data.num_classes == 100
    assert data.test.labels.tolist() == raw[:, 1].tolist()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [8, 4, 12]
    # The pixels come back from how they were scaled.
    pixels = (data.test.images * data.pixels.deviation + data.pixels.mean) * 255
    np.testing.assert_allclose(pixels.flatten(1).numpy(), raw[:, 2:], atol=1e-3)
    with pytest.raises(ValueError, match=r"unpack cifar-100-binary\.tar\.gz"):
        cifar100(tmp_path / "elsewhere", generator=rng)
    (tmp_path / "train.bin").write_bytes(b"x" * 3073)
    with pytest.raises(ValueError, match="records of 3074 bytes"):
        cifar100(tmp_path, generator=rng)
