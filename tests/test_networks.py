"""train_dcgan_variant.py: its networks against the tutorials', BatchNorm, each trick, the studies.

test_gan.py tests what this script shares with the others. Read it first.
"""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import train_dcgan_variant as script
from conftest import same, set_constants, weights
from torch import nn

TRICKS = ["label_smoothing", "spectral_norm", "minibatch_stddev", "feature_matching",
          "historical_averaging", "ttur", "frequency_separation"]
DISCRIMINATORS = ["hidden", "flatten", "pool"]
NETWORKS = ["generator", "discriminator", "average"]
CPU = torch.device("cpu")


@pytest.fixture
def constants(monkeypatch):
    """constants(NAME=value, ...) sets names of the script for one test. D is "hidden" at first."""

    def change(**values):
        set_constants(monkeypatch, script, values)

    change(DISCRIMINATOR="hidden")
    return change


@pytest.fixture(scope="module")
def digits():
    """20 drawn digits [20, 1, 28, 28]."""
    return script.draw_digits(20)[0]


def gradients(network):
    return [weight.grad.clone() for weight in network.parameters()]


def trained(images, rng, steps=3):
    """A GAN after some steps, each on these images."""
    gan = script.build_gan(CPU)
    for _ in range(steps):
        script.train_step(gan, images, rng)
    return gan


def inputs_of(layer, function):
    """The first input that a layer gets while function() runs."""
    seen = []
    layer.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    function()
    return seen[0]


# Networks
def tutorial_c_generator():
    hidden = []
    for inputs, outputs in ((100, 256), (256, 512), (512, 1024)):
        hidden += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, momentum=0.8), nn.ReLU(True)]
    return nn.Sequential(*hidden, nn.Linear(1024, 784), nn.Tanh())


def tutorial_c_discriminator(maps=64, hidden=False):
    """DISCRIMINATOR = "hidden" has half the maps, and a hidden layer more."""
    last = [nn.Linear(2 * maps * 7 * 7, 128 if hidden else 1)]
    last += [nn.LeakyReLU(0.2), nn.Linear(128, 1)] if hidden else []
    return nn.Sequential(
        nn.Conv2d(1, maps, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(maps, 2 * maps, kernel_size=4, stride=2, padding=1),
        nn.BatchNorm2d(2 * maps, momentum=0.8), nn.LeakyReLU(0.2),
        nn.Flatten(), *last, nn.Sigmoid(),
    )


def tutorial_d_discriminator():
    """With the Flatten without which it cannot run."""
    return nn.Sequential(
        nn.Conv2d(1, 64, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1), nn.Sigmoid(),
    )


def conv_generator():
    """What [DCGAN, sec. 3] asks for: BatchNorm and ReLU everywhere but at the end, and a Tanh."""
    return nn.Sequential(
        nn.Linear(100, 2048), nn.Unflatten(1, (128, 4, 4)), nn.BatchNorm2d(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh(),
    )


def copy_weights(ours, theirs):
    """Give a tutorial's network the weights and statistics of the script's, in their order."""
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("mlp", tutorial_c_generator), ("conv", conv_generator), ("flatten", tutorial_c_discriminator),
     ("hidden", lambda: tutorial_c_discriminator(32, True)), ("pool", tutorial_d_discriminator)],
)
def test_with_the_same_weights_a_network_is_the_one_that_it_is_named_after(name, theirs, constants):
    draws = name in ("mlp", "conv")
    constants(**{"GENERATOR" if draws else "DISCRIMINATOR": name})
    torch.manual_seed(0)
    ours, theirs = script.Generator() if draws else script.Discriminator(), theirs()
    for mode in (True, False):  # The batch in training sets the statistics for eval mode.
        copy_weights(ours, theirs)
        ours.train(mode), theirs.train(mode)
        batch = torch.randn(6, 100) if draws else torch.rand(6, 1, 28, 28) * 2 - 1
        result = ours(batch) if draws else ours(batch).sigmoid()
        torch.testing.assert_close(result.flatten(1), theirs(batch).flatten(1))


def test_one_step_with_the_settings_of_tutorial_c_is_the_step_of_tutorial_c(digits, constants, rng):
    constants(DISCRIMINATOR="flatten", R1=0, AVERAGE=0, LEARNING_RATE=2e-4, BETAS=(0.5, 0.999))
    gan = script.build_gan(CPU)
    generator, discriminator = tutorial_c_generator(), tutorial_c_discriminator()
    copy_weights(gan.generator, generator), copy_weights(gan.discriminator, discriminator)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=0.0002, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.0002, betas=(0.5, 0.999))
    criterion, ones, zeros = nn.BCELoss(), torch.ones(20, 1), torch.zeros(20, 1)
    their_rng = torch.Generator().manual_seed(rng.initial_seed())
    for step in range(4):
        row = script.train_step(gan, digits, rng)
        discriminator.zero_grad()
        d_real_output = discriminator(digits)
        fake_images = generator(torch.randn(20, 100, generator=their_rng)).view(-1, 1, 28, 28)
        d_fake_output = discriminator(fake_images.detach())
        d_loss = criterion(d_real_output, ones) + criterion(d_fake_output, zeros)
        d_loss.backward()
        if step == 0:  # Later no more: Adam makes much of gradients that are rounding errors.
            torch.testing.assert_close(gradients(gan.discriminator), gradients(discriminator))
        d_optimizer.step()
        generator.zero_grad()
        g_loss = criterion(discriminator(fake_images), ones)
        g_loss.backward()
        if step == 0:
            torch.testing.assert_close(gradients(gan.generator), gradients(generator))
        g_optimizer.step()
        expected = torch.stack([d_loss, g_loss, d_real_output.mean(), d_fake_output.mean()])
        torch.testing.assert_close(row, expected.detach(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("GENERATOR", "cnn"), ("DISCRIMINATOR", "cnn"), ("TRICKS", ["ema"]), ("TRICKS", "ttur")],
)
def test_an_unknown_network_or_trick_is_an_error(name, value, constants):
    constants(TRICKS=TRICKS)
    script.check_constants()
    constants(**{name: value})
    with pytest.raises(SystemExit, match=f"{name} = "):
        script.check_constants()
    if value == "cnn":  # Also where the network is built by one's own code.
        with pytest.raises((ValueError, KeyError), match="cnn"):
            script.build_gan(CPU)


# BatchNorm
def test_d_sees_real_and_fake_images_apart_also_for_the_penalty(digits, constants):
    gan, real_images, fake_images, seen = script.build_gan(CPU), digits[:8], -digits[8:16], []
    gan.discriminator.first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    script.discriminator_step(gan.discriminator, gan.optimizer_d, real_images, fake_images, 8)
    assert len(seen) == 3 and all(map(torch.equal, seen, (real_images, fake_images, real_images)))


def test_a_last_batch_of_one_image_is_left_out(digits, constants):
    sizes = []
    note = lambda gan, images, rng: sizes.append(len(images)) or torch.ones(4)  # noqa: E731
    constants(BATCH_SIZE=4, train_step=note)
    for count in (9, 10):
        assert script.train_epoch(None, digits[:count], 1) == [1, 1, 1, 1]
    assert sizes == [4, 4] + [4, 4, 2]


def test_renewed_statistics_are_those_of_the_weights_that_draw(digits, constants, rng):
    gan = trained(digits[:8], rng)
    latents = script.sample_latents(2000, rng)

    @torch.no_grad()
    def error():
        drawn = gan.average.eval()(latents)
        return (drawn - gan.average.train()(latents)).abs().mean().item()

    assert error() > 0.1
    before = [weight.clone() for weight in gan.average.parameters()]
    script.renew_statistics(gan.average, script.SEED, CPU)
    once = weights(gan.average)
    assert gan.average.training and error() < 0.02
    script.renew_statistics(gan.average, script.SEED, CPU)
    assert same(once, weights(gan.average)), "the second time finds the same"
    assert all(map(torch.equal, before, gan.average.parameters())), "no weight has changed"


# Tricks: one by one
def test_label_smoothing_wants_real_images_at_nine_tenths_and_fake_ones_at_zero(constants):
    def gradients_at(logit):
        logits = [torch.full((4, 1), logit, requires_grad=True) for _ in range(2)]
        script.discriminator_loss(*logits).backward()
        return [4 * batch.grad[0].item() for batch in logits]

    at_nine_tenths = math.log(9)  # The sigmoid of ln 9 is 0.9.
    assert gradients_at(at_nine_tenths) == pytest.approx([-0.1, 0.9])
    constants(TRICKS=["label_smoothing"])
    assert gradients_at(at_nine_tenths) == pytest.approx([0, 0.9], abs=1e-6)
    at_nine_tenths = torch.full((4, 1), at_nine_tenths)
    assert script.generator_loss(at_nine_tenths).item() == pytest.approx(-math.log(0.9))


@pytest.mark.parametrize("target", [1, 0.9])
def test_lines_in_the_curves_are_where_d_can_only_guess(target, constants):
    constants(TRICKS=["label_smoothing"] if target == 0.9 else [])
    best = target / 2  # Where the gradient of D's loss, -target / p + (2 - target) / (1 - p), is 0.
    loss_d = -target * math.log(best) - (2 - target) * math.log(1 - best)
    row = {"epoch": 1, "loss D": 1.0, "loss G": 1.0, "D(x)": 0.7, "D(G(z))": 0.2}
    lines = [line for axes in script.draw_curves([row], "").axes for line in axes.lines]
    drawn = [line.get_ydata()[0] for line in lines if len(line.get_ydata()) == 2]
    assert drawn == pytest.approx([loss_d, -math.log(best), best, best], abs=5e-4)


def test_whether_d_has_won_depends_on_what_the_tricks_ask_of_it(constants, digits):
    frame = digits[:, 0].add(1).mul(127.5).byte()
    cases = ("label_smoothing", 0.88, 1), ("label_smoothing", 0.84, 0), ("feature_matching", 1, 0)
    for trick, d_real, warned in cases:
        constants(TRICKS=[trick])
        gan = SimpleNamespace(history=[{"D(x)": d_real, "D(G(z))": 0.04}] * 3, frames=[frame])
        assert len(script.diagnose(gan, digits)) == warned, (trick, d_real)


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_spectral_norm_keeps_the_largest_singular_value_of_each_layer_at_one(
    discriminator, digits, constants, rng
):
    constants(DISCRIMINATOR=discriminator, LEARNING_RATE=2e-3, TRICKS=["spectral_norm"])
    gan = trained(digits[:6], rng, 6)
    for _ in range(30):  # One iteration a step lags a little, so let it catch up.
        gan.discriminator(digits[:2])
    layers = [m for m in gan.discriminator.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == (4 if discriminator == "hidden" else 3)
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in layers]
    assert norms == pytest.approx([1] * len(layers), abs=0.05)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in gan.discriminator.modules())
    before = [m.parametrizations.weight.original.flatten(1) for m in layers]
    assert any(abs(torch.linalg.matrix_norm(w, 2).item() - 1) > 0.2 for w in before)


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_minibatch_stddev_adds_a_map_with_the_mean_deviation(discriminator, digits, constants):
    constants(DISCRIMINATOR=discriminator, TRICKS=["minibatch_stddev"])
    network, early = script.Discriminator(), {}

    def replace(layer, args, result):
        early["maps"] = torch.zeros_like(result)
        early["maps"][1] = early["second"]
        return early["maps"]

    hook = network.first.register_forward_hook(replace)
    for early["second"] in (3, 6):  # 0 and 3 deviate from their mean by 1.5.
        maps = inputs_of(network.last, lambda: network(digits[:2]))
        assert maps[:, :-1].equal(network.middle(early["maps"])), "the rest is as without the trick"
        # After BatchNorm, 0 and 6 would be the same as 0 and 3.
        torch.testing.assert_close(maps[:, -1], torch.full((2, 7, 7), early["second"] / 2))
    hook.remove()
    alike, varied = (batch.clone().requires_grad_() for batch in (digits[[0] * 4], digits[:4]))
    flat, rough = (inputs_of(network.last, lambda: network(x))[:, -1] for x in (alike, varied))
    (flat.sum() + rough.sum()).backward()
    assert flat.max() < 0.002 and alike.grad.isfinite().all()
    assert varied.grad.abs().max() > 0, "G learns from it to vary its images"


def test_feature_matching_is_the_squared_distance_of_the_means():
    real_features, fake_features = torch.zeros(4, 128), torch.zeros(6, 128)
    fake_features[:3, 5], fake_features[:, 7] = 4, 3  # Means 2 and 3.
    assert script.feature_matching(real_features, fake_features) == 2**2 + 3**2


def test_features_are_what_the_last_layer_gets_after_the_activation(digits, constants):
    network = script.Discriminator()
    features = network.features(digits)
    assert features.shape == (20, 128) and network.logit(features).equal(network(digits))
    before = inputs_of(network.last[-1], lambda: network(digits))
    assert features.equal(F.leaky_relu(before, 0.2)) and features.min() < 0 < features.max()


def test_feature_matching_is_all_that_g_learns_from_but_not_loss_g(digits, constants, rng):
    constants(TRICKS=["feature_matching"], LEARNING_RATE=0.0)
    gan = script.build_gan(CPU)
    d, fake_images = gan.discriminator, gan.generator(script.sample_latents(6, rng))
    distance = script.feature_matching(d.features(digits), d.features(fake_images))
    expected = torch.autograd.grad(distance, list(gan.generator.parameters()), retain_graph=True)
    loss = script.generator_step(gan.generator, d, gan.optimizer_g, fake_images, digits)
    torch.testing.assert_close(gradients(gan.generator), list(expected))
    assert all(weight.grad is None for weight in d.parameters()), "D does not learn from it"
    assert loss.equal(script.generator_loss(d(fake_images)).detach())


def test_historical_averaging_adds_the_pull_worked_out_by_hand():
    first, last = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer, seen = torch.optim.Adam([first, last]), []
    optimizer.register_step_pre_hook(script.historical_averaging)
    optimizer.register_step_pre_hook(lambda *_: seen.append(last.grad.item()))
    for value in (9.0, 5.0, 3.0, 10.0):
        for weight in (first, last):
            weight.data.fill_(value)
            weight.grad = torch.full((1,), 0.5)
        optimizer.step()
    # The average begins with the weights after the first step: 5, then (5 + 3) / 2 = 4, then 6.
    # The gradient of 1e-4 (w - average)^2 is 2e-4 (w - average).
    assert seen == pytest.approx([0.5, 0.5, 0.5 - 2e-4 * 1, 0.5 + 2e-4 * 4], abs=1e-7)


def test_historical_averaging_pulls_both_networks(digits, constants, rng):
    pulled = []
    note = lambda optimizer, *_: pulled.append((optimizer, len(optimizer.state)))  # noqa: E731
    constants(TRICKS=["historical_averaging"], historical_averaging=note)
    gan = trained(digits[:4], rng, 1)
    assert pulled == [(gan.optimizer_d, 0), (gan.optimizer_g, 0)], "each before its first step"


def test_ttur_lets_d_learn_four_times_as_fast(constants):
    constants(LEARNING_RATE=1e-3, TRICKS=["ttur"])
    gan = script.build_gan(CPU)
    rates = [part.param_groups[0]["lr"] for part in (gan.optimizer_g, gan.optimizer_d)]
    assert rates == [0.5e-3, 2e-3]


def test_frequency_separation_shows_d_the_image_and_its_detail(digits, constants):
    constants(TRICKS=["frequency_separation"])
    network = script.Discriminator()
    flat = torch.full((2, 1, 28, 28), 0.3)
    seen = inputs_of(network.first, lambda: network(flat))
    assert seen.shape == (2, 2, 28, 28) and seen[:, :1].equal(flat)
    assert seen[:, 1].abs().max() < 1e-6, "up to the very border"
    dot = torch.full((2, 1, 28, 28), -1.0)
    dot[:, :, 14, 14] = 1  # Its blur is 2 / 25 higher in the 5 x 5 pixels around it.
    detail = inputs_of(network.first, lambda: network(dot.requires_grad_()))[0, 1]
    (gradient,) = torch.autograd.grad(detail[14, 14], dot)
    assert gradient[0, 0, 14, 14].item() == pytest.approx(24 / 25), "G learns from both channels"
    assert detail[14, 14].item() == pytest.approx(2 - 2 / 25)
    assert detail[12, 16].item() == pytest.approx(-2 / 25)
    assert detail[14, 17].item() == pytest.approx(0, abs=1e-6)


# Tricks: together
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_with_all_tricks_a_step_works_off_the_cpu(discriminator, digits, constants, rng, meta):
    constants(GENERATOR="conv", DISCRIMINATOR=discriminator, TRICKS=TRICKS)
    gan = script.build_gan(meta)
    for _ in range(2):
        assert script.train_step(gan, digits.to(meta), rng).is_meta
    assert all(tensor.is_meta for tensor in gan.average.state_dict().values())


def test_with_all_tricks_a_resumed_epoch_is_bit_for_bit_that_of_an_unbroken_run(digits, constants):
    constants(GENERATOR="conv", DISCRIMINATOR="pool", TRICKS=TRICKS, BATCH_SIZE=4)
    whole, resumed = script.build_gan(CPU), script.build_gan(CPU)
    script.train_epoch(whole, digits, 1)
    for name in NETWORKS + ["optimizer_g", "optimizer_d"]:
        getattr(resumed, name).load_state_dict(copy.deepcopy(getattr(whole, name).state_dict()))
    resumed.step = whole.step
    means = script.train_epoch(whole, digits, 2)  # Steps 5 to 9: one of them has the penalty.
    assert script.train_epoch(resumed, digits, 2) == means
    for name in NETWORKS:
        assert same(weights(getattr(whole, name)), weights(getattr(resumed, name))), name


# Studies
def test_walks_go_from_sample_to_sample_through_usual_latents(digits, constants, rng, monkeypatch):
    gan, drawn, generate = trained(digits, rng), [], script.generate
    latents = script.sample_latents(64, script.random_stream("pictures", script.SEED))
    samples = generate(gan.average, latents).int()
    monkeypatch.setattr(script, "generate", lambda *args: drawn.append(args) or generate(*args))
    walks = script.interpolate(gan, CPU)
    assert walks.shape == (80, 28, 28) and walks.dtype == torch.uint8 and drawn[0][0] is gan.average
    walks = walks.int().view(8, 10, 28, 28)
    assert (walks[:, 0] - samples[0:16:2]).abs().max() <= 1, "starts with sample 1, 3, ..."
    assert (walks[:, 9] - samples[1:16:2]).abs().max() <= 1, "ends with sample 2, 4, ..."
    latents = drawn[0][1].view(8, 10, -1)
    assert latents.square().mean((0, 2)).sqrt() == pytest.approx([1] * 10, abs=0.1), "as random"
    jumps = (latents[:, 1:] - latents[:, :-1]).norm(dim=2)
    assert (jumps.amax(1) < 1.3 * jumps.amin(1)).all(), "in equal steps"
    monkeypatch.setattr(script, "generate", lambda network, latents: latents)
    assert script.interpolate(gan, "meta").is_meta, "they are made where the networks are"


def test_neighbours_are_the_nearest_training_images_nearest_first(digits):
    gan = SimpleNamespace(frames=[None, digits[:8, 0].add(1).mul(127.5).round().byte()])
    images = torch.full((10_008, 1, 28, 28), -1.0)  # More than are compared at once.
    places = [10_000, 100, 5_000, 50, 10_005, 7, 9_999]
    for number, place in enumerate(places):
        images[place] = digits[3] * (1 - number / 20)
    rows = script.find_neighbours(gan, images)
    rows, expected = rows.view(8, 8, 28, 28), images[places, 0].add(1).mul(127.5).round().byte()
    assert rows[:, 0].equal(gan.frames[-1]) and rows[3, 1:].equal(expected)
    few = script.find_neighbours(gan, digits[:3]).view(8, 4, 28, 28)
    assert few[:3, 1].equal(few[:3, 0]), "of three images, three are the nearest"
