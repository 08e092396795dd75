import json

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.nn import (
    DARTSSkeleton,
    ImageData,
    Regularization,
    Skeleton,
    Split,
    TrainingSettings,
    train,
)
from hotnas_torch.nn.building import BUILDABLE
from hotnas_torch.objectives import Training

SPACE = spaces.NASBench201()
SHORT = TrainingSettings(epochs=2, batch_size=100)
NETS = SPACE.sample(3, generator=torch.Generator().manual_seed(2), distinct=True)


def figures(evaluation):
    return (evaluation.value, dict(evaluation.metrics))


def test_a_value_depends_on_the_seed_and_the_architecture_alone():
    objective = Training(settings=SHORT)
    found = {net: figures(objective(net)) for net in NETS}
    again = Training(settings=SHORT)
    assert all(figures(again(net)) == found[net] for net in reversed(NETS))
    assert len({value for value, _ in found.values()}) > 1
    assert figures(Training(settings=SHORT, seed=1)(NETS[0])) != found[NETS[0]]


def test_the_value_is_the_validation_error_or_the_loss():
    error = Training(settings=SHORT)(NETS[0])
    loss = Training(settings=SHORT, value="loss")(NETS[0])
    assert error.metrics == loss.metrics
    assert error.value == pytest.approx(100 * (1 - error.metrics["validation_accuracy"]))
    assert loss.value == loss.metrics["validation_loss"]
    assert {"test_accuracy", "test_loss", "train_loss"} <= set(error.metrics)
    assert error.metrics["epochs"] == 2
    assert error.metrics["parameters"] > 100
    assert error.cost > 0.0


def test_a_divergence_is_a_failed_evaluation():
    settings = TrainingSettings(epochs=3, learning_rate=1e12)
    found = Training(settings=settings)(
        SPACE.from_string("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    )
    assert found.failed
    assert "non-finite in epoch 1" in found.error
    assert found.cost > 0.0


def test_threads_are_those_of_the_process_again(monkeypatch):
    used = []
    before = torch.get_num_threads()
    objective = Training(settings=SHORT, num_threads=before + 1)

    def interrupted(*_, **__):
        used.append(torch.get_num_threads())
        raise KeyboardInterrupt

    monkeypatch.setattr("hotnas_torch.objectives.training.train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        objective(NETS[0])
    assert used == [before + 1]
    assert torch.get_num_threads() == before


def own_data(channels=3, num_classes=4):
    generator = torch.Generator().manual_seed(0)
    part = Split(torch.randn(20, channels, 6, 6, generator=generator), torch.arange(20) % 4)
    return ImageData("own", part, part, part, num_classes=num_classes)


def test_other_data_get_a_skeleton_that_fits():
    objective = Training(own_data(), settings=SHORT)
    assert (objective.skeleton.input_channels, objective.skeleton.num_classes) == (3, 4)
    assert not objective(NETS[0]).failed
    with pytest.raises(ValueError, match=r"skeleton\.input_channels must be 3, as the data have"):
        Training(own_data(), skeleton=Skeleton(input_channels=1, num_classes=4))


def test_the_description_tells_runs_apart():
    descriptions = [
        Training(**arguments).describe()
        for arguments in (
            {},
            {"seed": 1},
            {"value": "loss"},
            {"settings": SHORT},
            {"data": own_data()},
            {"skeleton": Skeleton(channels=4, input_channels=1)},
        )
    ]
    assert all(descriptions.count(described) == 1 for described in descriptions)
    assert Training().describe() == descriptions[0]


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="value must be one of 'error', 'loss'"):
        Training(value="accuracy")
    with pytest.raises(ValueError, match="num_threads must be at least 1"):
        Training(num_threads=0)
    with pytest.raises(ArchitectureError, match="nasbench201"):
        Training(settings=SHORT)(spaces.Pooling().from_string("[7,1,2]"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": "a"}, "seed must be an int"),
        ({"num_threads": 2.5}, "num_threads must be an int"),
        ({"settings": {"epochs": 1}}, "settings must be a TrainingSettings or None"),
        ({"data": "digits"}, "data must be ImageData or None"),
        ({"skeleton": 8}, "skeleton must be a Skeleton or None"),
        ({"compile": 3}, "compile must be a bool or the name of a backend; got 3"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused_at_once(given, message):
    with pytest.raises(TypeError, match=message):
        Training(**given)


@pytest.mark.compile
def test_compiled_trainings_have_records_of_their_own():
    plain, compiled = Training(settings=SHORT), Training(settings=SHORT, compile="eager")
    assert figures(compiled(NETS[0])) == figures(plain(NETS[0]))
    assert compiled.describe() == plain.describe() | {"compile": "eager"}


# --- other spaces ---------------------------------------------------------------------------------

ONE = TrainingSettings(epochs=1, batch_size=100)


@pytest.mark.parametrize("name", BUILDABLE)
def test_networks_of_every_space_that_can_be_built_are_trained(name):
    space = spaces.get(name)
    net = space.sample_one(generator=torch.Generator().manual_seed(1))
    objective = Training(space=name, settings=ONE)
    found = objective(net)
    assert not found.failed
    assert found.metrics["parameters"] > 100
    if name == "nasbench201":  # once: larger ones train for half a minute
        subset = Training(space=spaces.Subset(space, [net]), settings=ONE)
        assert figures(subset(net)) == figures(found)
    described = objective.describe()
    assert json.loads(json.dumps(described)) == described
    assert ("space" in described) == (name != "nasbench201")


def test_a_darts_network_is_trained_at_its_depth_and_with_its_tower():
    space = spaces.DARTS(min_depth=3, max_depth=6)
    text = space.sample_one(generator=torch.Generator().manual_seed(1)).spec.rsplit(",", 1)[0]
    sizes = {}
    for depth, weight in ((3, 0.0), (4, 0.0), (3, 0.4)):
        settings = TrainingSettings(
            epochs=1, batch_size=100, regularization=Regularization(auxiliary=weight)
        )
        objective = Training(space=space, settings=settings)
        evaluation = objective(space.from_string(f"{text},{depth}"))
        sizes[depth, weight] = evaluation.metrics["parameters"]
    assert sizes[3, 0.0] < sizes[4, 0.0] < sizes[3, 0.4]


def test_a_training_that_was_killed_goes_on(tmp_path, monkeypatch):
    expected = figures(Training(settings=SHORT)(NETS[0]))
    objective = Training(settings=SHORT, folder=tmp_path)

    def killed(*arguments, **settings):
        def stop(_epoch):
            raise KeyboardInterrupt

        return train(*arguments, every_epoch=stop, **settings)

    with monkeypatch.context() as patched:
        patched.setattr("hotnas_torch.objectives.training.train", killed)
        with pytest.raises(KeyboardInterrupt):
            objective(NETS[0])
    assert len(list(tmp_path.iterdir())) == 1
    # Another network, or other settings, do not go on from there.
    assert figures(objective(NETS[1])) == figures(Training(settings=SHORT)(NETS[1]))
    assert figures(objective(NETS[0])) == expected
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"space": "nasbench101"}, ValueError, "space must be one whose networks can be built"),
        ({"space": "nosuch"}, ValueError, "nosuch"),
        ({"space": 5}, TypeError, "space must be"),
        ({"space": "pooling", "skeleton": Skeleton()}, TypeError, "a factor of all widths"),
        ({"space": "pooling", "skeleton": 0.0}, ValueError, "skeleton must be"),
        ({"space": "darts", "skeleton": Skeleton()}, TypeError, "must be a DARTSSkeleton or None"),
        ({"space": "darts", "skeleton": DARTSSkeleton()}, ValueError, "input_channels must be 1"),
        (
            {"settings": TrainingSettings(regularization=Regularization(auxiliary=0.4))},
            ValueError,
            "auxiliary must be 0 in nasbench201",
        ),
        (
            {
                "settings": TrainingSettings(regularization=Regularization(drop_path=0.4)),
                "space": "pooling",
            },
            ValueError,
            "drop_path must be 0 in pooling",
        ),
        (
            {"settings": TrainingSettings.of("darts"), "space": "darts"},
            ValueError,
            "cutout must be below 16",
        ),
    ],
)
def test_spaces_and_settings_that_do_not_fit_are_refused_at_once(given, kind, message):
    with pytest.raises(kind, match=message):
        Training(**given)
