"""compare_losses.py: what its losses, penalties and steps compute, against values found by hand.

test_gan.py shows how the scripts that train one GAN are tested. Read it first.
"""

import io
import itertools
import math
from dataclasses import replace

import compare_losses as compare
import pytest
import torch
from compare_losses import LOSS_TABLE, Loss
from conftest import TINY, same, set_constants, weights
from torch import nn

CPU = torch.device("cpu")
NAMES = list(LOSS_TABLE)
WITH_PENALTY = [name for name, loss in LOSS_TABLE.items() if loss.r1 or loss.r2 or loss.gp]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small networks, because nothing here depends on their width. There are 48 images."""
    set_constants(monkeypatch, compare, TINY)


def scores(*values):
    return torch.tensor(values).unsqueeze(1)


def change(monkeypatch, name, **settings):
    """Change settings of an entry of the table."""
    monkeypatch.setitem(LOSS_TABLE, name, replace(LOSS_TABLE[name], **settings))


def record(monkeypatch, name, found, note=lambda *arguments: arguments):
    """Append what `note` makes of the arguments and the result to found, at each call of `name`."""
    function = getattr(compare, name)

    def watched(*arguments, **named):
        result = function(*arguments, **named)
        found.append(note(*arguments, *named.values(), result))
        return result

    monkeypatch.setattr(compare, name, watched)


def critic_step(gan, real_images, fake_images, penalty_weight=0):
    loss = LOSS_TABLE[gan.loss]
    return compare.critic_step(
        gan.discriminator, gan.optimizer_d, loss, real_images, fake_images, penalty_weight)


def generator_step(gan, real_images, fake_images):
    loss = LOSS_TABLE[gan.loss]
    return compare.generator_step(
        gan.generator, gan.discriminator, gan.optimizer_g, loss, real_images, fake_images)


def train_steps(gan, images, count):
    rng = torch.Generator().manual_seed(1)
    real_batches = compare.batches(images, rng)
    return [compare.train_step(gan, real_batches, rng) for _ in range(count)]


def gradients(network):
    return torch.cat([weight.grad.flatten() for weight in network.parameters()])


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
        ("R3GAN-lazy", (0.0, 1 + math.log(7)), (math.log(3), 1.0), math.log(4 * 8 / 7) / 2,
         math.log(4 / 3 * 8) / 2),
    ],
)
def test_losses_have_the_values_worked_out_by_hand(name, real, fake, critic, generator):
    loss, real, fake = LOSS_TABLE[name], scores(*real), scores(*fake)
    assert loss.critic(real, fake).item() == pytest.approx(critic, abs=1e-6)
    assert loss.generator(real, fake).item() == pytest.approx(generator, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_losses_stay_finite_for_extreme_scores(name):
    loss, real = LOSS_TABLE[name], scores(200.0, -200.0)
    assert loss.critic(real, -real).isfinite() and loss.generator(real, -real).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_each_network_is_rewarded_for_what_it_is_there_for(name):
    loss = LOSS_TABLE[name]
    of_g = [loss.generator(scores(0.0), scores(s)).item() for s in (-3.0, -1.0, 0.0, 0.9)]
    of_d = [loss.critic(scores(gap), scores(-gap)).item() for gap in (-0.5, -0.2, 0.0, 0.3)]
    for values in (of_g, of_d):  # Fakes score higher and higher, and the two kinds part.
        assert values == sorted(values, reverse=True) and len(set(values)) == 4, values


# The entries of the table


def test_the_entries_have_the_settings_on_which_the_published_figures_rest():
    usual = {"critic_lr": 1e-3, "generator_lr": 1e-3, "optimizer": torch.optim.Adam,
             "betas": (0.0, 0.99), "critic_steps": 1, "clip": 0, "gp": 0, "r1": 0, "r2": 0,
             "penalty_every": 1}
    wgan = {"critic_lr": 5e-5, "critic_steps": 5, "clip": 0.01, "betas": None,
            "optimizer": torch.optim.RMSprop}
    others = {"BCE": {}, "LSGAN": {}, "hinge": {}, "WGAN": wgan,
              "WGAN-GP": {"critic_steps": 5, "gp": 10, "betas": (0.0, 0.9)},
              "BCE-R1": {"r1": 0.3, "penalty_every": 8},
              "R3GAN": {"r1": 1.0, "r2": 1.0},
              "R3GAN-lazy": {"r1": 1.0, "r2": 1.0, "penalty_every": 8}}
    found = {name: {key: getattr(loss, key) for key in usual} for name, loss in LOSS_TABLE.items()}
    assert found == {name: {**usual, **settings} for name, settings in others.items()}


@pytest.mark.parametrize("name", NAMES)
def test_each_network_learns_at_the_rate_and_with_the_optimizer_of_its_entry(name, monkeypatch):
    change(monkeypatch, name, critic_lr=0.125, generator_lr=0.25)
    gan, loss = compare.build_gan(CPU, name, 0), LOSS_TABLE[name]
    for optimizer, network, rate in ((gan.optimizer_d, gan.discriminator, 0.125),
                                     (gan.optimizer_g, gan.generator, 0.25)):
        (group,) = optimizer.param_groups
        assert group["lr"] == rate and type(optimizer) is loss.optimizer
        assert group.get("betas", loss.betas) == loss.betas
        assert group.get("momentum", 0) == 0, "WGAN learns without a memory of earlier gradients"
        assert [id(w) for w in group["params"]] == [id(w) for w in network.parameters()]


# Penalties


def quadratic(images):
    """A critic whose gradient at x is x itself: |x|^2 / 2 for each image."""
    return images.square().sum((1, 2, 3)).unsqueeze(1) / 2


def of_length(*lengths):
    """Images of one colour each, as vectors of these lengths."""
    return (torch.tensor(lengths) / 28).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


def penalty_of(critic, real_images, fake_images, **settings):
    loss = Loss(critic=min, generator=min, **settings)
    return compare.penalty(loss, critic, real_images, fake_images)


def test_the_gradient_of_the_score_is_found_for_each_image_and_can_be_differentiated():
    images, factor = torch.randn(5, 1, 28, 28), torch.tensor(3.0, requires_grad=True)
    gradient = compare.input_gradient(lambda x: factor * quadratic(x), images)
    torch.testing.assert_close(gradient, 3 * images)
    gradient.sum().backward()
    torch.testing.assert_close(factor.grad, images.sum())
    assert not images.requires_grad, "the images of the dataset stay as they are"


@pytest.mark.parametrize(
    "settings, expected",
    [({}, 0), ({"r1": 0.3}, 0.15 * (1 + 4 + 9) / 3), ({"r2": 0.3}, 0.15 * (4 + 25 + 4) / 3),
     ({"r1": 1, "r2": 2}, 7 / 3 + 11), ({"clip": 1.0, "penalty_every": 8}, 0)],
)
def test_r1_looks_at_real_images_and_r2_at_fakes(settings, expected):
    value = penalty_of(quadratic, of_length(1.0, 2, 3), of_length(2.0, 5, 2), **settings)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_penalty_looks_between_a_real_image_and_a_fake_one():
    torch.manual_seed(5)
    value = penalty_of(quadratic, of_length(1.0, 2, 3), of_length(2.0, 5, 7), gp=10, r1=1)
    torch.manual_seed(5)
    share = torch.rand(3).tolist()  # Each pair has a share of its own.
    lengths = [s * real + (1 - s) * fake for s, real, fake in zip(share, (1, 2, 3), (2, 5, 7))]
    expected = 10 * sum((length - 1) ** 2 for length in lengths) / 3 + 7 / 3
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("length", [0.0, 1.0, 3.0])
def test_penalties_of_a_linear_critic_and_what_they_teach_it(length):
    linear = nn.Linear(784, 1)
    with torch.no_grad():
        linear.weight.mul_(length / linear.weight.norm())
    old, critic = linear.weight.detach().clone(), nn.Sequential(nn.Flatten(), linear)
    for settings, value, gradient in (
        ({"r1": 0.6}, 0.3 * length**2, 0.6 * old), ({"r2": 0.6}, 0.3 * length**2, 0.6 * old),
        ({"gp": 1}, (length - 1) ** 2, 2 * (length - 1) * old / (length or 1)),
    ):
        linear.zero_grad()
        found = penalty_of(critic, *torch.randn(2, 6, 1, 28, 28), **settings)
        assert found.item() == pytest.approx(value, abs=1e-5)
        found.backward()
        torch.testing.assert_close(linear.weight.grad, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", WITH_PENALTY)
def test_a_penalty_moves_the_critic_as_strongly_as_asked_and_is_not_in_the_printed_loss(
    name, images, monkeypatch
):
    change(monkeypatch, name, critic_lr=0.0)
    gan, loss = compare.build_gan(CPU, name, 0), LOSS_TABLE[name]
    critic, real_images = gan.discriminator, images[:20]
    fake_images = gan.generator(torch.randn(20, 8)).detach()
    found, numbers = [], []
    for weight in (0, 1, 8):
        torch.manual_seed(0)  # The same mixes for WGAN-GP.
        numbers.append(torch.stack(critic_step(gan, real_images, fake_images, weight)))
        found.append(gradients(critic))
    assert numbers[0].equal(numbers[1]) and numbers[0].equal(numbers[2])
    real, fake = critic(real_images), critic(fake_images)
    expected = torch.stack([loss.critic(real, fake), real.mean(), fake.mean()])
    torch.testing.assert_close(numbers[0], expected)
    critic.zero_grad()
    torch.manual_seed(0)
    compare.penalty(loss, critic, real_images, fake_images).backward()
    critic.layers[-1].bias.grad = torch.zeros(1)  # The gradient of the score does not depend on it.
    for weight, gradient in zip((1, 8), found[1:]):
        torch.testing.assert_close(
            gradient - found[0], weight * gradients(critic), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("critic_steps, every", [(1, 8), (5, 8), (1, 1)])
@pytest.mark.parametrize("kind", ["r1", "r2", "gp", "none"])
def test_every_so_many_critic_steps_there_is_a_penalty_as_many_times_as_strong(
    images, monkeypatch, critic_steps, every, kind
):
    found, penalties = [], {name: float(name == kind) for name in ("r1", "r2", "gp")}
    record(monkeypatch, "critic_step", found, lambda *arguments: arguments[5])
    change(monkeypatch, "BCE", penalty_every=every, critic_steps=critic_steps, **penalties)
    gan = compare.build_gan(CPU, "BCE", 0)
    for epoch in range(1, 10):
        compare.train_epoch(gan, images, epoch)  # Two steps of G.
    due = range(0, 18 * critic_steps, every) if kind != "none" else ()
    assert found == [every if number in due else 0 for number in range(18 * critic_steps)]


# Steps


@pytest.mark.parametrize("name", NAMES)
def test_each_step_changes_its_own_network_and_leaves_the_other_alone(name, images):
    gan = compare.build_gan(CPU, name, 0)
    fake_images = gan.generator(torch.randn(20, 8))
    before_g, before_d = weights(gan.generator), weights(gan.discriminator)
    critic_step(gan, images[:20], fake_images, 1)
    after_d, gradient = weights(gan.discriminator), gradients(gan.discriminator)
    assert same(before_g, weights(gan.generator)) and not same(before_d, after_d)
    assert all(weight.grad is None for weight in gan.generator.parameters())
    generator_step(gan, images[:20], fake_images)
    assert not same(before_g, weights(gan.generator))
    assert same(after_d, weights(gan.discriminator))
    assert gradient.equal(gradients(gan.discriminator)), "none of it is left for D's next step"


@pytest.mark.parametrize("name", NAMES)
def test_gradients_do_not_add_up_over_steps(name, images, monkeypatch):
    change(monkeypatch, name, clip=0, critic_lr=0.0, generator_lr=0.0)
    gan, found = compare.build_gan(CPU, name, 0), []
    fake_images = gan.generator(torch.randn(20, 8)).detach()
    for _ in range(2):
        critic_step(gan, images[:20], fake_images)
        generator_step(gan, images[:20], gan.generator(torch.ones(20, 8)))
        found.append((gradients(gan.discriminator), gradients(gan.generator)))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", NAMES)
def test_thirty_steps_of_each_network_bring_it_closer_to_its_aim(name, images):
    gan, latents = compare.build_gan(CPU, name, 0), torch.randn(20, 8)
    before = gan.discriminator(gan.generator(latents)).mean().item()
    for _ in range(30):
        loss_g = generator_step(gan, images[:20], gan.generator(latents))
    fake_images = gan.generator(latents)
    after = gan.discriminator(fake_images).mean().item()
    assert after > before + 0.01 and loss_g.isfinite(), "G raises the scores of its images"
    for _ in range(30):
        _, real_score, fake_score = critic_step(gan, images[:20], fake_images)
    assert real_score - fake_score > (0.001 if LOSS_TABLE[name].clip else 0.3)


def test_the_weights_of_wgan_are_within_the_clip_after_every_critic_step(images, monkeypatch):
    largest = []
    record(monkeypatch, "critic_step", largest,
           lambda critic, *_: nn.utils.parameters_to_vector(critic.parameters()).abs())
    train_steps(compare.build_gan(CPU, "WGAN", 0), images, 3)
    assert len(largest) == 15
    assert all(sizes.max().item() == pytest.approx(0.01) for sizes in largest)
    assert all(sizes.min() < 0.005 for sizes in largest), "it is a limit, and not a fixed size"


@pytest.mark.parametrize("name", NAMES)
def test_critic_steps_are_counted_and_g_learns_from_the_last_one(name, images, monkeypatch):
    taught, learnt, drawn = [], [], []
    change(monkeypatch, name, generator_lr=0.0)
    record(monkeypatch, "sample_latents", drawn, lambda *arguments: arguments[-1])
    record(monkeypatch, "critic_step", taught,
           lambda critic, *rest: (weights(critic), rest[2], rest[3], rest[-1]))
    record(monkeypatch, "generator_step", learnt, lambda g, critic, *rest: (weights(critic), *rest))
    gan, steps = compare.build_gan(CPU, name, 0), 5 if name.startswith("WGAN") else 1
    numbers = train_steps(gan, images, 3)
    assert (gan.step, gan.d_steps, len(taught), len(learnt)) == (3, 3 * steps, 3 * steps, 3)
    assert all(call[2].equal(gan.generator(latents)) for call, latents in zip(taught, drawn))
    for row, last, called in zip(numbers, taught[steps - 1 :: steps], learnt):
        after, real_images, fake_images, (loss_d, real_score, fake_score) = last
        critic, _, _, *shown, loss_g = called
        assert same(after, critic) and shown[0] is real_images and shown[1] is fake_images
        assert row.equal(torch.stack([loss_d, loss_g, real_score, fake_score]))


def test_the_average_gets_batchnorm_statistics_of_its_own(images):
    gan = compare.build_gan(CPU, "BCE", 0)
    compare.train_epoch(gan, images, 1)
    before = gan.average.layers[1].running_mean.clone()
    compare.renew_statistics(gan.average, 0, CPU)
    norm = gan.average.layers[1]
    assert not before.equal(norm.running_mean) and norm.num_batches_tracked == 100  # 6,400 latents.


def test_an_epoch_returns_the_means_over_its_steps(images, monkeypatch):
    rows = []
    record(monkeypatch, "train_step", rows, lambda *arguments: arguments[-1])
    means = compare.train_epoch(compare.build_gan(CPU, "LSGAN", 0), images, 1)
    assert len(rows) == 2 and means == pytest.approx(torch.stack(rows).mean(0).tolist(), rel=1e-5)
    compare.train_epoch(compare.build_gan(CPU, "LSGAN", 0), images[:19], 1)
    assert len(rows) == 3, "one step where there are fewer images than in a batch"


def test_the_critic_ends_without_a_sigmoid_and_scores_each_image_by_itself(images):
    critic = compare.Discriminator()
    together, alone = critic(images), torch.cat([critic(image) for image in images.split(1)])
    assert together.shape == (48, 1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert critic(100 * images).abs().max() > 1


# The same for each loss


def test_each_loss_starts_from_the_same_weights_and_another_seed_from_others():
    first, *gans = [compare.build_gan(CPU, name, 3) for name in NAMES]
    for gan in [*gans, compare.build_gan(CPU, NAMES[0], 4)]:
        for network in ("generator", "discriminator", "average"):
            of_first, of_gan = (weights(getattr(part, network)) for part in (first, gan))
            assert same(of_first, of_gan) == (gan.seed == 3)


def test_each_loss_meets_the_same_images_and_latents_in_the_same_order(images, monkeypatch):
    seen = []
    record(monkeypatch, "critic_step", seen, lambda *arguments: arguments[3])
    record(monkeypatch, "sample_latents", seen, lambda *arguments: arguments[-1])
    runs = {}
    for name, seed, epoch in itertools.product(NAMES, (0, 1), (1, 2)):
        seen.clear()
        compare.train_epoch(compare.build_gan(CPU, name, seed), images, epoch)
        runs[name, seed, epoch] = list(seen)
    longest = {key[1:]: found for key, found in runs.items() if key[0] == "WGAN"}  # Ten batches.
    for (_, *key), found in runs.items():  # Also with the random mixes of WGAN-GP in between.
        assert len(found) in (4, 20) and all(map(torch.equal, found, longest[tuple(key)]))
    starts = [found[number] for found in longest.values() for number in (0, 1)]
    assert not any(map(torch.equal, starts[2:], starts[:-2])), "new ones in each epoch and seed"
    rng = compare.random_stream("latents in epoch 2", 1)
    for latents in longest[1, 2][::2]:
        assert latents.equal(torch.randn(20, 8, generator=rng)), "no other use draws from it"
    real_batches = compare.batches(images, compare.random_stream("order in epoch 2", 1))
    assert all(map(torch.equal, longest[1, 2][1::2], real_batches))


@pytest.mark.parametrize("size, count, whole", [(30, 100, 3), (2, 5, 2), (64, 48, 1), (48, 48, 1)])
def test_batches_are_of_one_size_and_show_each_image_once_before_any_comes_again(
    monkeypatch, rng, size, count, whole
):
    monkeypatch.setattr(compare, "BATCH_SIZE", size)
    found = list(itertools.islice(compare.batches(torch.arange(count), rng), 3 * whole))
    assert {len(batch) for batch in found} == {min(size, count)}
    rounds = [torch.cat(found[start : start + whole]) for start in range(0, 3 * whole, whole)]
    for batch in rounds:
        assert len(batch.unique()) == len(batch)
    assert not rounds[0].equal(rounds[1]) and not rounds[0].equal(rounds[0].sort().values)


# The figure and the time that is left


def finished(names, seeds, epochs):
    """GANs with a history that was made up, in which each has distances of its own."""
    gans = [compare.build_gan(CPU, name, seed) for seed in range(seeds) for name in names]
    for number, gan in enumerate(gans, start=1):
        gan.made_with, gan.found = {"data": "squares"}, {"distance": 30.0 * number}
        gan.history = [{"epoch": n, "loss D": 1.0, "loss G": 2.0 * n, "real score": 5.0 - n,
                        "fake score": -1.0, "distance": 30.0 * number / n, "seconds": 2.0,
                        "G steps": 10 * n} for n in range(1, epochs + 1)]
    return gans


@pytest.mark.parametrize("names, seeds, epochs", [
    (["hinge", "WGAN", "WGAN-GP"], 1, 3), (["BCE"], 2, 1),
    pytest.param(NAMES, 1, 6, marks=pytest.mark.slow)])
def test_the_figure_shows_each_loss_with_its_images_losses_and_distances(
    names, seeds, epochs, monkeypatch
):
    monkeypatch.setattr(compare, "EPOCHS", epochs)
    gans = finished(names, seeds, epochs)
    figure = compare.draw_comparison(gans, 0.5, "run_7")
    figure.savefig(io.BytesIO(), dpi=50)  # A warning would be an error here.
    assert "run_7" in figure.get_suptitle() and "squares" in figure.get_suptitle()
    panels, (left, right) = figure.axes[: 2 * len(names)], figure.axes[-2:]
    for gan, samples, curves in zip(gans, panels[::2], panels[1::2]):
        title, (image,), loss = samples.get_title(loc="left"), samples.images, LOSS_TABLE[gan.loss]
        assert gan.loss in title and f"{gan.found['distance']:.2f}" in title
        first = compare.sample_images(gan.average, 0, 40)[:, 0].add(1).mul(127.5)
        shown = torch.as_tensor(image.get_array().data)
        assert shown[:28, 28:56].allclose(first[1]) and shown[28:, :28].allclose(first[20])
        found = {line.get_label(): list(line.get_ydata()) for line in curves.lines}
        assert found == (
            {"D(x) - D(G(z))": [6.0 - row["epoch"] for row in gan.history]} if loss.clip or loss.gp
            else {key: [row[key] for row in gan.history] for key in ("loss D", "loss G")})
        assert ("loss" in curves.get_ylabel()) == (not loss.clip and not loss.gp)
    assert panels[-1].get_xlabel() == "epoch" and left.get_yscale() == "log"
    assert "distance" in left.get_ylabel()
    for axes, unit, step in ((left, "steps", 10), (right, "seconds", 2)):
        *lines, floor = axes.lines
        assert unit in axes.get_xlabel() and set(floor.get_ydata()) == {0.5}
        for gan, line in zip(gans, lines, strict=True):
            assert list(line.get_ydata()) == [row["distance"] for row in gan.history]
            assert list(line.get_xdata()) == [step * n for n in range(1, epochs + 1)]
        looks = {(line.get_linestyle(), line.get_marker()) for line in axes.lines}
        assert len(looks) == len(names) + 1, "told apart without colour"
    named = [text.get_text() for text in right.get_legend().get_texts()]
    assert named == [*names, "real images"], "each once"
