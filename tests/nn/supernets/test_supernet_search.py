import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from hotnas_torch.hierarchy import Boltzmann, Schedule, TreeSampler, Uniform, random_tree
from hotnas_torch.nn import (
    MacroSupernet,
    PoolingSupernet,
    Reward,
    SupernetSearch,
    SupernetSettings,
    digits,
)
from hotnas_torch.nn.training import _parameter_groups

DATA = digits(generator=torch.Generator().manual_seed(0), num_train=80, num_validation=80)
SETTINGS = SupernetSettings(epochs=4, batch_size=40, learning_rate=0.05)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def supernet(seed=0):
    return PoolingSupernet(width=0.125, input_channels=1, generator=seeded(seed))


NETS = list(supernet().space)


def tree_sampler(seed=0):
    return TreeSampler(random_tree(36, generator=seeded(seed)), schedule=Schedule(warm_up=0.25))


def searching(sampler=None, settings=SETTINGS, seed=0, checkpoint=None, net=None, data=DATA):
    return SupernetSearch(
        supernet(seed) if net is None else net,
        NETS,
        tree_sampler() if sampler is None else sampler,
        data,
        settings,
        generator=seeded(seed),
        checkpoint=checkpoint,
    )


# --- searching ------------------------------------------------------------------------------------


def test_a_search_trains_and_chooses():
    search = searching(settings=replace(SETTINGS, epochs=12))
    seen = []
    result = search.run(every_epoch=seen.append, progress=False)
    assert search.epochs == seen
    assert len(seen) == 12
    assert seen[-1].train_loss < seen[0].train_loss
    assert seen[-1].reward > seen[0].reward
    assert all(0.0 <= epoch.reward <= 1.0 for epoch in seen)
    assert result.network.spec == seen[-1].network
    assert result.candidates == ((result.network, result.accuracy),)
    assert int(search.sampler.visits[0]) == 12 * 2
    # Nothing is left to do, and choosing again chooses the same.
    assert search.run(progress=False) == result


def test_the_best_candidate_is_the_most_accurate():
    search = searching(Boltzmann(36), replace(SETTINGS, num_final=6))
    result = search.run(progress=False)
    assert len(result.candidates) == 6
    accuracies = [accuracy for _, accuracy in result.candidates]
    assert accuracies == sorted(accuracies, reverse=True)
    assert (result.network, result.accuracy) == result.candidates[0]
    everything = search.accuracies()
    assert everything.shape == (36,)
    for net, accuracy in result.candidates:
        assert everything[NETS.index(net)] == pytest.approx(accuracy, abs=1e-9)
    logits = search.supernet(DATA.validation.images, result.network)
    share = (logits.argmax(dim=1) == DATA.validation.labels).double().mean()
    assert result.accuracy == pytest.approx(float(share))


class Recorder(Uniform):
    """Notes what it is told."""

    def __init__(self, num):
        super().__init__(num, schedule=Schedule(warm_up=0.0))
        self.told = []

    def update(self, indices, rewards):
        super().update(indices, rewards)
        self.told.append((self.progress, int(indices), float(rewards)))


def test_steps_are_those_of_sgd_on_the_path_and_rewards_follow_them():
    """The first epoch again, by torch's own optimiser and scheduler."""
    sampler = Recorder(36)
    search = searching(sampler, replace(SETTINGS, epochs=2))
    search.run(progress=False)
    net, generator = supernet(), seeded()
    optimizer = torch.optim.SGD(
        _parameter_groups(net, SETTINGS.weight_decay), lr=0.05, momentum=0.9
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    step = 0
    for _ in range(2):
        order = torch.randperm(80, generator=generator)
        judged = torch.randint(80, (2, 40), generator=generator)
        for batch in range(2):
            progress, index, reward = sampler.told[step]
            assert progress == pytest.approx(step / 4)
            torch.rand(1, generator=generator, dtype=torch.float64)  # what drew the architecture
            fitted = order[40 * batch : 40 * batch + 40]
            logits = net(DATA.train.images[fitted], NETS[index])
            loss = torch.nn.functional.cross_entropy(logits, DATA.train.labels[fitted])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            guessed = net(DATA.validation.images[judged[batch]], NETS[index]).argmax(dim=1)
            expected = (guessed == DATA.validation.labels[judged[batch]]).float().mean()
            assert reward == pytest.approx(float(expected), abs=0.026)  # one image of 40
            step += 1
    assert len({index for _, index, _ in sampler.told}) > 2
    for name, value in search.supernet.state_dict().items():
        assert torch.allclose(value, net.state_dict()[name], atol=1e-4)


def test_rewards_are_measured_on_as_many_images_as_asked_for():
    sampler = Recorder(36)
    searching(sampler, replace(SETTINGS, reward_batch_size=7)).run(progress=False)
    sevenths = [7 * reward for _, _, reward in sampler.told]
    assert sevenths == pytest.approx([round(value) for value in sevenths], abs=1e-6)
    assert {round(value) for value in sevenths} != {0}


def test_equal_seeds_search_the_same():
    results = []
    for seed in (0, 0, 1):
        search = searching(seed=seed)
        search.run(progress=False)
        results.append(search.epochs)
    assert results[0] == results[1] != results[2]


def test_another_space_is_searched():
    net = MacroSupernet(width=0.05, input_channels=1, generator=seeded())
    nets = net.space.sample(10, generator=seeded(), distinct=True)
    search = SupernetSearch(
        net, nets, Boltzmann(10), DATA, replace(SETTINGS, epochs=1), generator=seeded()
    )
    assert search.run(progress=False).network in nets


def test_lower_precision_trains_too():
    search = searching(settings=replace(SETTINGS, precision="bfloat16", epochs=8))
    exact = searching(settings=replace(SETTINGS, epochs=8))
    for one in (search, exact):
        one.run(progress=False)
    assert search.epochs != exact.epochs
    assert search.epochs[-1].train_loss < search.epochs[0].train_loss
    assert {parameter.dtype for parameter in search.supernet.parameters()} == {torch.float32}


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_a_gpu_trains_with_lower_precision(precision, tmp_path):
    def make(checkpoint):
        net = PoolingSupernet(
            width=0.125, input_channels=1, generator=seeded(), device=torch.device("cuda")
        )
        settings = replace(SETTINGS, precision=precision)
        return searching(settings=settings, net=net, checkpoint=checkpoint)

    search = make(tmp_path / "search.pt")
    search.run(progress=False)
    assert search.epochs[-1].train_loss < search.epochs[0].train_loss
    assert make(tmp_path / "search.pt").epochs == search.epochs


def test_a_loss_that_diverges_is_an_error():
    with pytest.raises(RuntimeError, match="non-finite in epoch"):
        searching(settings=replace(SETTINGS, learning_rate=1e30)).run(progress=False)


# --- checkpoints ----------------------------------------------------------------------------------


class Interruption(Exception):
    pass


@pytest.mark.parametrize("make", [tree_sampler, lambda: Boltzmann(36)])
@pytest.mark.parametrize("after", [1, 3])
def test_a_continuation_equals_the_uninterrupted_search(make, after, tmp_path):
    settings = replace(SETTINGS, num_final=3)
    whole = searching(make(), settings)
    expected = whole.run(progress=False)

    def interrupt(epoch):
        if epoch is not None and len(search.epochs) == after:
            raise Interruption

    path = tmp_path / "folder" / "search.pt"
    search = searching(make(), settings, checkpoint=path)
    with pytest.raises(Interruption):
        search.run(every_epoch=interrupt, progress=False)
    # Other weights and another generator: everything comes from the file.
    resumed = searching(make(), settings, seed=5, checkpoint=path)
    assert len(resumed.epochs) == after
    assert resumed.run(progress=False) == expected
    assert resumed.epochs == whole.epochs
    for name, value in resumed.supernet.state_dict().items():
        assert torch.equal(value, whole.supernet.state_dict()[name])
    first, second = (one.sampler.state_dict()["statistics"]["rewards"] for one in (resumed, whole))
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert [entry.name for entry in path.parent.iterdir()] == ["search.pt"]


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    path = tmp_path / "search.pt"
    searching(checkpoint=path).run(progress=False)
    for options, message in (
        ({"settings": replace(SETTINGS, epochs=5)}, "its settings"),
        ({"sampler": Boltzmann(36)}, "its sampler"),
        ({"sampler": tree_sampler(1)}, "its sampler"),
        ({"data": digits(generator=seeded(1), num_train=80, num_validation=80)}, "its data"),
        (
            {"net": PoolingSupernet(width=0.25, input_channels=1, generator=seeded())},
            "its shapes",
        ),
    ):
        with pytest.raises(ValueError, match=f"another search: {message}"):
            searching(checkpoint=path, **options)


class Malice:
    def __reduce__(self):
        return print, ("run by a checkpoint",)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"version": 1}, Malice()])
def test_what_is_no_checkpoint_is_refused_and_never_run(content, tmp_path, capsys):
    path = tmp_path / "search.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="is no checkpoint of a supernet search"):
        searching(checkpoint=path)
    assert "run by" not in capsys.readouterr().out


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [{"input_channels": 3}, {"input_channels": 1, "num_classes": 7}])
def test_supernet_and_data_must_fit(option):
    net = PoolingSupernet(width=0.125, generator=seeded(), **option)
    name = "num_classes" if "num_classes" in option else "input_channels"
    with pytest.raises(ValueError, match=f"supernet must have {name}=.* for 'digits'; got"):
        searching(net=net)


def test_networks_and_sampler_must_fit():
    with pytest.raises(ValueError, match="nets must hold the 5 architectures of the sampler"):
        searching(Uniform(5))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("reward_batch_size", 1),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("num_final", 0),
        ("precision", "float64"),
    ],
)
def test_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        SupernetSettings(**{name: value})


def test_settings_are_ready_for_json():
    assert json.loads(json.dumps(SETTINGS.to_json())) == {
        name: value for name, value in asdict(SETTINGS).items() if name != "reward"
    }


# --- rewards --------------------------------------------------------------------------------------


def told_of(rule, outcomes):
    running, rewards = None, []
    for accuracy, loss in outcomes:
        reward, running = rule.of(accuracy, loss, running)
        rewards.append(reward)
    return rewards


def test_rewards_are_what_they_say():
    outcomes = [(0.5, 2.0), (0.6, 1.0), (0.1, 4.0)]
    assert told_of(Reward(), outcomes) == [0.5, 0.6, 0.1]
    assert told_of(Reward(measure="loss"), outcomes) == pytest.approx(
        [math.exp(-2.0), math.exp(-1.0), math.exp(-4.0)]
    )
    relative = told_of(Reward(relative=True, beta=0.5), outcomes)
    assert relative == pytest.approx([1.0, 0.6 / 0.55, 0.1 / 0.325])
    losses = told_of(Reward(measure="loss", relative=True, beta=0.5), outcomes)
    assert losses == pytest.approx([1.0, 1.5, 2.75 / 4.0])


@pytest.mark.parametrize("measure", ["accuracy", "loss"])
def test_relative_rewards_are_bounded(measure):
    rule = Reward(measure=measure, relative=True)
    assert told_of(rule, [(0.0, 0.0)] * 2) == [1.0, 1.0]
    for reward in told_of(rule, [(0.01, 5.0), (1.0, 0.0), (0.0, 100.0)]):
        assert 0.0 <= reward <= 2.0


REWARDS = [
    Reward(measure=measure, images=images, relative=relative)
    for measure in ("accuracy", "loss")
    for images in ("validation", "train")
    for relative in (False, True)
]


@pytest.mark.parametrize("reward", REWARDS, ids=repr)
def test_every_reward_searches_and_goes_on_as_uninterrupted(reward, tmp_path):
    settings = replace(SETTINGS, epochs=3, reward=reward)
    whole = searching(settings=settings)
    expected = whole.run(progress=False)
    assert all(0.0 < epoch.reward <= 2.0 for epoch in whole.epochs)

    file = tmp_path / "search.pt"
    begun = searching(settings=settings, checkpoint=file)
    with pytest.raises(KeyboardInterrupt):
        begun.run(progress=False, every_epoch=stop_after(2))
    resumed = searching(settings=settings, checkpoint=file)
    assert len(resumed.epochs) == 2
    assert resumed.run(progress=False).accuracy == expected.accuracy
    assert resumed.epochs == whole.epochs


def stop_after(epochs):
    seen = []

    def stop(epoch):
        seen.append(epoch)
        if len(seen) == epochs:
            raise KeyboardInterrupt

    return stop


def test_rewards_of_training_images_differ_from_those_of_validation_images():
    rewards = []
    for reward in REWARDS[0], REWARDS[2]:
        search = searching(settings=replace(SETTINGS, epochs=1, reward=reward))
        search.run(progress=False)
        rewards.append(search.epochs[0].reward)
    assert rewards[0] != rewards[1]


def test_settings_without_a_reward_of_their_own_are_recorded_as_before():
    assert "reward" not in SETTINGS.to_json()
    assert replace(SETTINGS, reward=Reward(relative=True)).to_json()["reward"]["relative"] is True


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"measure": "error"}, ValueError, "measure must be one of 'accuracy', 'loss'"),
        ({"images": "test"}, ValueError, "images must be one of 'validation', 'train'"),
        ({"relative": 1}, TypeError, "relative must be"),
        ({"beta": 1.0}, ValueError, "beta must be"),
    ],
)
def test_unknown_rewards_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        Reward(**settings)


def test_a_reward_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="reward must be"):
        SupernetSettings(reward="loss")
