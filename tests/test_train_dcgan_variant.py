"""The networks of train_dcgan_variant.py against their sources, its BatchNorm, and each trick."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import train_dcgan_variant as script
from conftest import Placeless, same, weights
from torch import nn

TRICKS = ("label_smoothing", "spectral_norm", "minibatch_stddev", "feature_matching",
          "historical_averaging", "ttur", "frequency_separation")  # fmt: skip
DISCRIMINATORS = ["hidden", "flatten", "pool"]
NETWORKS = [("mlp", "hidden"), ("conv", "flatten"), ("mlp", "pool")]
CPU = torch.device("cpu")


@pytest.fixture
def constants(monkeypatch, tmp_path):
    """A function that sets constants of the script for one test. OUTPUT_DIR is tmp_path."""

    def change(**values):
        for name, value in values.items():
            monkeypatch.setattr(script, name, value)

    change(DISCRIMINATOR="hidden", OUTPUT_DIR=str(tmp_path))
    return change


@pytest.fixture(scope="module")
def digits():
    """20 drawn digits [20, 1, 28, 28]."""
    return script.draw_digits(20)[0]


def state(value, name=""):
    """Copies of all tensors and numbers in a GAN, by name."""
    if isinstance(value, SimpleNamespace):
        value = {name: part for name, part in vars(value).items() if name != "made_with"}
    for read in ("state_dict", "get_state"):
        value = getattr(value, read)() if hasattr(value, read) else value
    if isinstance(value, dict):
        return {n: x for key in value for n, x in state(value[key], f"{name}.{key}").items()}
    is_number = isinstance(value, (torch.Tensor, int, float))
    return {name: torch.as_tensor(value).clone()} if is_number else {}


def differences(first, second):
    """The names under which two results of state() do not agree bit for bit."""
    changed = {n for n in first.keys() & second.keys() if not first[n].equal(second[n])}
    return sorted(changed | (first.keys() ^ second.keys()))


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


def gradients(network):
    return [weight.grad.clone() for weight in network.parameters()]


def trained(digits, steps=3):
    """A GAN after some steps."""
    gan = script.build_gan(CPU)
    for _ in range(steps):
        script.train_step(gan, digits)
    return gan


def inputs_of(layer, function):
    """The first input that a layer gets while function() runs."""
    seen = []
    layer.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    function()
    return seen[0]


# Networks
def test_parameter_counts_are_those_worked_out_by_hand(constants):
    norms = 2 * (256 + 512 + 1024)
    layers = 101 * 256 + 257 * 512 + 513 * 1024 + 1025 * 784
    assert parameters(script.Generator()) == layers + norms == 1_489_936
    convolutions = 32 * (16 + 1) + 64 * (32 * 16 + 1) + 2 * 64
    hidden = (64 * 7 * 7 + 1) * 128 + 128 + 1
    assert parameters(script.Discriminator()) == convolutions + hidden == 435_169
    constants(GENERATOR="conv", DISCRIMINATOR="flatten")
    project, middle, end = 101 * 64 * 7 * 7, 64 * 32 * 16 + 32, 32 * 16 + 1
    assert parameters(script.Generator()) == project + 2 * (64 + 32) + middle + end == 350_241
    convolutions = 64 * (16 + 1) + 128 * (64 * 16 + 1) + 2 * 128
    assert parameters(script.Discriminator()) == convolutions + 128 * 7 * 7 + 1 == 138_817
    constants(DISCRIMINATOR="pool")
    first, second, last = 64 * (9 + 1), 128 * (64 * 9 + 1), 128 + 1
    assert parameters(script.Discriminator()) == first + second + 2 * (64 + 128) + last == 75_009


def tutorial_c_generator():
    return nn.Sequential(
        nn.Linear(100, 256), nn.BatchNorm1d(256, momentum=0.8), nn.ReLU(True),
        nn.Linear(256, 512), nn.BatchNorm1d(512, momentum=0.8), nn.ReLU(True),
        nn.Linear(512, 1024), nn.BatchNorm1d(1024, momentum=0.8), nn.ReLU(True),
        nn.Linear(1024, 784), nn.Tanh(),
    )  # fmt: skip


def tutorial_c_discriminator():
    return nn.Sequential(
        nn.Conv2d(1, 64, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, kernel_size=4, stride=2, padding=1),
        nn.BatchNorm2d(128, momentum=0.8), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(128 * 7 * 7, 1), nn.Sigmoid(),
    )  # fmt: skip


def tutorial_d_discriminator():
    """With the Flatten without which it cannot run."""
    return nn.Sequential(
        nn.Conv2d(1, 64, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1), nn.Sigmoid(),
    )  # fmt: skip


def copy_weights(ours, theirs):
    """Give a tutorial's network the weights and statistics of the script's, in their order."""
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))


def hidden_discriminator():
    """That of C with half as many maps and one hidden layer more."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1),
        nn.Sigmoid(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "part, theirs, discriminator",
    [("Generator", tutorial_c_generator, "flatten"),
     ("Discriminator", tutorial_c_discriminator, "flatten"),
     ("Discriminator", tutorial_d_discriminator, "pool"),
     ("Discriminator", hidden_discriminator, "hidden")],
    ids=["G of C", "D of C", "convolutional D of D", "D with a hidden layer"],
)  # fmt: skip
def test_with_the_same_weights_a_network_is_the_tutorials(part, theirs, discriminator, constants):
    constants(DISCRIMINATOR=discriminator)
    torch.manual_seed(0)
    ours, theirs = getattr(script, part)(), theirs()
    for mode in (True, False):  # The batch in training sets the statistics for eval mode.
        copy_weights(ours, theirs)
        ours.train(mode), theirs.train(mode)
        batch = torch.randn(6, 100) if part == "Generator" else torch.rand(6, 1, 28, 28) * 2 - 1
        result = ours(batch).flatten(1) if part == "Generator" else ours(batch).sigmoid()
        torch.testing.assert_close(result, theirs(batch))


def test_one_step_with_the_settings_of_tutorial_c_is_the_step_of_tutorial_c(digits, constants):
    constants(DISCRIMINATOR="flatten", R1=0, AVERAGE=0, LEARNING_RATE=2e-4, BETAS=(0.5, 0.999))
    gan = script.build_gan(CPU)
    generator, discriminator = tutorial_c_generator(), tutorial_c_discriminator()
    copy_weights(gan.generator, generator), copy_weights(gan.discriminator, discriminator)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=0.0002, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.0002, betas=(0.5, 0.999))
    criterion, ones, zeros = nn.BCELoss(), torch.ones(20, 1), torch.zeros(20, 1)
    rng = script.random_stream("training latents", script.SEED)
    for step in range(4):
        row = script.train_step(gan, digits)

        discriminator.zero_grad()
        d_real_output = discriminator(digits)
        fake_images = generator(torch.randn(20, 100, generator=rng)).view(-1, 1, 28, 28)
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


# BatchNorm
@pytest.mark.parametrize("generator", ["mlp", "conv"])
def test_a_picture_does_not_depend_on_the_others_drawn_with_it(generator, constants):
    constants(GENERATOR=generator)
    torch.manual_seed(0)
    network, latents = script.Generator(), torch.randn(9, script.LATENT_DIM)
    network(latents)  # In training: sets the running statistics.
    before = weights(network)
    together = script.generate(network, latents)
    alone = torch.cat([script.generate(network, latent.unsqueeze(0)) for latent in latents])
    # One grey level of 255 may come from sums that were rounded in another order.
    assert (together.int() - alone.int()).abs().max() <= 1
    assert network.training and same(before, weights(network))
    assert not torch.allclose(network(latents)[:4], network(latents[:4]), atol=1e-2), "in training"


def test_d_sees_real_and_fake_images_apart_also_for_the_penalty(digits):
    gan, real_images, fake_images, seen = script.build_gan(CPU), digits[:8], -digits[8:16], []
    gan.discriminator.first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    script.discriminator_step(gan.discriminator, gan.optimizer_d, real_images, fake_images, 8)
    expected = real_images, fake_images, real_images
    assert len(seen) == 3 and all(map(torch.equal, seen, expected))


def test_a_last_batch_of_one_image_is_left_out(digits, constants):
    sizes, step = [], script.train_step
    constants(BATCH_SIZE=4, train_step=lambda gan, x: sizes.append(len(x)) or step(gan, x))
    for count in (9, 10):
        means = script.train_epoch(script.build_gan(CPU), digits[:count])
        assert all(math.isfinite(mean) for mean in means)
    assert sizes == [4, 4] + [4, 4, 2]


@pytest.mark.parametrize("average", [0, 8])
def test_renewed_statistics_are_those_of_the_weights_that_draw(average, digits, constants):
    constants(AVERAGE=average)
    gan = trained(digits, 5)
    latents = torch.randn(2000, script.LATENT_DIM, generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def error():
        drawn = gan.average.eval()(latents)
        return (drawn - gan.average.train()(latents)).abs().mean().item()

    assert error() > 0.2
    script.renew_statistics(gan)
    assert gan.average.training and error() < 0.02


@pytest.mark.parametrize("average", [0, 8])
def test_pictures_depend_neither_on_momentum_nor_on_how_often_statistics_are_renewed(
    average, digits, constants
):
    latents = script.sample_latents
    constants(AVERAGE=average, sample_latents=lambda n, *rest: latents(min(n, 640), *rest))
    often, once = script.build_gan(CPU), script.build_gan(CPU)
    for module in [*often.generator.modules(), *often.average.modules()]:
        module.momentum = 0.8
    for _ in range(2):
        global_rng = torch.get_rng_state()
        script.renew_statistics(often)
        before = state(often)
        script.renew_statistics(often)
        assert differences(before, state(often)) == [] and global_rng.equal(torch.get_rng_state())
        script.train_step(often, digits[:8])
        script.train_step(once, digits[:8])
    changed = differences(state(often), state(once))
    statistics = "running_mean", "running_var", "num_batches_tracked"
    assert changed and all(name.endswith(statistics) for name in changed), "G and D learn the same"
    for gan in (often, once):
        script.renew_statistics(gan)
    assert same(weights(often.average), weights(once.average))


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize("tricks", [(), TRICKS], ids=["no tricks", "all tricks"])
def test_r1_has_a_moderate_slope_for_all_weights_of_d(discriminator, tricks, digits, constants):
    constants(DISCRIMINATOR=discriminator, TRICKS=tricks)
    torch.manual_seed(0)
    network = script.Discriminator()
    alike = digits[:1].expand(6, 1, 28, 28)
    assert digits[:, :, :2].eq(-1).all(), "an empty border, as MNIST has"
    for batch in (digits, alike, torch.full_like(alike, -1)):
        network.zero_grad()
        script.r1_penalty(network, batch).backward()
        for weight in network.parameters():  # The last bias, say, has no effect on slopes.
            assert weight.grad is None or weight.grad.abs().max() < 10
            assert weight.dim() == 1 or weight.grad.abs().max() > 0
        assert not batch.requires_grad, "the dataset stays as it is"


# Memory
# Tricks: names
UNKNOWN = [("ema",), ("ttur", "ttur"), "ttur", ["ttur"], None, (["ttur"],), ("ttur", 1), ("TTUR",)]


@pytest.mark.parametrize("value", UNKNOWN, ids=str)
def test_an_unknown_trick_is_refused_with_the_list_of_known_ones(value, constants):
    constants(TRICKS=value)
    with pytest.raises(SystemExit) as stop:
        script.check_constants()
    message = str(stop.value)
    assert message.startswith(f"TRICKS = {value!r} cannot be used.") and "\n" not in message
    assert all(repr(trick) in message for trick in TRICKS), message


def test_every_known_trick_is_accepted_and_named_in_the_docstring(constants):
    for tricks in [(), TRICKS, TRICKS[::-1], *((trick,) for trick in TRICKS)]:
        constants(TRICKS=tricks)
        assert script.check_constants()["TRICKS"] == tricks
    assert all(f"\n    {trick} " in script.__doc__ for trick in TRICKS)


# Tricks: one by one
def test_label_smoothing_wants_real_images_at_nine_tenths_and_fake_ones_at_zero(constants):
    def slopes(logit):
        logits = [torch.full((4, 1), logit, requires_grad=True) for _ in range(2)]
        script.discriminator_loss(*logits).backward()
        return [4 * batch.grad[0].item() for batch in logits]

    at_nine_tenths = math.log(9)  # The sigmoid of ln 9 is 0.9.
    assert slopes(at_nine_tenths) == pytest.approx([-0.1, 0.9])
    constants(TRICKS=("label_smoothing",))
    assert slopes(at_nine_tenths) == pytest.approx([0, 0.9], abs=1e-6)
    assert slopes(0.0) == pytest.approx([-0.4, 0.5])
    zero = torch.zeros(4, 1)
    assert script.discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert script.generator_loss(zero).item() == pytest.approx(math.log(2)), "one-sided"


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_spectral_norm_keeps_the_largest_singular_value_of_each_layer_at_one(
    discriminator, digits, constants
):
    constants(DISCRIMINATOR=discriminator, LEARNING_RATE=2e-3, TRICKS=("spectral_norm",))
    gan = script.build_gan(CPU)
    for _ in range(10):
        script.train_step(gan, digits)
    gan.discriminator.eval()  # No power iteration any more.
    layers = [m for m in gan.discriminator.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == (4 if discriminator == "hidden" else 3)
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in layers]
    assert norms == pytest.approx([1] * len(layers), abs=0.15)  # One iteration lags a little.
    assert not any(isinstance(m, nn.BatchNorm2d) for m in gan.discriminator.modules())
    before = [m.parametrizations.weight.original.flatten(1) for m in layers]
    assert any(abs(torch.linalg.matrix_norm(w, 2).item() - 1) > 0.2 for w in before)


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_minibatch_stddev_adds_a_map_with_the_mean_deviation(discriminator, digits, constants):
    constants(DISCRIMINATOR=discriminator, TRICKS=("minibatch_stddev",))
    network = script.Discriminator()
    features = torch.zeros_like(network.features(digits[:2]))
    features[1] = 3  # 0 and 3 deviate from their mean by 1.5.
    maps = inputs_of(network.last, lambda: network.judge(features))
    assert maps[:, :-1].equal(network.middle(features)), "the other maps are as without the trick"
    torch.testing.assert_close(maps[:, -1], torch.full((2, 7, 7), 1.5))
    alike = digits[:1].repeat(4, 1, 1, 1).requires_grad_()
    maps = inputs_of(network.last, lambda: network(alike).sum().backward())
    assert maps.shape[2:] == (7, 7) and maps[:, -1].abs().max() < 0.002
    assert alike.grad.isfinite().all()


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_tricks_that_compare_batches_see_a_change_of_scale(discriminator, digits, constants):
    """After BatchNorm it would be gone, because that gives each batch the same deviation."""
    constants(DISCRIMINATOR=discriminator, TRICKS=("minibatch_stddev",))
    network = script.Discriminator()
    for name, weight in network.named_parameters():
        if name.endswith("bias"):  # Then half an image has half the features.
            nn.init.zeros_(weight)
    real, fake = network.features(digits), network.features(0.5 * digits)
    whole = script.feature_matching(real, torch.zeros_like(real)).item()
    assert script.feature_matching(real, fake).item() == pytest.approx(0.25 * whole, rel=1e-3)
    maps = [inputs_of(network.last, lambda: network.judge(batch)) for batch in (real, fake)]
    torch.testing.assert_close(maps[1][:, -1], 0.5 * maps[0][:, -1], rtol=1e-2, atol=0)


def test_feature_matching_is_the_squared_distance_of_the_means():
    real_features, fake_features = torch.zeros(4, 128, 7, 7), torch.zeros(6, 128, 7, 7)
    assert script.feature_matching(real_features, real_features) == 0
    fake_features[:3, 5, 1, 2], fake_features[:, 7, 0, 0] = 4, 3  # Means 2 and 3.
    assert script.feature_matching(real_features, fake_features) == 2**2 + 3**2


def test_feature_matching_is_all_that_g_learns_from_but_not_loss_g(digits, constants):
    constants(TRICKS=("feature_matching",), LEARNING_RATE=0.0)
    gan = script.build_gan(CPU)
    d, fake_images = gan.discriminator, gan.generator(gan.fixed_latents[:6])
    distance = script.feature_matching(d.features(digits), d.features(fake_images))
    expected = torch.autograd.grad(distance, list(gan.generator.parameters()), retain_graph=True)
    loss = script.generator_step(gan.generator, d, gan.optimizer_g, fake_images, digits)
    torch.testing.assert_close(gradients(gan.generator), list(expected))
    assert loss.equal(script.generator_loss(d(fake_images)).detach())


def test_historical_averaging_is_zero_at_the_start_and_pulls_back(digits, constants):
    constants(LEARNING_RATE=0.0)  # So D does not move before G's step.
    free = script.build_gan(CPU)
    constants(TRICKS=("historical_averaging",))
    gan, factors = script.build_gan(CPU), []
    for network, past in ((gan.discriminator, gan.past_d), (gan.generator, gan.past_g)):
        assert script.historical_averaging(network, past) == 0
        with torch.no_grad():
            for mean in past.parameters():
                mean.sub_(3)
        penalty = script.historical_averaging(network, past).item()
        factors.append(penalty / parameters(network) / 3**2)  # Each weight is 3 away.
    assert 0 < factors[0] == pytest.approx(factors[1], rel=1e-3)
    row = script.train_step(gan, digits[:8])
    constants(TRICKS=())
    assert row.equal(script.train_step(free, digits[:8])), "the losses keep their meaning"
    for name in ("discriminator", "generator"):
        networks = getattr(gan, name), getattr(free, name)
        for pulled, before in zip(*map(gradients, networks)):
            expected = torch.full_like(before, 2 * factors[0] * 3)
            torch.testing.assert_close(pulled - before, expected, rtol=0.01, atol=1e-5)


def test_historical_averaging_keeps_the_mean_of_all_weights_so_far(digits, constants):
    constants(TRICKS=("historical_averaging",), LEARNING_RATE=0.01)
    gan, seen = script.build_gan(CPU), []
    for _ in range(3):
        script.train_step(gan, digits[:8])
        now = gan.generator.layers[0].weight, gan.discriminator.last[1].weight
        seen.append([weight.detach().clone() for weight in now])
    past = gan.past_g.module.layers[0].weight, gan.past_d.module.last[1].weight
    for mean, values in zip(past, zip(*seen)):
        torch.testing.assert_close(mean, torch.stack(values).mean(0))


def test_ttur_lets_d_learn_four_times_as_fast(constants):
    for tricks, expected in (((), [1e-3, 1e-3]), (("ttur",), [0.5e-3, 2e-3])):
        constants(LEARNING_RATE=1e-3, TRICKS=tricks)
        gan = script.build_gan(CPU)
        rates = [part.param_groups[0]["lr"] for part in (gan.optimizer_g, gan.optimizer_d)]
        assert rates == expected


def test_frequency_separation_shows_d_the_image_and_its_detail(digits, constants):
    constants(TRICKS=("frequency_separation",))
    network = script.Discriminator()
    flat = torch.full((2, 1, 28, 28), 0.3)
    seen = inputs_of(network.first, lambda: network(flat))
    assert seen[:, :1].equal(flat) and seen.shape == (2, 2, 28, 28)
    assert seen[:, 1].abs().max() < 1e-6, "up to the very border"
    dot = torch.full((2, 1, 28, 28), -1.0)
    dot[:, :, 14, 14] = 1  # Its blur is 2 / 25 higher in the 5 x 5 pixels around it.
    detail = inputs_of(network.first, lambda: network(dot))[0, 1]
    assert detail[14, 14].item() == pytest.approx(2 - 2 / 25)
    assert detail[12, 16].item() == pytest.approx(-2 / 25)
    assert detail[14, 17].item() == pytest.approx(0, abs=1e-6)


# Tricks: together, and resuming
@pytest.mark.parametrize(
    "tricks, networks",
    [*(((), n) for n in NETWORKS[:2]),
     *(pytest.param((t,), NETWORKS[0], marks=pytest.mark.slow) for t in TRICKS),
     *((TRICKS, n) for n in NETWORKS[1:])],
    ids=lambda value: "+".join(value) if len(value) < 7 else "all",
)  # fmt: skip
def test_a_resumed_run_is_exactly_the_run_that_was_not_stopped(tricks, networks, digits, constants):
    constants(GENERATOR=networks[0], DISCRIMINATOR=networks[1], TRICKS=tricks)
    constants(BATCH_SIZE=4)  # Five steps an epoch, so one of the second has the penalty.
    whole = script.build_gan(CPU)
    script.begin(whole, digits, "digits")
    script.train_epoch(whole, digits)
    whole.history.append({"epoch": 1})
    script.save_checkpoint(whole)
    saved = state(whole)
    assert saved[".step"] == 5 and all(value.isfinite().all() for value in saved.values())
    script.train_epoch(whole, digits)

    constants(RESUME=True)
    resumed = script.build_gan(CPU)
    assert differences(saved, state(resumed)), "loading must have something to do"
    script.begin(resumed, digits, "digits")
    assert differences(saved, state(resumed)) == []
    script.train_epoch(resumed, digits)
    assert differences(state(whole), state(resumed)) == []
    assert resumed.history == whole.history


def test_a_checkpoint_of_other_networks_or_tricks_is_refused(digits, constants):
    constants(RESUME=True)
    gan = script.build_gan(CPU)
    script.begin(gan, digits, "digits")
    script.save_checkpoint(gan)
    # The first name in the alphabet that differs is told.
    for name, value in (("TRICKS", ("ttur",)), ("GENERATOR", "conv"), ("DISCRIMINATOR", "pool")):
        constants(**{name: value})
        with pytest.raises(SystemExit) as stop:
            script.begin(script.build_gan(CPU), digits, "digits")
        assert f"made with {name} = " in str(stop.value) and f"it is {value!r}" in str(stop.value)


# Pictures
@pytest.mark.parametrize(
    ("tricks", "d_real", "d_fake", "won"),
    [((), 0.96, 0.04, True), ((), 0.94, 0.04, False), ((), 0.96, 0.06, False),
     (("label_smoothing",), 0.88, 0.04, True), (("label_smoothing",), 0.84, 0.04, False),
     (("feature_matching",), 0.99, 0.01, False)],
)  # fmt: skip
def test_diagnosis_knows_what_the_tricks_change(constants, digits, tricks, d_real, d_fake, won):
    constants(TRICKS=tricks)
    frame = digits[:, 0].add(1).mul(127.5).byte()
    row, calm = {"D(x)": d_real, "D(G(z))": d_fake}, {"D(x)": 0.6, "D(G(z))": 0.4}

    def warnings(*history, frame=frame):
        gan = SimpleNamespace(history=list(history), frames=[frame])
        return " ".join(script.diagnose(gan, digits))

    assert ("D has won" in warnings(calm, row, row, row)) == won
    assert warnings(row, row) == warnings(row, calm, row) == warnings(row, row, calm) == ""
    for r1 in (0, 0.3):
        constants(R1=r1)
        found = warnings(calm, calm, calm, frame=frame[:1].expand(20, 28, 28))
        assert "all alike" in found and ("Try R1" in found) == (r1 == 0)


@pytest.mark.parametrize("tricks", [(), ("label_smoothing",)], ids=["target 1", "target 0.9"])
def test_lines_in_the_curves_are_where_d_can_only_guess(tricks, constants):
    constants(TRICKS=tricks)
    target = 0.9 if tricks else 1.0
    best = target / 2  # Least loss of D: its slope, -target / p + (2 - target) / (1 - p), is 0.
    loss_d = -target * math.log(best) - (2 - target) * math.log(1 - best)
    expected = {"loss D": loss_d, "loss G": -math.log(best), "D(x)": best, "D(G(z))": best}
    if tricks:
        assert list(expected.values()) == pytest.approx([1.376, 0.799, 0.45, 0.45], abs=5e-4)
    drawn, draw_curves = [], script.draw_curves
    constants(draw_curves=lambda *args: drawn.append(args) or draw_curves(*args))
    gan = SimpleNamespace(made_with={"data": "digits"}, history=[dict.fromkeys(expected, 1.0)])
    gan.history[0]["epoch"], gan.frames = 1, [torch.zeros(64, 28, 28, dtype=torch.uint8)]
    script.save_pictures(gan)
    assert drawn[0][2] == pytest.approx(expected, abs=5e-4)


@pytest.fixture
def studies(constants, tmp_path):
    """A function that runs save_studies and returns what it draws: two calls of draw_grid."""
    calls, draw_grid = [], script.draw_grid

    def run(gan, images):
        gan.frames.append(script.generate(gan.average, gan.fixed_latents))
        gan.history.append({"epoch": 1})
        script.begin(gan, images, "digits")
        script.save_checkpoint(gan)
        constants(draw_grid=lambda *a, **k: calls.append((*a, k)) or draw_grid(*a, **k))
        script.save_studies(gan, images)
        drawn = {path.name for path in tmp_path.glob("*.png")}
        assert drawn == {"interpolation.png", "neighbours.png"}
        return calls

    return run


def test_walks_go_from_sample_to_sample_through_usual_latents(digits, constants, studies):
    gan, drawn, generate = trained(digits), [], script.generate
    constants(generate=lambda *args: drawn.append(args) or generate(*args))
    with Placeless(script) as made:
        walks, title, options = studies(gan, digits)[0]
    assert made.found == [], "where the latents are"
    assert "walks from one latent to another" in title and options == {"columns": 10}
    assert walks.dtype == torch.uint8
    frame, walks = gan.frames[-1].int(), walks.int().view(8, 10, 28, 28)
    assert (walks[:, 0] - frame[0:16:2]).abs().max() <= 1, "starts with sample 1, 3, ..."
    assert (walks[:, 9] - frame[1:16:2]).abs().max() <= 1, "ends with sample 2, 4, ..."
    assert drawn[-1][0] is gan.average
    latents = drawn[-1][1].view(8, 10, -1)
    lengths = latents.square().mean((0, 2)).sqrt()
    assert lengths == pytest.approx([1] * 10, abs=0.1), "as long as random latents"
    jumps = (latents[:, 1:] - latents[:, :-1]).norm(dim=2)
    assert jumps.max() < 1.3 * jumps.min(), "in equal steps"


def test_neighbours_are_the_nearest_training_images_nearest_first(digits, studies):
    gan = trained(digits)
    samples = script.generate(gan.average, gan.fixed_latents)[:8].unsqueeze(1) / 127.5 - 1
    images = torch.full((10_008, 1, 28, 28), -1.0)  # More than are compared at once.
    for number, place in enumerate((10_000, 100, 5_000, 50, 10_005, 7, 9_999)):
        images[place] = samples[3] + number / 20
    rows, title, columns, _ = studies(gan, images)[1]
    assert "a sample, and its nearest training images" in title and columns == 8
    rows = rows.view(8, 8, 28, 28)
    assert rows[:, 0].equal(gan.frames[-1][:8]) and rows.dtype == torch.uint8
    grey = [(rows[3, k].float() - rows[3, 0].float()).mean().item() for k in range(1, 8)]
    assert grey == pytest.approx([6.375 * number for number in range(7)], abs=0.5)


# A whole run
def test_three_images_of_ones_own_are_enough(constants, digits, tmp_path):
    constants(EPOCHS=1, BATCH_SIZE=10, load_images=lambda: (digits[:3], None, "mine"))
    script.main()
    assert {"neighbours.png", "generated.npy"} <= {path.name for path in tmp_path.iterdir()}


def test_an_earlier_run_is_set_aside_whole_or_not_at_all(
    constants, tmp_path, capsys, monkeypatch
):
    names = ["run.txt", "samples_epoch_001.png", "training.gif", "losses.png", "history.csv",
             "interpolation.png", "neighbours.png", "generator.pt", "generated.npy",
             "checkpoint.pt"]  # fmt: skip
    (tmp_path / "notes.md").write_text("mine")
    for number in ("1", "2"):
        for name in names:
            (tmp_path / name).write_text(number)
        script.set_aside_earlier_run()
        kept = {path.name: path.read_text() for path in (tmp_path / f"earlier_{number}").iterdir()}
        assert kept == dict.fromkeys(names, number) and f"earlier_{number}" in capsys.readouterr().out
    script.set_aside_earlier_run()  # Nothing is left to move.
    (tmp_path / "run.txt").write_text("3")
    (tmp_path / "checkpoint.pt").write_text("3")
    with monkeypatch.context() as patch:
        rename = Path.rename

        def locked(path, target):
            if path.name == "checkpoint.pt":
                raise PermissionError(13, "open elsewhere")
            return rename(path, target)

        patch.setattr(Path, "rename", locked)
        with pytest.raises(SystemExit, match="Is it open"):
            script.set_aside_earlier_run()
    assert (tmp_path / "run.txt").read_text() == "3" and not (tmp_path / "earlier_3").exists()
    rest = {path.name for path in tmp_path.iterdir()}
    assert rest == {"notes.md", "earlier_1", "earlier_2", "run.txt", "checkpoint.pt"}


def test_the_seconds_of_an_epoch_are_those_that_it_took(constants, digits, tmp_path, monkeypatch):
    constants(EPOCHS=1, BATCH_SIZE=10, train_epoch=lambda *_: [1.0, 1.0, 0.5, 0.5])
    constants(renew_statistics=lambda gan: None, end_epoch=lambda *found: seconds.append(found[-1]))
    clock, seconds = iter((100.0, 107.5)), []
    monkeypatch.setattr(script.time, "perf_counter", lambda: next(clock))
    script.train(SimpleNamespace(history=[]), digits)
    assert seconds == [7.5]


def test_without_a_checkpoint_no_studies_are_drawn(constants, digits, tmp_path):
    """Where it could not be written, say. They would show a G amid the next epoch."""
    constants(EPOCHS=1, BATCH_SIZE=10, renew_statistics=lambda gan: None)
    constants(load_images=lambda: (digits, None, "digits"), save_checkpoint=lambda gan: None)
    script.main()
    written = {path.name for path in tmp_path.iterdir()}
    late = {"interpolation.png", "neighbours.png", "generator.pt", "generated.npy"}
    assert "run.txt" in written and not written & late


@pytest.mark.slow
def test_a_whole_run_with_all_tricks_writes_what_the_docstring_names(digits, constants, tmp_path):
    constants(load_images=lambda: (digits, None, "digits"), TRICKS=TRICKS, EPOCHS=1, BATCH_SIZE=8)
    script.main()
    written = {path.name for path in tmp_path.iterdir()} - {"lock"}
    assert written == {
        "samples_epoch_001.png", "training.gif", "interpolation.png", "neighbours.png",
        "losses.png", "history.csv", "generated.npy", "generator.pt", "checkpoint.pt", "run.txt",
    }  # fmt: skip
    assert all(name in script.__doc__ for name in written)
    assert f"TRICKS = {TRICKS!r}\n" in (tmp_path / "run.txt").read_text()
    generator = script.Generator()
    generator.load_state_dict(torch.load(tmp_path / "generator.pt", weights_only=True))
    before = weights(generator)
    script.renew_statistics(SimpleNamespace(average=generator, fixed_latents=torch.zeros(1)))
    assert same(before, weights(generator)), "the statistics are those of the weights"
