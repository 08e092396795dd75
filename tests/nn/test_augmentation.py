import pytest
import torch
from torch.nn import functional

from hotnas_torch.nn import Augmentation, Pixels

IMAGES = torch.arange(1.0, 1 + 6 * 2 * 8 * 8).reshape(6, 2, 8, 8)
LABELS = torch.arange(6)


def changed(rng, **settings):
    before = IMAGES.clone()
    images, targets = Augmentation(**settings)(IMAGES, LABELS, generator=rng, pixels=None)
    assert torch.equal(IMAGES, before)
    assert images.shape == IMAGES.shape
    assert torch.equal(targets.first, LABELS)
    return images, targets


def test_a_crop_is_the_image_shifted(rng):
    found = set()
    for _ in range(20):
        images, targets = changed(rng, crop=2)
        assert bool((targets.share == 1.0).all())
        for image, original in zip(images, IMAGES, strict=True):
            padded = functional.pad(original, (2, 2, 2, 2))
            places = [
                (row, column)
                for row in range(5)
                for column in range(5)
                if torch.equal(padded[:, row : row + 8, column : column + 8], image)
            ]
            assert len(places) == 1
            found.add(places[0])
    assert len(found) == 25


def test_about_half_of_the_images_are_mirrored(rng):
    mirrored = 0
    for _ in range(50):
        for image, original in zip(changed(rng, flip=True)[0], IMAGES, strict=True):
            is_mirrored = torch.equal(image, original.flip(-1))
            assert is_mirrored or torch.equal(image, original)
            mirrored += is_mirrored
    assert 110 < mirrored < 190


def test_a_hole_is_a_square_that_may_reach_over_the_border(rng):
    sizes = set()
    for _ in range(30):
        images, _ = changed(rng, cutout=4)
        for image, original in zip(images, IMAGES, strict=True):
            gone = image == 0.0
            assert torch.equal(gone[0], gone[1])
            assert torch.equal(image[~gone], original[~gone])
            rows, columns = gone[0].any(1), gone[0].any(0)
            assert int(gone[0].sum()) == int(rows.sum() * columns.sum())
            sizes.add(int(gone[0].sum()))
    assert max(sizes) == 16
    assert min(sizes) < 16


def test_mixup_mixes_images_as_it_mixes_labels(rng):
    images, targets = changed(rng, mixup=1.0)
    share = targets.share[:, None, None, None]
    expected = share * IMAGES[targets.first] + (1.0 - share) * IMAGES[targets.second]
    torch.testing.assert_close(images, expected)
    assert 0.0 < float(targets.share[0]) < 1.0


def test_cutmix_counts_what_is_left_of_each_image(rng):
    shares = []
    for _ in range(30):
        images, targets = changed(rng, cutmix=1.0)
        own = (images == IMAGES).all(1)
        other = (images == IMAGES[targets.second]).all(1)
        assert bool((own | other).all())
        for place in range(6):
            if targets.second[place] != place:
                assert float(own[place].double().mean()) == pytest.approx(
                    float(targets.share[place])
                )
        shares.append(float(targets.share[0]))
    assert min(shares) < 0.6 < max(shares)


def test_with_both_each_batch_does_one_of_the_two(rng):
    pasted = 0
    for _ in range(40):
        images, targets = changed(rng, mixup=1.0, cutmix=1.0)
        whole = (images == IMAGES) | (images == IMAGES[targets.second])
        pasted += bool(whole.all())
    assert 8 < pasted < 32


def test_the_loss_of_a_mixture_is_that_of_soft_labels(rng):
    _, targets = changed(rng, mixup=1.0)
    logits = torch.randn(6, 6, generator=rng, dtype=torch.float64)
    soft = torch.zeros(6, 6, dtype=torch.float64)
    for place in range(6):
        soft[place, targets.first[place]] += targets.share[place]
        soft[place, targets.second[place]] += 1.0 - targets.share[place]
    for smoothing in (0.0, 0.1):
        torch.testing.assert_close(
            targets.loss(logits, smoothing),
            functional.cross_entropy(logits, soft, label_smoothing=smoothing),
            atol=1e-6,
            rtol=1e-6,
        )


def test_equal_generators_change_alike():
    def once():
        return Augmentation(crop=2, flip=True, cutout=3, mixup=0.5, cutmix=0.5)(
            IMAGES, LABELS, generator=torch.Generator().manual_seed(3), pixels=None
        )

    assert torch.equal(once()[0], once()[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 8}, "crop must be below 8, the side of an image; got 8"),
        ({"cutout": 16}, "cutout must be below 16, twice the side"),
        ({"auto_augment": "cifar10"}, "auto_augment needs pixels as they were"),
    ],
)
def test_what_leaves_nothing_of_an_image_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings).check((2, 8, 8), None)


def test_the_policy_is_torchvisions(rng):
    pytest.importorskip("torchvision", reason="AutoAugment is torchvision's", exc_type=Exception)
    augmentation = Augmentation(auto_augment="cifar10")
    pixels = Pixels(torch.full((3, 1, 1), 0.4), torch.full((3, 1, 1), 0.25))
    plain = torch.rand(8, 3, 16, 16, generator=rng)
    images = (plain - pixels.mean) / pixels.deviation
    augmentation.check((3, 16, 16), pixels)

    def once(seed):
        generator = torch.Generator().manual_seed(seed)
        return augmentation(images, torch.arange(8), generator=generator, pixels=pixels)[0]

    assert torch.equal(once(0), once(0))
    assert not torch.equal(once(0), once(1))
    back = once(0) * pixels.deviation + pixels.mean
    assert -1e-4 <= float(back.min()) <= float(back.max()) <= 1.0 + 1e-4
