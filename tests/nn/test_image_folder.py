import sys

import numpy as np
import pytest
import torch
from PIL import Image

from hotnas_torch.hierarchy import Uniform
from hotnas_torch.nn import MacroSupernet, SupernetSearch, SupernetSettings, image_folder

MEAN = torch.tensor([0.485, 0.456, 0.406])
DEVIATION = torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def folder(tmp_path):
    """Ten grey images of two classes in train, four in val; the grey value names the image."""
    for part, per_class in (("train", 5), ("val", 2)):
        for label, name in enumerate(("ant", "bee")):
            place = tmp_path / part / name
            place.mkdir(parents=True)
            for number in range(per_class):
                value = 100 * label + 10 * number
                Image.new("L", (40, 24), value).save(place / f"{number}.png")
    return tmp_path


def grey(images):
    """The value that an image was made of."""
    return ((images[:, 0, 0, 0] * DEVIATION[0] + MEAN[0]) * 255).round().long()


def test_images_come_with_their_labels_in_the_order_asked_for(folder, rng):
    data = image_folder(folder, generator=rng, size=8, num_train=6)
    assert data.classes == ("ant", "bee")
    assert data.num_classes == 2
    assert data.input_shape == (3, 8, 8)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [6, 4, 4]
    order = [torch.tensor([0, 3]), torch.tensor([2]), torch.tensor([3, 1, 0]), torch.tensor([0])]
    batches = list(data.test.batches(order))
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [1], [1, 0, 0], [0]]
    assert [grey(images).tolist() for images, _ in batches] == [[0, 110], [100], [110, 10, 0], [0]]
    assert batches[0][0].shape == (2, 3, 8, 8)
    assert batches[0][0].dtype == torch.float32
    assert list(data.test.batches([])) == []


def test_parts_are_disjoint_and_follow_the_generator(folder):
    first, second, other = (
        image_folder(folder, generator=torch.Generator().manual_seed(seed), size=8)
        for seed in (0, 0, 1)
    )
    assert first.digest() == second.digest() != other.digest()
    assert len(first.train) == len(first.validation) == 5
    assert len(set(first.train.files) | set(first.validation.files)) == 10
    everything = torch.arange(5)
    ((images, labels),) = first.train.batches([everything])
    assert torch.equal(grey(images) // 100, labels)


@pytest.mark.parametrize(("width", "height"), [(50, 20), (20, 50), (16, 16)])
def test_the_middle_is_cut_out_at_the_scale_of_the_shorter_side(width, height, folder, rng):
    # Brightness rises along the longer side.
    ramp = np.linspace(0, 255, max(width, height)).round().astype(np.uint8)
    pixels = np.tile(ramp, (height, 1)) if width >= height else np.tile(ramp[:, None], (1, width))
    Image.fromarray(np.stack([pixels] * 3, axis=2)).save(folder / "val" / "ant" / "0.png")
    data = image_folder(folder, generator=rng, size=14)
    ((images, _),) = data.test.batches([torch.tensor([0])])
    values = (images[0] * DEVIATION[:, None, None] + MEAN[:, None, None]) * 255
    profile = values[0].mean(dim=0 if width >= height else 1)
    shown = 14 / 16 * min(width, height) / max(width, height)  # share of the longer side
    first, last = 127.5 * (1 - shown), 127.5 * (1 + shown)
    step = (last - first) / 14
    assert profile[0] == pytest.approx(first + step / 2, abs=step)
    assert profile[-1] == pytest.approx(last - step / 2, abs=step)
    assert values.std(dim=1 if width >= height else 2).max() < 1


def test_a_supernet_is_searched_on_a_folder(folder, rng):
    data = image_folder(folder, generator=rng, size=16)
    supernet = MacroSupernet(width=0.05, num_classes=2, generator=rng)
    nets = supernet.space.sample(4, generator=rng, distinct=True)
    search = SupernetSearch(
        supernet, nets, Uniform(4), data, SupernetSettings(epochs=1, batch_size=4), generator=rng
    )
    assert search.run(progress=False).network in nets


def test_folders_and_arguments_are_checked(folder, rng, monkeypatch):
    with pytest.raises(ValueError, match="at most 10 together; got 8 and 3"):
        image_folder(folder, generator=rng, num_train=8, num_validation=3)
    with pytest.raises(ValueError, match="size must be at least 1"):
        image_folder(folder, generator=rng, size=0)
    with pytest.raises(ValueError, match=r"nowhere.train is no folder"):
        image_folder(folder / "nowhere", generator=rng)
    data = image_folder(folder, generator=rng, size=8)
    (folder / "val" / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot decode .*0.png"):
        list(data.test.batches([torch.tensor([0])]))
    (folder / "train" / "cow").mkdir()
    with pytest.raises(ValueError, match=r"cow must hold images"):
        image_folder(folder, generator=rng)
    Image.new("L", (4, 4)).save(folder / "train" / "cow" / "0.png")
    with pytest.raises(ValueError, match="must have the same classes; 'cow' is in one"):
        image_folder(folder, generator=rng)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        image_folder(folder, generator=rng)
