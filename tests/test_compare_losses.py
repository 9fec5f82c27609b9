"""compare_losses.py: losses, steps and figures against values worked out by hand; files; resuming.

No MNIST here: the images are drawn digits or plain tensors, and everything is small.
"""

import contextlib
import csv
import functools
import io
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import compare_losses as script
import numpy as np
import pytest
import torch
from conftest import same, weights
from matplotlib.figure import Figure
from torch import nn

CPU = torch.device("cpu")
NAMES = sorted(script.loss_table())
WITH_PENALTY = [name for name, entry in script.loss_table().items()
                if entry.gp or entry.r1 or entry.r2]  # fmt: skip


def scores(*values):
    return torch.tensor(values).unsqueeze(1)


@functools.cache
def digits(seed, draw_digits=script.draw_digits):
    """170 digits and their labels, drawn once for all tests: five batches of 32, and ten left."""
    return draw_digits(170, seed)


@pytest.fixture
def small(monkeypatch):
    """Small networks and few images."""
    for name, value in {
        "DATASET": "drawn", "LATENT_DIM": 8, "GENERATOR_HIDDEN": (32,), "SAMPLES": 100,
        "DISCRIMINATOR_HIDDEN": (32,), "BATCH_SIZE": 32, "EPOCHS": 2, "LOSSES": ("BCE", "WGAN"),
        "draw_digits": lambda _, seed=0: tuple(part.clone() for part in digits(seed)),
    }.items():  # fmt: skip
        monkeypatch.setattr(script, name, value)
    return script


@pytest.fixture
def images(small):
    return script.draw_digits(170)[0]


def add_entry(monkeypatch, name, *positional, **settings):
    """Put an entry into the table, as a student does, or change the settings of one."""
    table = script.loss_table
    old = vars(table()[name]) if name in table() else {}
    new = {**old, **settings}
    monkeypatch.setattr(
        script, "loss_table", lambda: {**table(), name: script.loss_entry(*positional, **new)}
    )


def record(monkeypatch, name, found, note=lambda *arguments: arguments):
    """Append what `note` makes of the arguments and the result to found, at each call of `name`."""
    function = getattr(script, name)

    def watched(*arguments):
        result = function(*arguments)
        found.append(note(*arguments, result))
        return result

    monkeypatch.setattr(script, name, watched)


# Losses


@pytest.mark.parametrize(
    "name, real, fake, critic, generator",
    [
        ("BCE", (0.0, 0.0), (0.0, 0.0), 2 * math.log(2), math.log(2)),
        ("BCE", (math.log(3),), (-math.log(3),), 2 * math.log(4 / 3), math.log(4)),
        ("BCE-R1", (math.log(3), 0.0), (0.0, 0.0), math.log(4 / 3 * 2 * 4) / 2, math.log(2)),
        ("LSGAN", (1.0, 1.0), (0.0, 0.0), 0.0, 0.5),  # The critic's targets.
        ("LSGAN", (0.5,), (0.5,), 0.25, 0.125),  # It can only guess.
        ("LSGAN", (0.0, 3.0), (1.0, 1.0), 1.75, 0.0),  # The generator's target.
        ("WGAN", (5.0, 7.0), (1.0, 2.0), -4.5, -1.5),
        ("WGAN-GP", (5.0, 7.0), (1.0, 2.0), -4.5, -1.5),
        ("hinge", (0.0,), (0.0,), 2.0, 0.0),
        ("hinge", (2.0, 0.5), (-3.0, -0.5), 0.5, 1.75),  # No more to gain beyond the margin.
        ("R3GAN", (7.0,), (7.0,), math.log(2), math.log(2)),
        ("R3GAN", (math.log(3),), (0.0,), math.log(4 / 3), math.log(4)),
        # In pairs: first the fake is ahead, and then the real image.
        ("R3GAN", (0.0, 1 + math.log(7)), (math.log(3), 1.0), math.log(4 * 8 / 7) / 2,
         math.log(4 / 3 * 8) / 2),
    ],
)  # fmt: skip
def test_losses_have_the_values_worked_out_by_hand(name, real, fake, critic, generator):
    loss = script.loss_table()[name]
    real, fake = scores(*real), scores(*fake)
    assert loss.critic(real, fake).item() == pytest.approx(critic, abs=1e-6)
    assert loss.generator(real, fake).item() == pytest.approx(generator, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_losses_stay_finite_for_extreme_scores(name):
    loss, real = script.loss_table()[name], scores(200.0, -200.0)
    assert loss.critic(real, -real).isfinite() and loss.generator(real, -real).isfinite()


@pytest.mark.parametrize("name", ["WGAN", "WGAN-GP", "R3GAN"])
def test_a_constant_added_to_all_scores_changes_nothing_where_only_differences_count(name):
    critic = script.loss_table()[name].critic
    real, fake = torch.randn(2, 50, 1)
    assert critic(real + 7, fake + 7).item() == pytest.approx(critic(real, fake).item(), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_loss_falls_as_fakes_score_higher(name):
    generator = script.loss_table()[name].generator
    values = [generator(scores(0.0), scores(s)).item() for s in (-3.0, -1.0, 0.0, 0.9)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4, values


@pytest.mark.parametrize("name", NAMES)
def test_the_critic_loss_falls_as_real_and_fake_scores_part(name):
    critic = script.loss_table()[name].critic
    values = [critic(scores(gap), scores(-gap)).item() for gap in (-0.5, -0.2, 0.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 3, values


def pearson(monkeypatch):
    """[LSGAN, eq. 8], with the targets -1, 1 and 0: five lines of a student."""
    add_entry(
        monkeypatch, "Pearson",
        lambda real, fake: ((real - 1).square().mean() + (fake + 1).square().mean()) / 2,
        lambda real, fake: fake.square().mean() / 2,
    )  # fmt: skip
    monkeypatch.setattr(script, "LOSSES", ("Pearson",))


def test_a_new_entry_has_the_usual_settings_where_it_names_none(monkeypatch):
    pearson(monkeypatch)
    gan = script.build_gan(CPU, "Pearson", 0)
    for optimizer in (gan.optimizer_d, gan.optimizer_g):
        assert isinstance(optimizer, torch.optim.Adam)
        assert [optimizer.param_groups[0][key] for key in ("lr", "betas")] == [1e-3, (0.0, 0.99)]
    entry = script.loss_table()["Pearson"]
    assert (entry.critic_steps, entry.penalty_every) == (1, 1)
    assert [entry.clip, entry.gp, entry.r1, entry.r2] == [0] * 4


@pytest.mark.parametrize(
    "positional, settings, named",
    [((), {"generator": min}, "critic"), ((), {"critic": min}, "generator"),
     ((min, min), {"critic_learning_rate": 1}, "critic_learning_rate"),
     ((lambda real, fake: fake.mean(), lambda fake: -fake.mean()), {}, "2 were given")],
    ids=["no critic", "no generator", "unknown field", "one score"],
)  # fmt: skip
def test_an_entry_that_lacks_a_loss_or_has_an_unknown_field_is_one_line_before_anything_is_done(
    small, monkeypatch, positional, settings, named
):
    add_entry(monkeypatch, "Mine", *positional, **settings)
    with pytest.raises(SystemExit, match=f"loss_table[^\n]*{named}[^\n]*$"):
        script.main()
    assert not Path(script.OUTPUT_DIR).exists()


# Penalties


def entry(**settings):
    return script.loss_entry(lambda real, fake: (fake - real).mean(), min, **settings)


@pytest.mark.parametrize(
    "weights_of, expected",
    [({}, 0), ({"r1": 0.3}, 0.15 * 14 / 3), ({"r2": 0.3}, 0.15 * 33 / 3),
     ({"gp": 10}, 10 * (0 + 9 + 1) / 3), ({"r1": 1, "r2": 2, "gp": 3}, 7 / 3 + 11 + 10)],
)  # fmt: skip
def test_penalties_look_at_real_images_at_fakes_and_between_them(weights_of, expected):
    """For the critic |x|^2 / 2 the slope at x is x itself, so a slope's length is the image's."""
    lengths = torch.tensor([[1.0, 2, 3], [2, 5, 2]]).view(2, 3, 1, 1, 1)
    real, fake = (lengths / 28).expand(2, 3, 1, 28, 28)
    share = torch.tensor([1.0, 1 / 3, 0.0]).view(3, 1, 1, 1)  # Lengths of 1, 4 and 2.
    value = script.penalty(
        entry(**weights_of), lambda x: x.square().sum((1, 2, 3)) / 2, real, fake, share
    )
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("length", [0.0, 1.0, 3.0])
def test_penalties_of_a_linear_critic_and_what_they_teach_it(length):
    linear = nn.Linear(784, 1)
    with torch.no_grad():
        linear.weight.mul_(length / linear.weight.norm())
    old = linear.weight.detach().clone()
    real, fake, share = *torch.randn(2, 6, 1, 28, 28), torch.rand(6, 1, 1, 1)
    of_gp = 2 * (length - 1) * old / max(length, 1e-9)
    for settings, value, slope in (
        ({"r1": 0.6}, 0.3 * length**2, 0.6 * old), ({"r2": 0.6}, 0.3 * length**2, 0.6 * old),
        ({"gp": 1}, (length - 1) ** 2, of_gp),
    ):  # fmt: skip
        linear.zero_grad()
        found = script.penalty(
            entry(**settings), nn.Sequential(nn.Flatten(), linear), real, fake, share
        )
        assert found.item() == pytest.approx(value, abs=1e-5)
        found.backward()
        torch.testing.assert_close(linear.weight.grad, slope, atol=1e-5, rtol=1e-4)
    assert not real.requires_grad, "the images of the dataset stay as they are"


def shares(count):
    return torch.linspace(0, 1, count).view(count, 1, 1, 1)


def critic_step(gan, real_images, fake_images, strength=1):
    loss = script.loss_table()[gan.loss]
    return script.critic_step(gan.discriminator, gan.optimizer_d, loss, real_images, fake_images,
                              shares(len(real_images)), strength)  # fmt: skip


def generator_step(gan, real_images, fake_images):
    loss = script.loss_table()[gan.loss]
    networks = gan.generator, gan.discriminator, gan.optimizer_g
    return script.generator_step(*networks, loss, real_images, fake_images)


def gradients(network):
    return torch.cat([weight.grad.flatten() for weight in network.parameters()])


@pytest.mark.parametrize("name", WITH_PENALTY)
def test_a_penalty_moves_the_critic_as_strongly_as_asked_and_is_not_in_the_printed_loss(
    name, images
):
    gan = script.build_gan(CPU, name, 0)
    gan.optimizer_d.param_groups[0]["lr"] = 0.0
    fake_images = gan.generator(script.sample_latents(32, gan.latents_rng)).detach()
    found, numbers = [], []
    for strength in (0, 1, 8):
        numbers.append(critic_step(gan, images[:32], fake_images, strength))
        found.append(gradients(gan.discriminator))
    assert numbers[0] == numbers[1] == numbers[2]
    loss, critic = script.loss_table()[name], gan.discriminator
    assert numbers[0][0].item() == pytest.approx(
        loss.critic(critic(images[:32]), critic(fake_images)).item(), rel=1e-5
    )
    critic.zero_grad()
    script.penalty(loss, critic, images[:32], fake_images, shares(32)).backward()
    critic.layers[-1].bias.grad = torch.zeros(1)  # A slope does not depend on it.
    for strength, gradient in zip((1, 8), found[1:]):
        change = gradient - found[0]
        torch.testing.assert_close(change, strength * gradients(critic), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "critic_steps, every, calls", [(1, 8, 16), (5, 8, 16), (1, 1, 4)], ids=["8", "5 and 8", "1"]
)
def test_every_so_many_critic_steps_there_is_a_penalty_as_many_times_as_strong(
    images, monkeypatch, critic_steps, every, calls
):
    strengths = []
    record(monkeypatch, "critic_step", strengths, lambda *arguments: arguments[6])
    settings = {"penalty_every": every, "critic_steps": critic_steps}
    for kind in ("r1", "r2", "gp", "none"):
        penalties = {name: int(name == kind) for name in ("r1", "r2", "gp")}
        add_entry(monkeypatch, "BCE", **penalties, **settings)
        gan = script.build_gan(CPU, "BCE", 0)
        strengths.clear()
        while gan.critic_steps < calls:
            script.train_epoch(gan, images)  # Five steps of G.
        expected = ([every] + [0] * (every - 1)) * (gan.critic_steps // every + 1)
        none = [0] * gan.critic_steps
        assert strengths == (none if kind == "none" else expected[: gan.critic_steps]), kind


# Steps


@pytest.mark.parametrize("name", NAMES)
def test_each_step_changes_its_own_network_and_leaves_the_other_alone(name, images):
    gan = script.build_gan(CPU, name, 0)
    fake_images = gan.generator(script.sample_latents(32, gan.latents_rng))
    before_g, before_d = weights(gan.generator), weights(gan.discriminator)
    critic_step(gan, images[:32], fake_images)
    after_d, gradient = weights(gan.discriminator), gradients(gan.discriminator)
    assert same(before_g, weights(gan.generator)) and not same(before_d, after_d)
    assert all(weight.grad is None for weight in gan.generator.parameters())
    generator_step(gan, images[:32], fake_images)
    assert not same(before_g, weights(gan.generator))
    assert same(after_d, weights(gan.discriminator))
    assert gradient.equal(gradients(gan.discriminator)), "none of it is left for D's next step"


@pytest.mark.parametrize("name", NAMES)
def test_gradients_do_not_add_up_over_steps(name, images, monkeypatch):
    add_entry(monkeypatch, name, clip=0)
    gan = script.build_gan(CPU, name, 0)
    for optimizer in (gan.optimizer_d, gan.optimizer_g):
        optimizer.param_groups[0]["lr"] = 0.0
    fake_images = gan.generator(script.sample_latents(32, gan.latents_rng)).detach()
    found = []
    for _ in range(2):
        critic_step(gan, images[:32], fake_images)
        generator_step(gan, images[:32], gan.generator(torch.ones(32, 8)))
        found.append((gradients(gan.discriminator), gradients(gan.generator)))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", NAMES)
def test_thirty_generator_steps_raise_the_scores_of_fakes(name, images):
    gan = script.build_gan(CPU, name, 0)
    latents = script.sample_latents(32, gan.latents_rng)
    before = gan.discriminator(gan.generator(latents)).mean().item()
    for _ in range(30):
        loss_g = generator_step(gan, images[:32], gan.generator(latents))
    after = gan.discriminator(gan.generator(latents)).mean().item()
    assert after > before + 0.01 and loss_g.isfinite(), (before, after)


@pytest.mark.parametrize("name", NAMES)
def test_thirty_critic_steps_score_real_images_above_fake_ones(name, images):
    gan = script.build_gan(CPU, name, 0)
    fake_images = gan.generator(script.sample_latents(32, gan.latents_rng))
    for _ in range(30):
        _, real_score, fake_score = critic_step(gan, images[:32], fake_images)
    gap = (real_score - fake_score).item()
    assert gap > (0.001 if script.loss_table()[name].clip else 0.3), gap


def test_wgan_weights_are_within_the_clip_after_every_critic_step(images, monkeypatch):
    largest = []
    record(monkeypatch, "critic_step", largest,
           lambda critic, *_: max(weight.abs().max().item() for weight in critic.parameters()))
    gan, clip = script.build_gan(CPU, "WGAN", 0), script.loss_table()["WGAN"].clip
    for _ in range(3):
        script.train_step(gan, images)
    assert len(largest) == 15
    assert max(largest) <= clip + 1e-9 and min(largest) > 0.5 * clip, largest


@pytest.mark.parametrize("name", NAMES)
def test_critic_steps_are_counted_and_g_learns_from_the_last_one(name, images, monkeypatch):
    calls, learnt = [], []
    record(monkeypatch, "critic_step", calls,
           lambda critic, *rest: (weights(critic), rest[2:4], rest[-1]))
    record(monkeypatch, "generator_step", learnt, lambda g, critic, *rest: (weights(critic), *rest))
    gan, steps = script.build_gan(CPU, name, 0), script.loss_table()[name].critic_steps
    numbers = [script.train_step(gan, images) for _ in range(3)]
    assert (gan.step, gan.critic_steps, len(calls), len(learnt)) == (3, 3 * steps, 3 * steps, 3)
    for row, last, called in zip(numbers, calls[steps - 1 :: steps], learnt):
        after, images, (loss_d, real_score, fake_score) = last
        critic, _, _, *shown, loss_g = called
        assert same(after, critic) and shown[0] is images[0] and shown[1] is images[1]
        assert row.equal(torch.stack([loss_d, loss_g, real_score, fake_score]))


def test_an_epoch_returns_the_means_over_its_steps(images, monkeypatch):
    rows = []
    record(monkeypatch, "train_step", rows, lambda *arguments: arguments[-1])
    means = script.train_epoch(script.build_gan(CPU, "LSGAN", 0), images)
    assert len(rows) == 5 and means == pytest.approx(torch.stack(rows).mean(0).tolist(), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_each_network_learns_at_the_rate_of_its_entry(name, monkeypatch):
    add_entry(monkeypatch, name, critic_lr=0.125, generator_lr=0.25)
    gan, loss = script.build_gan(CPU, name, 0), script.loss_table()[name]
    for optimizer, network, rate in ((gan.optimizer_d, gan.discriminator, 0.125),
                                     (gan.optimizer_g, gan.generator, 0.25)):  # fmt: skip
        (group,) = optimizer.param_groups
        assert group["lr"] == rate and type(optimizer) is loss.optimizer
        assert group.get("betas", loss.betas) == loss.betas
        assert [id(w) for w in group["params"]] == [id(w) for w in network.parameters()]


def test_betas_reach_every_kind_of_adam_and_wgan_learns_without_momentum(monkeypatch):
    add_entry(monkeypatch, "Mine", min, min, optimizer=torch.optim.AdamW, betas=(0.25, 0.75))
    assert script.build_gan(CPU, "Mine", 0).optimizer_g.param_groups[0]["betas"] == (0.25, 0.75)
    gan = script.build_gan(CPU, "WGAN", 0)
    for optimizer in (gan.optimizer_g, gan.optimizer_d):
        assert isinstance(optimizer, torch.optim.RMSprop)
        assert optimizer.param_groups[0]["momentum"] == 0


def test_the_critic_ends_without_a_sigmoid_and_scores_each_image_by_itself(images):
    critic = script.Discriminator()
    assert not any(isinstance(m, (nn.Sigmoid, nn.BatchNorm1d)) for m in critic.modules())
    together, alone = critic(images), torch.cat([critic(image) for image in images.split(1)])
    assert together.shape == (170, 1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


# The average of G's weights


def test_the_average_with_1_is_the_plain_mean_of_all_steps(images, monkeypatch):
    monkeypatch.setattr(script, "AVERAGE", 1)
    gan = script.build_gan(CPU, "BCE", 0)
    assert same(weights(gan.generator), weights(gan.average))
    path = []
    for _ in range(4):
        script.train_step(gan, images)
        path.append(nn.utils.parameters_to_vector(gan.generator.parameters()).detach())
    average = nn.utils.parameters_to_vector(gan.average.parameters())
    torch.testing.assert_close(average, torch.stack(path).mean(0))


def test_the_average_moves_by_a_share_that_shrinks_with_the_steps(monkeypatch):
    monkeypatch.setattr(script, "AVERAGE", 8)
    for step, expected in ((0, 9.0), (1, 8.0), (64, 1.0)):  # 9 times 8 / (8 + step).
        average, generator = nn.Linear(1, 1), nn.Linear(1, 1)
        nn.init.zeros_(average.weight), nn.init.constant_(generator.weight, 9.0)
        script.update_average(average, generator, step)
        assert (average.weight.item(), generator.weight.item()) == pytest.approx((expected, 9))


@pytest.mark.parametrize("average", [0, 8])
def test_the_average_and_its_statistics_change_neither_the_training_nor_its_random_numbers(
    images, monkeypatch, average
):
    def end(average, renew):
        monkeypatch.setattr(script, "AVERAGE", average)
        gan = script.build_gan(CPU, "BCE", 0)
        assert (gan.average is gan.generator) == (average == 0)
        for _ in range(2):
            script.train_epoch(gan, images)
            if renew:
                script.renew_statistics(gan)
                script.sample_images(gan.average, 0)
        networks = [dict(net.named_parameters()) for net in (gan.generator, gan.discriminator)]
        rngs = [rng.get_state() for rng in vars(gan).values() if isinstance(rng, torch.Generator)]
        return [*networks, dict(enumerate([*rngs, gan.order, torch.get_rng_state()]))]

    assert all(map(same, end(average, True), end(0, False)))


def test_statistics_of_the_average_are_those_of_fixed_latents_with_its_own_weights(images):
    gan = script.build_gan(CPU, "BCE", 0)
    script.train_epoch(gan, images)
    first, norm = gan.average.layers[:2]
    script.renew_statistics(gan)
    with torch.no_grad():
        latents = script.sample_latents(6400, script.random_stream("batchnorm latents", 0))
        values = first(latents)
    torch.testing.assert_close(norm.running_mean, values.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm.running_var, values.var(0), atol=0, rtol=0.05)
    before = weights(gan.average)
    script.renew_statistics(gan)
    assert same(before, weights(gan.average)), "anew, not a mixture with the old ones"
    assert gan.average.training and gan.generator.training


# The same for each loss


def test_each_loss_starts_from_the_same_weights_and_latents_and_another_seed_from_others():
    first, *gans = [script.build_gan(CPU, name, 3) for name in NAMES]
    other = script.build_gan(CPU, NAMES[0], 4)
    for gan, equal in [*((gan, True) for gan in gans), (other, False)]:
        assert same(weights(gan.generator), weights(first.generator)) == equal
        assert same(weights(gan.discriminator), weights(first.discriminator)) == equal
        assert gan.fixed_latents.equal(first.fixed_latents) == equal


def test_each_loss_meets_the_same_images_and_latents_in_the_same_order(images, monkeypatch):
    found = []
    record(monkeypatch, "critic_step", found, lambda *arguments: (arguments[3], arguments[5]))
    record(monkeypatch, "sample_latents", found, lambda *arguments: arguments[-1:])
    runs = []
    for name in NAMES:
        gan = script.build_gan(CPU, name, 0)
        found.clear()
        while gan.critic_steps < 10:
            script.train_step(gan, images)
        runs.append([tensor for call in found for tensor in call])
    for other in runs[1:]:
        assert len(other) == len(runs[0]) == 3 * 10 and all(map(torch.equal, other, runs[0]))
    latents, real_images, share = (runs[0][start::3] for start in range(3))
    rng = script.random_stream("training latents", 0)
    assert all(part.equal(torch.randn(32, 8, generator=rng)) for part in latents), "no other use"
    order = torch.randperm(170, generator=script.random_stream("data order", 0))
    assert real_images[1].equal(images[order[32:64]])
    first_epoch = torch.cat(real_images[:5]).flatten(1)
    assert len(first_epoch.unique(dim=0)) == 160, "each at most once"
    assert not real_images[0].equal(real_images[5]), "shuffled anew"
    assert all(part.shape == (32, 1, 1, 1) for part in share)
    share = torch.cat(share).flatten()
    assert len(share.unique()) == 320, "each image has a share of its own"
    assert 0 <= share.min() < 0.05 and 0.95 < share.max() <= 1


def test_a_checkpoint_gives_back_the_images_yet_to_come(small, images, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "OUTPUT_DIR", str(tmp_path))
    gan, other = (script.build_gan(CPU, "BCE", 0) for _ in range(2))
    for part in (gan, other):
        part.made_with = {"device": "cpu"}
    script.train_step(gan, images)
    script.save_checkpoint(gan)
    script.load_checkpoint(other)
    assert len(other.order) == 170 - 32
    for _ in range(10):
        assert script.next_batch(gan, images).equal(script.next_batch(other, images))


def test_the_entries_have_the_settings_on_which_the_published_figures_rest():
    rates = {"BCE": (1e-3, 1e-3), "BCE-R1": (1e-3, 1e-3), "LSGAN": (1e-3, 1e-3),
             "WGAN": (5e-5, 1e-3), "WGAN-GP": (1e-3, 1e-3), "hinge": (1e-3, 1e-3),
             "R3GAN": (1e-3, 1e-3)}  # fmt: skip
    others = {"WGAN": {"critic_steps": 5, "clip": 0.01, "betas": None},
              "WGAN-GP": {"critic_steps": 5, "gp": 10, "betas": (0.0, 0.9)},
              "BCE-R1": {"r1": 0.3, "penalty_every": 8},
              "R3GAN": {"r1": 1.0, "r2": 1.0, "penalty_every": 8}}  # fmt: skip
    usual = {"critic_steps": 1, "clip": 0, "gp": 0, "r1": 0, "r2": 0, "betas": (0.0, 0.99)}
    for name in rates:
        entry = script.loss_table()[name]
        assert (entry.critic_lr, entry.generator_lr) == rates[name]
        for field, value in {**usual, **others.get(name, {})}.items():
            assert getattr(entry, field) == value, (name, field)


def test_where_no_checkpoint_could_be_written_the_run_says_so(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr(script, "save_checkpoint", lambda gan: None)  # As on a full disk.
    script.main()
    assert "There is no checkpoint" in capsys.readouterr().out
    assert not list(tmp_path.glob("generat*"))


def test_images_left_over_from_an_epoch_do_not_make_a_short_batch(monkeypatch):
    monkeypatch.setattr(script, "BATCH_SIZE", 30)
    gan = script.build_gan(CPU, "BCE", 0)
    batches = [script.next_batch(gan, torch.arange(100)) for _ in range(7)]
    assert [len(batch) for batch in batches] == [30] * 7
    assert len(torch.cat(batches[:3]).unique()) == len(torch.cat(batches[3:6]).unique()) == 90


def test_each_use_of_random_numbers_has_a_stream_of_its_own(monkeypatch, quick):
    used = []
    record(monkeypatch, "random_stream", used, lambda use, seed, rng: (use, rng.initial_seed()))
    monkeypatch.setattr(script, "SEEDS", (5,))
    script.main()
    gan = script.build_gan(CPU, "BCE", 5)
    rngs = [gan.order_rng, gan.latents_rng, gan.penalty_rng]
    seeds = dict(used)
    assert len(set(used)) == len(seeds) == len({*seeds.values(), 5}) - 1 >= 8
    assert [seeds[use] for use in ("data order", "training latents", "penalty")] == [
        rng.initial_seed() for rng in rngs
    ]


# Figures


def cloud(count=400, width=4):
    """Points with mean 0 and covariance 1, exactly."""
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(count, width, dtype=torch.float64, generator=rng)
    points -= points.mean(0)
    return points @ torch.linalg.inv(torch.linalg.cholesky(points.T.cov())).T


def test_frechet_distance_has_the_closed_form_for_gaussians():
    a, b = torch.tensor([1.0, 2, 3, 0]).double(), torch.tensor([2.0, 2, 0, 5]).double()
    shift = torch.tensor([1.0, 0, -2, 0]).double()
    expected = 1 + 4 + (1 + 0 + 9 + 25)  # |shift|^2 + sum of (a - b)^2
    rotation = torch.linalg.qr(torch.randn(4, 4).double())[0]
    for turn in (torch.eye(4).double(), rotation):
        distance = script.frechet_distance(cloud() * a @ turn, (cloud() * b + shift) @ turn)
        assert distance == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_covariances_that_do_not_commute():
    a, b = torch.randn(2, 4, 4).double()
    real, fake = cloud() @ a, cloud() @ b
    values, vectors = torch.linalg.eigh(real.T.cov())
    root = vectors * values.sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ fake.T.cov() @ root).sqrt().sum()
    expected = (real.T.cov().trace() + fake.T.cov().trace() - 2 * cross).item()
    assert script.frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_bears_features_that_never_vary():
    flat = cloud() * torch.tensor([1.0, 1, 0, 0]).double()
    assert script.frechet_distance(flat, flat) == pytest.approx(0, abs=1e-6)
    point = torch.zeros(400, 4).double()
    assert script.frechet_distance(cloud(), point) == pytest.approx(4)


def test_precision_and_recall_tell_fidelity_from_variety():
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(400, 2, generator=rng)
    real[200:, 0] += 100  # Two islands.
    fake = torch.randn(400, 2, generator=rng)
    precision, recall = script.precision_and_recall(real, fake)
    assert precision > 0.9 and 0.4 < recall <= 0.5, (precision, recall)  # Good, on one island.
    precision, recall = script.precision_and_recall(fake, real)
    assert 0.4 < precision <= 0.5 and recall > 0.9, (precision, recall)  # Half of it is astray.
    assert script.precision_and_recall(real, real) == (1, 1)
    assert script.precision_and_recall(real, real + 1000) == (0, 0)


def test_precision_and_recall_reach_to_the_third_neighbour():
    some = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # Radii 10, 9, 8, 10.
    other = torch.tensor([[-10.0], [-10.5], [20.5], [19.5]])  # One is 10 from 0, one 9.5 from 10.
    assert script.precision_and_recall(some, other)[0] == 0.5
    assert script.precision_and_recall(other, some)[1] == 0.5


def test_readable_and_digits_count_what_is_named_surely_and_not_rarely(monkeypatch):
    def judge(images):
        """Its probabilities stand in the first pixels, and features are in the second row."""
        return images[:, 0, 1, :5].double(), images[:, 0, 0, :10].log()

    probabilities = torch.full((1000, 10), 0.1)
    start = 0
    for digit, count, sure in ((0, 500, 0.95), (1, 10, 0.95), (2, 9, 0.95), (3, 300, 0.85)):
        probabilities[start : start + count] = (1 - sure) / 9
        probabilities[start : start + count, digit] = sure
        start += count
    images = torch.rand(1000, 1, 28, 28)
    images[:, 0, 0, :10] = probabilities
    judge.real_features = torch.rand(1200, 5).double()
    found = script.measure(judge, images)
    assert found["readable"] == pytest.approx(0.519), "85 % is not sure"
    assert found["digits"] == 2, "nine in a thousand are too few"
    features = judge.real_features[:1000], images[:, 0, 1, :5].double()
    assert found["distance"] == pytest.approx(script.frechet_distance(*features))
    assert (found["precision"], found["recall"]) == script.precision_and_recall(*features)


# The judge


@pytest.fixture(scope="module")
def judged():
    """A judge of drawn digits, and digits that neither it nor anyone has seen."""
    images, labels = script.draw_digits(3200)
    recipe = {**script.judge_recipe(), "batch": 32, "rounds": 5}  # These are few.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "judge_recipe", lambda: recipe)
        judge = script.train_judge(images[:2000], labels[:2000])
    judge.real_features, _ = script.look_at(judge, images[2000:2600])
    return judge, images[2600:], labels[2600:]


def test_the_judge_tells_real_digits_from_one_digit_blur_specks_and_noise(judged):
    judge, images, labels = judged
    rng = torch.Generator().manual_seed(0)
    blurred = nn.functional.avg_pool2d(images, 5, stride=1, padding=2)
    speck = torch.rand(images.shape, generator=rng) < 0.01
    sets = {
        "real": images, "one digit": images[labels == 3].repeat(11, 1, 1, 1)[:600],
        "blurred": blurred, "specks": torch.where(speck, 1.0, images),
        "noise": torch.rand(images.shape, generator=rng) * 2 - 1,
    }  # fmt: skip
    found = {name: script.measure(judge, images) for name, images in sets.items()}
    real, one = found.pop("real"), found["one digit"]
    assert real["digits"] == 10 and real["readable"] > 0.8, real
    assert real["precision"] > 0.7 and real["recall"] > 0.7, real
    assert one["digits"] == 1 and one["readable"] > 0.8, one
    assert found["noise"]["readable"] < 0.5, found
    for name, figures in found.items():
        factor = 2 if name == "specks" else 5
        assert figures["distance"] > factor * real["distance"], (name, figures, real)
        assert name == "specks" or figures["recall"] < real["recall"] / 2, (name, figures, real)


def test_a_judge_is_the_same_each_time_and_learns_from_the_first_five_sixths():
    images, labels = digits(0)
    judges = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        judges.append(weights(script.train_judge(images, labels)))
        images, labels = images.clone(), labels.clone()
        images[141:], labels[141:] = 0.5, 3
    assert same(*judges)


def test_means_over_the_image_have_the_share_of_all_variance_that_the_recipe_names(judged):
    """Otherwise the distance would depend on how large this judge's features happen to be."""
    shapes, means = judged[0].real_features.var(0).split([64, 32])
    share = (means.sum() / shapes.sum()).item()
    assert share == pytest.approx(script.judge_recipe()["means"], rel=0.25)


@pytest.fixture
def two_sets(quick, monkeypatch):
    """Other images for training than for testing, and what prepare_judge makes of them."""
    sets = {train: digits(int(train)) for train in (True, False)}
    monkeypatch.setattr(script, "load_images", lambda train=True: (*sets[train], "digits"))
    path("").mkdir()
    return sets


def sorted_rows(tensor):
    return tensor.flatten(1).sum(1).sort().values


@pytest.mark.parametrize("search", [False, True])
def test_images_are_compared_with_test_images_and_in_a_search_with_unseen_training_images(
    two_sets, quick, search
):
    (images, labels), (test_images, _) = two_sets[True], two_sets[False]
    judge = script.prepare_judge(images, labels, "digits", search)
    assert quick[0][0] is images and quick[0][1].equal(labels)
    unseen = images[141:]
    real, other = (unseen, test_images) if search else (test_images, unseen)
    torch.testing.assert_close(sorted_rows(judge.other_images), sorted_rows(other))
    expected, _ = script.look_at(judge, real)
    torch.testing.assert_close(sorted_rows(judge.real_features), sorted_rows(expected))
    if not search:
        assert not judge.real_features.allclose(expected), "mixed, because the first are neater"
    kinds = "training images.*test" if search else "test images.*training"
    assert re.match(kinds, judge.about, re.S)


def test_a_judge_is_used_again_for_the_same_recipe_and_data_only(two_sets, quick, monkeypatch):
    images, labels = two_sets[True]

    def trains(images=images, name="digits"):
        before = len(quick)
        judge = script.prepare_judge(images, labels[: len(images)], name)
        assert same(weights(judge), read("judge.pt")["judge"])
        return len(quick) > before

    recipe, other = script.judge_recipe(), images.clone()
    other[0] = 1.0
    assert trains() and not trains()
    assert trains(name="KMNIST") and trains() and trains(images[:160]) and trains()
    assert trains(other) and trains()
    with monkeypatch.context() as patch:
        patch.setattr(script, "judge_recipe", lambda: {**recipe, "rounds": 5})
        assert trains() and not trains()
    assert trains()
    for damage in (b"damaged", b"", path("judge.pt").read_bytes()[:999]):
        path("judge.pt").write_bytes(damage)
        assert trains() and not trains()
    torch.save([1, 2], path("judge.pt"))
    assert trains()
    path("judge.pt").unlink()
    assert trains() and not trains()


def test_a_judge_stays_where_it_is_when_an_earlier_run_is_moved(quick, monkeypatch, capsys):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    for _ in range(2):
        script.main()
    assert len(quick) == 1 and path("earlier_1/comparison.csv").exists()
    assert not path("earlier_1/judge.pt").exists() and "judge.pt" in written()
    assert f"files of an earlier run, in {path('earlier_1')}" in capsys.readouterr().out


def test_black_is_zero_for_the_judge_as_what_its_convolutions_add_around_an_image_is():
    judge, seen = script.Judge().eval(), []
    judge.near.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for colour in (-1.0, 1.0):
        judge(torch.full((1, 1, 28, 28), colour))
    assert seen[0].eq(0).all() and seen[1].eq(1).all()


def test_a_judge_that_names_few_right_is_a_warning(two_sets, monkeypatch, capsys):
    judge = script.prepare_judge(*two_sets[True], "digits")
    named = script.look_at(judge, two_sets[False][0])[1].argmax(1)
    for wrong, warned in ((53, True), (49, False)):  # Of 170: 68.8 and 71.2 % are right.
        two_sets[False] = two_sets[False][0], (named + (torch.arange(170) < wrong)) % 10
        capsys.readouterr()
        script.prepare_judge(*two_sets[True], "digits")
        printed = capsys.readouterr().out
        assert f"{(170 - wrong) / 1.7:.1f}%" in printed and ("Warning" in printed) == warned


def test_images_without_labels_are_one_line_and_nothing_is_moved(quick, monkeypatch):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    before = written()
    monkeypatch.setattr(script, "load_images", lambda train=True: (digits(0)[0], None, "mine"))
    for resume in (False, True):
        monkeypatch.setattr(script, "RESUME", resume)
        assert "labels" in refusal()
    assert written() == before


# Anybody's images


@pytest.mark.parametrize("kind", ["file", "bytes", "floats", "tensor", "grey channel"])
def test_measure_digits_prints_a_row_beside_that_of_real_images(quick, tmp_path, kind, capsys):
    images = digits(3)[0][:120]
    pixels = images.add(1).mul(127.5).round().byte().numpy()
    np.save(tmp_path / "mine.npy", pixels[:, 0])
    source = {"file": str(tmp_path / "mine.npy"), "bytes": pixels[:, 0], "floats": images.numpy(),
              "tensor": images.requires_grad_(), "grey channel": pixels}[kind]  # fmt: skip
    found = script.measure_digits(source)
    name = "mine.npy" if kind == "file" else "images"
    assert list(found) == ["real images", name]
    table = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert [row[1].strip() for row in table] == ["", "-" * 11, "real images", name]
    for column, figure in zip(table[0][2:-1], table[3][2:]):
        assert float(figure) == pytest.approx(found[name][column.strip()], abs=0.0051)
    judge = script.prepare_judge(*script.load_images())
    features, _ = script.look_at(judge, images.detach())
    distance = script.frechet_distance(judge.real_features[:120], features)
    assert found[name]["distance"] == pytest.approx(distance, rel=0.01, abs=1e-5)
    assert len(quick) == 1, "the judge is kept"


def test_of_many_images_the_first_10_000_are_read():
    source = np.arange(10_100).astype(np.uint8).reshape(-1, 1, 1) * np.ones((28, 28), np.uint8)
    images = script.read_digits(source)
    assert images.shape == (10_000, 1, 28, 28) and images.dtype == torch.float32
    assert (images[0, 0, 0, 0].item(), images[255, 0, 5, 5].item()) == (-1, 1)


WRONG = {
    "too few": np.zeros((99, 28, 28), np.uint8), "too large": np.zeros((100, 32, 32), np.uint8),
    "colours": np.zeros((100, 3, 28, 28), np.uint8), "one image": np.zeros((28, 28), np.uint8),
    "from 0 to 1": np.random.rand(100, 28, 28).astype(np.float32),
    "to 255": np.random.rand(100, 28, 28) * 510 - 255, "int64": np.full((100, 28, 28), -1),
    "no number": np.full((100, 28, 28), np.nan), "words": np.full((100, 28, 28), "one"),
    "objects": np.full((100, 28, 28), None), "ragged": [[1, 2], [3]], "nothing": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", [*WRONG, "no file", "text", "empty file", "folder", "pickle"])
def test_what_is_no_set_of_images_is_one_line_before_a_judge_is_made(
    quick, tmp_path, monkeypatch, kind
):
    source = WRONG.get(kind, tmp_path / f"{kind}.npy")
    if kind in ("text", "empty file"):
        source.write_text("hello\n" * (kind == "text"))
    elif kind == "folder":
        source.mkdir()
    elif kind == "pickle":
        np.save(source, np.array([Stop()], object), allow_pickle=True)
    with pytest.raises(SystemExit) as stop:
        script.measure_digits(source)
    assert str(stop.value) and "\n" not in str(stop.value)
    assert kind in WRONG or str(source) in str(stop.value)
    assert not path("").exists() and not quick


# The whole run


@pytest.fixture
def quick(small, monkeypatch):
    """The whole script in a moment: dots for pictures, and a judge that has learnt nothing."""
    torch.manual_seed(0)
    monkeypatch.setattr(script, "draw_comparison", lambda *_: Figure((1, 1)))
    trained = []

    def train_judge(*arguments):
        trained.append(arguments)
        judge = script.Judge().eval()
        judge.scale.fill_(0.01)  # So that distances are not all but nothing.
        return judge

    monkeypatch.setattr(script, "train_judge", train_judge)
    return trained


def path(name):
    return Path(script.OUTPUT_DIR, name)


def written():
    """The files in OUTPUT_DIR, but for the lock, which is no result."""
    return {file.name: file.read_bytes() for file in sorted(path("").iterdir())
            if file.is_file() and not file.name.startswith("lock")}  # fmt: skip


def read(name):
    return torch.load(path(name), weights_only=True)


def rows(name):
    with open(path(name), newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"}
                for row in csv.DictReader(file)]  # fmt: skip


def results():
    """All of a run that must be the same when it is run again."""
    tensors = {name: data for name, data in written().items() if name.startswith("gener")}
    return tensors, rows("comparison.csv"), rows("history.csv")


def refusal():
    """The line with which a run ends."""
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert "\n" not in str(stop.value)
    return str(stop.value)


def test_a_run_writes_the_files_that_its_docstring_names(small, monkeypatch, capsys):
    monkeypatch.setattr(script, "LOSSES", ("BCE", "WGAN-GP"))
    script.main()
    printed = capsys.readouterr().out
    listed = script.__doc__.split("It writes to")[1].split("A new run")[0]
    promised = set(re.findall(r"\w+\.(?:png|csv|npy|pt|txt|md)", listed))
    assert {name.replace("wgan-gp", "bce") for name in written()} == promised
    assert {"generator_wgan-gp.pt", "generated_wgan-gp.npy"} < set(written())
    assert str(path("")) in printed and "170 images" in printed
    lines = path("run.txt").read_text().splitlines()
    for name, value in script.check_constants().items():
        assert f"{name} = {value!r}" in lines
    assert any(f"torch {torch.__version__}" in line for line in lines)


def test_the_tables_hold_what_was_trained_and_measured(quick, monkeypatch, capsys):
    monkeypatch.setattr(script, "LOSSES", ("LSGAN", "WGAN"))
    script.main()
    printed = capsys.readouterr().out
    final, history = rows("comparison.csv"), rows("history.csv")
    assert [row["loss"] for row in final] == ["LSGAN", "WGAN", "real images"]
    assert [row["D steps"] for row in final] == ["10", "50", ""]
    assert {row["data"] for row in final + history} == {"drawn digits"}
    columns = ("loss", "epoch", "G steps", "D steps")
    assert [tuple(map(row.get, columns)) for row in history] == [
        ("LSGAN", "1", "5", "5"), ("LSGAN", "2", "10", "10"), ("WGAN", "1", "5", "25"),
        ("WGAN", "2", "10", "50")]  # fmt: skip
    for row in history:
        names = ("loss D", "loss G", "real score", "fake score", "distance")
        numbers = [f"{float(row[name]):.{count}f}" for name, count in zip(names, (4, 4, 3, 3, 2))]
        line = [row["loss"], "0", row["epoch"], *numbers]
        assert line in [other.split()[:8] for other in printed.splitlines()]
    for row, last in zip(final, history[1::2]):
        assert float(row["distance"]) == pytest.approx(float(last["distance"]))
        assert row["G itself"] != row["distance"]
    markdown = path("comparison.md").read_text(encoding="utf-8")
    assert markdown.splitlines()[0].count("|") == markdown.splitlines()[1].count("|") == 11
    assert "drawn digits" in markdown and markdown in printed


def test_files_of_a_loss_are_the_average_of_g_and_the_very_images_that_were_measured(quick):
    script.main()
    images = np.load(path("generated_wgan.npy"))
    assert images.shape == (100, 28, 28) and images.dtype == np.uint8
    generator = script.Generator()
    generator.load_state_dict(read("generator_wgan.pt"))
    latents = script.sample_latents(100, script.random_stream("judged latents", 0))
    assert np.array_equal(script.generate(generator, latents), images)
    state = read("checkpoint_wgan_0.pt")
    assert same(state["average"], generator.state_dict())
    assert not same(state["average"], state["generator"])
    gan = SimpleNamespace(average=generator.train(), seed=0, fixed_latents=latents)
    script.renew_statistics(gan)
    assert same(state["average"], weights(generator)), "with statistics of its own"
    judge = script.prepare_judge(*script.load_images())
    seen, _ = script.look_at(judge, script.read_digits(images))
    distance = script.frechet_distance(judge.real_features[:100], seen)
    assert float(rows("comparison.csv")[1]["distance"]) == pytest.approx(distance)


def test_several_seeds_give_mean_and_deviation_and_the_files_of_the_first(quick, monkeypatch):
    monkeypatch.setattr(script, "SEEDS", (4, 1, 5))
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    monkeypatch.setattr(script, "EPOCHS", 1)
    script.main()
    assert [row["seed"] for row in rows("comparison.csv")[:3]] == ["4", "1", "5"]
    values = torch.tensor([float(row["distance"]) for row in rows("comparison.csv")[:3]])
    markdown = path("comparison.md").read_text(encoding="utf-8")
    assert f"| {values.mean():,.2f} ± {values.std():,.2f} " in markdown, (values, markdown)
    assert same(read("generator_bce.pt"), read("checkpoint_bce_4.pt")["average"])


def test_all_figures_are_on_disk_before_they_are_printed_and_an_ascii_console_gets_them(
    quick, monkeypatch
):
    raw, at_the_end = io.BytesIO(), []
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    say = script.say

    def watched(text):
        if "±" in text:
            at_the_end.append(set(written()))
        say(text)

    monkeypatch.setattr(script, "say", watched)
    monkeypatch.setattr(script, "SEEDS", (0, 1))
    script.main()
    assert at_the_end == [set(written())]
    assert {"comparison.csv", "history.csv", "comparison.md", "comparison.png"} < at_the_end[0]
    assert b" ? " in raw.getvalue() and b"| WGAN " in raw.getvalue()
    assert "±" in path("comparison.md").read_text(encoding="utf-8")


def minutes_left(capsys):
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return [float(words[-1]) for words in lines if words[:1] and words[0] in script.LOSSES
            and len(words) == 10]  # fmt: skip


def test_minutes_left_grow_with_critic_steps_and_are_none_at_the_end(quick, monkeypatch, capsys):
    """A clock that runs only when told to: a minute for each step of a network, half to judge."""
    clock = [0.0]
    timer = SimpleNamespace(perf_counter=lambda: clock[0], sleep=lambda seconds: None)
    monkeypatch.setattr(script, "time", timer)
    train_epoch, sample_images, slow = script.train_epoch, script.sample_images, []

    def epoch(gan, images):
        clock[0] += 60 * (1 + script.loss_table()[gan.loss].critic_steps) * (1 + len(slow))
        return train_epoch(gan, images)

    def sample(*arguments):
        clock[0] += 30
        return sample_images(*arguments)

    monkeypatch.setattr(script, "train_epoch", epoch)
    monkeypatch.setattr(script, "sample_images", sample)
    script.main()  # An epoch of BCE takes two minutes, and one of WGAN six.
    assert minutes_left(capsys) == [2 + 2 * 6 + 1.5, 2 * 6 + 1, 6 + 0.5, 0]
    monkeypatch.setattr(script, "RESUME", True)
    monkeypatch.setattr(script, "EPOCHS", 4)
    slow.append("The machine has become half as fast.")
    script.main()
    found = minutes_left(capsys)
    assert found[-1] == 0 and found == sorted(found, reverse=True)
    # So far 3 epochs of BCE and 2 of WGAN: 6 + 12 steps took 2 + 2 + 4 + 6 + 6 minutes.
    assert found[0] == pytest.approx((2 + 2 * 6) * 20 / 18 + 3 * 0.5, abs=0.05)


# Resuming


class Stop(Exception):
    """A crash, in place of Ctrl-C."""


@pytest.mark.parametrize("steps, error", [(5, Stop), (7, KeyboardInterrupt), (16, Stop)])
def test_a_resumed_comparison_is_bit_for_bit_the_one_without_a_break(
    quick, monkeypatch, steps, error
):
    monkeypatch.setattr(script, "LOSSES", ("BCE-R1", "R3GAN"))
    script.main()
    at_once, train_step, done = results(), script.train_step, []

    def interrupted(gan, images):
        if len(done) == steps:
            raise error
        done.append(1)
        return train_step(gan, images)

    with monkeypatch.context() as patch:
        patch.setattr(script, "train_step", interrupted)
        with pytest.raises(Stop) if error is Stop else contextlib.nullcontext():
            script.main()
    whole = steps // 5  # The epochs that had ended.
    assert [(row["loss"], row["epoch"]) for row in rows("history.csv")] == [
        ("BCE-R1", "1"), ("BCE-R1", "2"), ("R3GAN", "1")][:whole]  # fmt: skip
    assert rows("history.csv") == [row for row in at_once[2] if row in rows("history.csv")]
    last = {row["loss"]: row["distance"] for row in rows("history.csv")}
    for row in rows("comparison.csv")[:-1]:
        assert float(row["distance"]) == pytest.approx(float(last[row["loss"]])), "of whole epochs"
    assert path("earlier_1").exists(), "the first run is kept"
    monkeypatch.setattr(script, "RESUME", True)
    script.main()
    assert results() == at_once


@pytest.mark.parametrize("count, labelled", [(170, False), (29, True)])
def test_images_without_labels_or_too_few_are_one_line_before_anything_is_moved(
    quick, monkeypatch, count, labelled
):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    before = written()
    images, labels = script.draw_digits(170)
    mine = images[:count], labels[:count] if labelled else None, "mine"
    monkeypatch.setattr(script, "load_images", lambda train=True: mine)
    with pytest.raises(SystemExit, match="^load_images must return labels[^\n]* 30 images.$"):
        script.main()
    assert written() == before and not list(Path(script.OUTPUT_DIR).glob("earlier_*"))


def test_a_checkpoint_of_another_device_goes_on_and_says_so(quick, monkeypatch, capsys):
    script.main()
    state = torch.load(path("checkpoint_bce_0.pt"), weights_only=True)
    state["made_with"]["device"] = "NVIDIA Tesla"
    torch.save(state, path("checkpoint_bce_0.pt"))
    monkeypatch.setattr(script, "RESUME", True)
    monkeypatch.setattr(script, "EPOCHS", 3)
    capsys.readouterr()
    script.main()
    assert capsys.readouterr().out.count("another device") == 1, "BCE alone"
    script.main()
    assert "another device" not in capsys.readouterr().out


@pytest.mark.parametrize("number", [1, 3])
def test_an_earlier_run_is_moved_whole_or_not_at_all(quick, monkeypatch, number):
    script.main()
    before, rename, calls = written(), Path.rename, []

    def locked(file, target):
        calls.append(file)
        if len(calls) == number:
            raise PermissionError(13, "open in a spreadsheet")
        return rename(file, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", locked)
        assert "open in a spreadsheet" in refusal()
    assert written() == before and not path("earlier_1").exists()


def test_ctrl_c_says_how_to_go_on_and_before_the_first_epoch_that_it_cannot(
    quick, monkeypatch, capsys
):
    def interrupted(gan, images):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "train_epoch", interrupted)
        script.main()
    printed = capsys.readouterr().out
    assert "Stopped." in printed and "There is no checkpoint" in printed and "RESUME" not in printed
    script.main()
    assert "RESUME = True" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_saved(quick, monkeypatch):
    train_step = script.train_step

    def breaking(gan, images):
        numbers = train_step(gan, images)
        return numbers * math.nan if gan.loss == "WGAN" and gan.step > 5 else numbers

    monkeypatch.setattr(script, "train_step", breaking)
    assert "a loss of WGAN in epoch 2 is not a finite number" in refusal()
    assert len(rows("history.csv")) == 3 and len(rows("comparison.csv")) == 3
    assert len(read("checkpoint_wgan_0.pt")["history"]) == 1


def test_resuming_trains_only_what_is_missing_and_keeps_the_rest(quick, monkeypatch, capsys):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    before, trained = written(), []
    record(monkeypatch, "train_epoch", trained, lambda gan, *_: (gan.loss, gan.seed))
    monkeypatch.setattr(script, "RESUME", True)
    for losses in (("hinge",), ("BCE", "hinge")):
        monkeypatch.setattr(script, "LOSSES", losses)
        script.main()
    assert trained == [("hinge", 0)] * 2
    for name in ("checkpoint_bce_0.pt", "generator_bce.pt", "generated_bce.npy"):
        assert before[name] == written()[name]
    assert [row["loss"] for row in rows("comparison.csv")] == ["BCE", "hinge", "real images"]
    capsys.readouterr()
    monkeypatch.setattr(script, "SEEDS", (0, 1))
    monkeypatch.setattr(script, "EPOCHS", 3)
    script.main()
    assert trained[2:] == [("BCE", 0), ("hinge", 0), *[("BCE", 1)] * 3, *[("hinge", 1)] * 3]
    assert len(re.findall(r"^loss +seed +epoch", capsys.readouterr().out, re.M)) == 1
    assert not path("earlier_1").exists()


def test_what_a_kill_kept_from_being_written_is_written_on_resuming(quick, monkeypatch):
    script.main()
    before = results()
    for name in written().keys() - {"checkpoint_bce_0.pt", "checkpoint_wgan_0.pt"}:
        path(name).write_bytes(b"of an earlier epoch")
    monkeypatch.setattr(script, "RESUME", True)
    script.main()
    assert results() == before
    assert b"of an earlier epoch" not in written().values()


def test_with_fewer_epochs_than_trained_nothing_is_compared(quick, monkeypatch):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    before = written()
    monkeypatch.setattr(script, "RESUME", True)
    monkeypatch.setattr(script, "EPOCHS", 1)
    assert re.search("BCE .*2 epochs.*EPOCHS = 1 ", refusal())
    assert written() == before


def test_a_checkpoint_of_other_constants_or_another_entry_is_refused_by_name(quick, monkeypatch):
    script.main()
    monkeypatch.setattr(script, "RESUME", True)
    changes = {"BATCH_SIZE": 31, "LATENT_DIM": 7, "SAMPLES": 130, "AVERAGE": 4, "critic_lr": 2,
               "generator_lr": 2, "r1": 2, "penalty_every": 2, "betas": (0.25, 0.5)}  # fmt: skip
    for name, value in changes.items():
        with monkeypatch.context() as patch:
            if name.isupper():
                patch.setattr(script, name, value)
            else:
                add_entry(patch, "BCE", **{name: value})
            found = f"checkpoint_bce_0.pt.*{name}( of BCE)? = .*now it is {re.escape(str(value))}"
            assert re.search(found, refusal()), name
            if name == "betas":
                patch.setattr(script, "LOSSES", ("WGAN",))
                script.main()  # This one is as it was.


def test_a_checkpoint_of_other_networks_is_refused_and_kept(quick, monkeypatch):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    before = written()
    monkeypatch.setattr(script, "RESUME", True)
    monkeypatch.setattr(script, "Discriminator", lambda: nn.Linear(784, 1))
    assert "Linear" in refusal()
    assert written() == before


def test_a_students_loss_runs_and_has_files_and_rows_of_its_name(quick, monkeypatch):
    pearson(monkeypatch)
    script.main()
    assert [row["loss"] for row in rows("comparison.csv")] == ["Pearson", "real images"]
    assert {"generator_pearson.pt", "generated_pearson.npy"} < set(written())


# Constants


def test_the_edges_of_the_ranges_are_allowed_and_what_is_beyond_is_not(monkeypatch):
    edges = {"EPOCHS": (1, 999), "BATCH_SIZE": (2, 60_000), "LATENT_DIM": (1, 10_000),
             "SAMPLES": (100, 10_000), "AVERAGE": (0, 1000)}  # fmt: skip
    for name, (low, high) in edges.items():
        for value, allowed in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
            with monkeypatch.context() as patch:
                patch.setattr(script, name, value)
                if allowed:
                    assert script.check_constants()[name] == value
                else:
                    assert refusal().startswith(f"{name} = {value} ")
    for name, value in {"SEEDS": (0, 2**32 - 1), "GENERATOR_HIDDEN": (1, 1, 1, 10_000),
                        "LOSSES": tuple(NAMES), "DISCRIMINATOR_HIDDEN": (10_000,)}.items():
        monkeypatch.setattr(script, name, value)
        assert script.check_constants()[name] == value


def test_a_constant_that_cannot_be_used_is_named_in_one_line(small, monkeypatch):
    wrong = {"LOSSES": ("BCE", (), ("BCE", "BCE"), ("bce",), ["BCE"], ([],)),
             "SEEDS": (0, (), (1, 1), (-1,), (0.5,), ([],), (True,)),
             "GENERATOR_HIDDEN": ((0,),), "DISCRIMINATOR_HIDDEN": ((1,) * 5,)}  # fmt: skip
    for name, value in [(name, value) for name, values in wrong.items() for value in values]:
        with monkeypatch.context() as patch:
            patch.setattr(script, name, value)
            assert re.match(f"{name} = .* It must be ", refusal()), value
    assert not path("").exists()


# The figure


@pytest.mark.slow
@pytest.mark.parametrize(
    "losses, seeds, epochs",
    [(("BCE",), 1, 1), (("WGAN", "hinge"), 1, 6), (NAMES[:6], 1, 6), (("BCE", "R3GAN"), 3, 4)],
    ids=["one epoch", "two losses", "six losses", "three seeds"],
)  # fmt: skip
def test_the_figure_is_fit_for_a_report_also_in_grey(small, monkeypatch, losses, seeds, epochs):
    monkeypatch.setattr(script, "EPOCHS", epochs)
    gans = [script.build_gan(CPU, loss, seed) for seed in range(seeds) for loss in losses]
    for number, gan in enumerate(gans, start=1):
        gan.history = [{"epoch": n, "loss D": 1.0, "loss G": 2.0 * n, "real score": 5.0 - n,
                        "fake score": -1.0, "distance": 30.0 * number / n, "seconds": 2.0,
                        "G steps": 10 * n} for n in range(1, epochs + 1)]
    figures = [{"distance": 0.5}, *({"distance": gan.history[-1]["distance"], "data": "squares"}
                                    for gan in gans)]  # fmt: skip
    figure = script.draw_comparison(gans, figures)
    figure.savefig(io.BytesIO(), dpi=50)  # A warning would be an error here.
    assert "squares" in figure.get_suptitle() and "0.50" in figure.get_suptitle()
    titled = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left").split(":")[0] for axes in titled] == list(losses)
    assert all(len(axes.images) == 1 for axes in titled)
    curves, (left, right) = figure.axes[1 : 2 * len(losses) : 2], figure.axes[-2:]
    for loss, axes in zip(losses, curves):
        entry = script.loss_table()[loss]
        found = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
        first = gans[0].history
        assert found == (
            {"D(x) - D(G(z))": [6.0 - row["epoch"] for row in first]} if entry.clip or entry.gp
            else {name: [row[name] for row in first] for name in ("loss D", "loss G")})  # fmt: skip
    for axes, places in ((left, [10 * n for n in range(1, epochs + 1)]),
                         (right, [2.0 * n for n in range(1, epochs + 1)])):  # fmt: skip
        *lines, floor = axes.lines
        assert [list(line.get_xdata()) for line in lines] == [places] * len(gans)
        for gan, line in zip(gans, lines):
            assert list(line.get_ydata()) == [row["distance"] for row in gan.history]
        assert set(floor.get_ydata()) == {0.5}
    named = [text.get_text() for text in right.get_legend().get_texts()]
    assert named == [*losses, "real images"], "each once"
    for axes in [*curves, left, right]:
        looks = {(line.get_linestyle(), line.get_marker()) for line in axes.lines}
        kinds = len(losses) + 1 if axes in (left, right) else len(axes.lines)
        assert len(looks) == kinds, "told apart without colour"
        for line in [line for line in axes.lines if line.get_marker() != "None"]:
            radius = line.get_markersize() / 2 * figure.dpi / 72
            points = axes.transData.transform(line.get_xydata())
            frame = axes.bbox.padded(-radius)
            assert all(frame.contains(*point) for point in points), "a marker touches the frame"
        legend = axes.get_legend()
        if legend:
            box = legend.get_window_extent()
            assert not box.overlaps(axes.bbox) and figure.bbox.containsx(box.x1), "it covers lines"
