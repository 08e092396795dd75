import sys

import pytest
import torch
from sklearn.datasets import load_digits

from hotnas_torch.nn import ImageData, Split, digits


def data(seed=0, **sizes):
    return digits(generator=torch.Generator().manual_seed(seed), **sizes)


def split(num, labels=(0, 1), size=4):
    names = torch.tensor([*labels] * num, dtype=torch.int64)[:num]
    return Split(torch.zeros(num, 1, size, size), names)


def test_the_digits_are_split_without_overlap():
    found = data()
    sizes = [len(part) for part in (found.train, found.validation, found.test)]
    assert sizes == [500, 800, 497]
    assert found.input_shape == (1, 8, 8)
    assert found.num_classes == 10
    images = torch.cat([part.images for part in (found.train, found.validation, found.test)])
    labels = torch.cat([part.labels for part in (found.train, found.validation, found.test)])
    # Every image of the set once, with its label: compare sorted rows of pixels and label.
    raw = load_digits()
    scale = images.max() - images.min()
    pixels = ((images - images.min()) / scale * 16.0).round().reshape(1797, 64)
    ours = torch.cat([pixels, labels[:, None]], dim=1).int().tolist()
    theirs = torch.cat([torch.from_numpy(raw.data), torch.from_numpy(raw.target)[:, None]], dim=1)
    assert sorted(ours) == sorted(theirs.int().tolist())


def test_pixels_are_scaled_by_the_training_images_only():
    found = data()
    deviation, mean = torch.std_mean(found.train.images)
    assert mean.abs() < 1e-5
    assert deviation == pytest.approx(1.0, abs=1e-5)
    assert found.validation.images.mean().abs() > 1e-5


def test_the_generator_decides_the_split():
    assert data(0).digest() == data(0).digest() != data(1).digest()


def test_the_sizes_must_fit():
    assert len(data(num_train=10, num_validation=1786).test) == 1
    for sizes in ({"num_train": 1000}, {"num_train": 0}, {"num_validation": 0}):
        with pytest.raises(ValueError, match="at least one of the 1797 images for testing"):
            data(**sizes)


def test_without_scikit_learn_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        data()


def test_parts_are_checked():
    with pytest.raises(TypeError, match=r"int64; got torch\.float32 and torch\.int32"):
        Split(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\) and labels \(N,\)"):
        Split(torch.zeros(2, 4, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one image"):
        split(0)
    with pytest.raises(ValueError, match=r"validation must hold images of shape \(1, 4, 4\)"):
        ImageData("own", split(2), split(2, size=5), split(2), num_classes=2)
    with pytest.raises(ValueError, match=r"test must hold labels in 0..1; got 0..2"):
        ImageData("own", split(2), split(2), split(3, labels=(0, 1, 2)), num_classes=2)
