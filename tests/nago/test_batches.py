"""Batches by memory: what fits, what does not, and rates by hand."""

import pytest
import torch

from hotnas_torch.nago import (
    RNAG,
    FlatTheta,
    GeneratedModule,
    GeneratedSkeleton,
    WattsStrogatz,
    fitted_batch,
    memory_per_sample,
)
from hotnas_torch.nn import TrainingSettings

SHAPE = (1, 8, 8)


@pytest.fixture
def module():
    generator = torch.Generator().manual_seed(0)
    net = RNAG().sample(FlatTheta((WattsStrogatz(4, 2, 0.5),) * 3), generator=generator)
    skeleton = GeneratedSkeleton(input_channels=1, head_channels=32)
    return GeneratedModule(net, skeleton, generator=generator)


def kept_bytes(module, num):
    """What autograd keeps of a batch, each storage once."""
    own = {one.untyped_storage().data_ptr() for one in (*module.parameters(), *module.buffers())}
    sizes, alive = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module.train()(torch.zeros(num, *SHAPE))
    return sum(sizes.values())


def test_one_image_more_would_not_fit(module):
    settings = TrainingSettings.of("nago", epochs=7)
    parameters = 4 * module.num_parameters()
    memory = 3 * parameters + 50 * (memory_per_sample(module, SHAPE) - parameters)
    for given, expected in ((memory, 50), (memory - 1, 49)):
        found = fitted_batch(settings, module, SHAPE, given)
        assert found.batch_size == expected
        assert found.epochs == 7
    # What grows with the batch is counted as autograd keeps it.
    grows = (kept_bytes(module, 9) - kept_bytes(module, 5)) / 4
    assert grows == pytest.approx(memory_per_sample(module, SHAPE) - parameters, rel=0.02)


@pytest.mark.parametrize(("most", "rate"), [(512, 0.1), (96, 0.025), (304, 0.0625)])
def test_rates_are_those_of_the_paper(module, most, rate):
    found = fitted_batch(TrainingSettings(), module, SHAPE, 2**40, most=most)
    assert found.batch_size == most
    assert found.learning_rate == pytest.approx(rate)


def test_a_memory_that_is_too_small_is_refused(module):
    with pytest.raises(ValueError, match=r"memory must hold 2 images, \d+ bytes"):
        fitted_batch(TrainingSettings(), module, SHAPE, 1000)
    with pytest.raises(ValueError, match="most must be at least 2; got 1"):
        fitted_batch(TrainingSettings(), module, SHAPE, 2**30, most=1)
