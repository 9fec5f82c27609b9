"""The networks of train_dcgan_variant.py against their sources, its BatchNorm, and each trick."""

import copy
import ctypes
import math
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import train_dcgan_variant as script
from conftest import Placeless
from torch import nn

TRICKS = (
    "label_smoothing",
    "spectral_norm",
    "minibatch_stddev",
    "feature_matching",
    "historical_averaging",
    "ema",
    "ttur",
    "frequency_separation",
)
NETWORKS = [("mlp", "flatten"), ("conv", "pool")]
CPU = torch.device("cpu")


@pytest.fixture
def constants(monkeypatch):
    """A function that sets constants of the script for one test."""

    def change(**values):
        for name, value in values.items():
            monkeypatch.setattr(script, name, value)

    return change


@pytest.fixture(scope="module")
def digits():
    """20 drawn digits [20, 1, 28, 28]."""
    return script.draw_digits(20)[0]


def state(gan):
    """Copies of all tensors that a run changes, by name."""
    parts = {"rng": gan.rng.get_state(), "fixed_latents": gan.fixed_latents}
    for name, part in vars(gan).items():
        if hasattr(part, "state_dict"):
            parts[name] = part.state_dict()
    flat = {}

    def walk(prefix, value):
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{prefix}.{key}", item)
        elif isinstance(value, torch.Tensor):
            flat[prefix] = value.clone()

    walk("", parts)
    return flat


def differences(first, second):
    """The names under which two results of state() do not agree bit for bit."""
    changed = {n for n in first.keys() & second.keys() if not first[n].equal(second[n])}
    return sorted(changed | (first.keys() ^ second.keys()))


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


def inputs_of(layer, function):
    """The first input that a layer gets while function() runs."""
    seen = []
    handle = layer.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    function()
    handle.remove()
    return seen[0]


# Networks
@pytest.mark.parametrize("tricks", [(), TRICKS], ids=["no tricks", "all tricks"])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("discriminator", ["flatten", "pool"])
@pytest.mark.parametrize("generator", ["mlp", "conv"])
def test_shapes_and_range(generator, discriminator, count, tricks, constants):
    constants(GENERATOR=generator, DISCRIMINATOR=discriminator, TRICKS=tricks)
    networks = script.Generator(), script.Discriminator()
    if count == 1:  # In training, BatchNorm1d needs two images.
        networks = networks[0].eval(), networks[1].eval()
    images = networks[0](torch.randn(count, script.LATENT_DIM))
    logits = networks[1](images)
    assert images.shape == (count, 1, 28, 28) and images.abs().max() <= 1
    assert logits.shape == (count, 1) and logits.isfinite().all()
    assert networks[1].features(images).shape == (count, 128, 7, 7)


def test_parameter_counts_are_those_worked_out_by_hand(constants):
    norms = 2 * (256 + 512 + 1024)
    layers = 101 * 256 + 257 * 512 + 513 * 1024 + 1025 * 784
    assert parameters(script.Generator()) == layers + norms == 1_489_936
    first, second, last = 64 * (16 + 1), 128 * (64 * 16 + 1), 128 * 7 * 7 + 1
    assert parameters(script.Discriminator()) == first + second + 2 * 128 + last == 138_817
    constants(GENERATOR="conv", DISCRIMINATOR="pool")
    project, middle, end = 101 * 128 * 7 * 7, 128 * 64 * 16 + 64, 64 * 16 + 1
    assert parameters(script.Generator()) == project + 2 * (128 + 64) + middle + end == 766_017
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
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1), nn.Sigmoid(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "ours, theirs, discriminator",
    [
        (lambda: script.Generator(), tutorial_c_generator, "flatten"),
        (lambda: script.Discriminator(), tutorial_c_discriminator, "flatten"),
        (lambda: script.Discriminator(), tutorial_d_discriminator, "pool"),
    ],
    ids=["generator of C", "discriminator of C", "convolutional discriminator of D"],
)
def test_with_the_same_weights_a_network_is_the_tutorials(ours, theirs, discriminator, constants):
    constants(DISCRIMINATOR=discriminator)
    torch.manual_seed(0)
    ours, theirs = ours(), theirs()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    is_generator = isinstance(ours, script.Generator)
    for mode in (True, True, False):  # Two batches in training set the running statistics.
        ours.train(mode), theirs.train(mode)
        batch = torch.randn(6, 100) if is_generator else torch.rand(6, 1, 28, 28) * 2 - 1
        result = ours(batch).flatten(1) if is_generator else ours(batch).sigmoid()
        torch.testing.assert_close(result, theirs(batch))


def test_conv_generator_starts_with_the_weights_of_dcgan_and_mlp_with_those_of_pytorch(constants):
    torch.manual_seed(0)
    bound = script.Generator().layers[0].weight.abs().max().item()
    assert bound == pytest.approx(1 / math.sqrt(script.LATENT_DIM), rel=0.01)
    constants(GENERATOR="conv")
    for layer in script.Generator().layers:
        if hasattr(layer, "weight"):
            mean = 1 if isinstance(layer, nn.BatchNorm2d) else 0
            assert layer.weight.mean().item() == pytest.approx(mean, abs=0.006)
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.25)


# BatchNorm
@pytest.mark.parametrize("generator", ["mlp", "conv"])
def test_a_picture_does_not_depend_on_the_others_drawn_with_it(generator, constants):
    constants(GENERATOR=generator)
    torch.manual_seed(0)
    network, latents = script.Generator(), torch.randn(9, script.LATENT_DIM)
    network(latents)  # In training: sets the running statistics.
    before = copy.deepcopy(network.state_dict())
    together = script.generate(network, latents)
    alone = torch.cat([script.generate(network, latent.unsqueeze(0)) for latent in latents])
    # One grey level of 255 may come from sums that were rounded in another order.
    assert (together.int() - alone.int()).abs().max() <= 1
    assert network.training
    assert all(before[name].equal(value) for name, value in network.state_dict().items())
    with torch.no_grad():  # Whereas in training it does.
        assert not torch.allclose(network(latents)[:4], network(latents[:4]), atol=1e-2)


def test_what_d_says_of_fake_images_does_not_depend_on_the_real_ones_beside_them(digits):
    fake_images = torch.rand(8, 1, 28, 28) * 2 - 1
    said = []
    for real_images in (digits[:8], -digits[8:16]):
        gan = script.build_gan(CPU)
        args = gan.discriminator, gan.optimizer_d, real_images, fake_images
        said.append(script.discriminator_step(*args)[2].item())
    assert said[0] == said[1]


def test_a_last_batch_of_one_image_is_left_out(digits, constants, monkeypatch):
    constants(BATCH_SIZE=4)
    sizes, step = [], script.train_step

    def record(gan, real_images):
        sizes.append(len(real_images))
        return step(gan, real_images)

    monkeypatch.setattr(script, "train_step", record)
    for count, expected in ((9, [4, 4]), (10, [4, 4, 2])):
        means = script.train_epoch(script.build_gan(CPU), digits[:count])
        assert sizes == expected and all(math.isfinite(mean) for mean in means)
        sizes.clear()


def test_a_batch_size_of_one_is_refused(constants):
    constants(BATCH_SIZE=1)
    with pytest.raises(SystemExit, match="BATCH_SIZE = 1 .* from 2 to 60000"):
        script.check_constants()


# Memory
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_stays_for_the_next_step():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p

    def stays():
        before, blocks = libc.sbrk(0), []  # Where the heap ends.
        while libc.sbrk(0) == before and len(blocks) < 100:  # First the gaps of the heap are filled.
            blocks.append(libc.malloc(24_000_000))  # More than the networks ever ask for.
        after = libc.sbrk(0)
        for block in blocks:
            libc.free(ctypes.c_void_p(block))
        return after > before and libc.sbrk(0) == after

    for threshold in (-1, -3):  # Their values at the start of a process.
        libc.mallopt(threshold, 2**17)
    assert not stays(), "by default, memory goes back"
    script.keep_freed_memory()
    assert stays()


# Tricks: names
@pytest.mark.parametrize(
    "value",
    [("spectral",), ("ema", "ema"), "ema", ["ema"], None, (["ema"],), ("ema", 1), ("EMA",)],
    ids=str,
)
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


def test_tricks_that_are_off_leave_nothing_behind():
    gan = script.build_gan(CPU)
    assert not hasattr(gan, "player") and gan.past_g is gan.past_d is None
    assert gan.discriminator.layers[0].in_channels == 1
    assert not any("parametrizations" in name for name in gan.discriminator.state_dict())


@pytest.mark.parametrize("trick", TRICKS)
def test_each_trick_alone_changes_the_training(trick, digits, constants):
    ends = []
    for tricks in ((), (trick,)):
        constants(TRICKS=tricks)
        gan = script.build_gan(CPU)
        for _ in range(3):
            row = script.train_step(gan, digits[:8])
            assert row.shape == (4,) and row.isfinite().all()
        ends.append(gan.generator.state_dict())
    assert not ends[0]["layers.0.weight"].equal(ends[1]["layers.0.weight"])


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


@pytest.mark.parametrize("discriminator", ["flatten", "pool"])
def test_spectral_norm_keeps_the_largest_singular_value_of_each_layer_at_one(
    discriminator, digits, constants
):
    constants(DISCRIMINATOR=discriminator, LEARNING_RATE=2e-3, TRICKS=("spectral_norm",))
    gan = script.build_gan(CPU)
    for _ in range(10):
        script.train_step(gan, digits)
    gan.discriminator.eval()  # No power iteration any more.
    layers = [m for m in gan.discriminator.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in layers]
    assert norms == pytest.approx([1, 1, 1], abs=0.15)  # One iteration a pass lags a little.
    assert not any(isinstance(m, nn.BatchNorm2d) for m in gan.discriminator.modules())
    before = [m.parametrizations.weight.original.flatten(1) for m in layers]
    assert any(abs(torch.linalg.matrix_norm(w, 2).item() - 1) > 0.2 for w in before)


@pytest.mark.parametrize("discriminator", ["flatten", "pool"])
def test_minibatch_stddev_adds_a_map_with_the_mean_deviation(discriminator, digits, constants):
    constants(DISCRIMINATOR=discriminator, TRICKS=("minibatch_stddev",))
    torch.manual_seed(0)
    network = script.Discriminator()
    features = torch.zeros(2, 128, 7, 7)
    features[1] = 3  # 0 and 3 deviate from their mean by 1.5.
    maps = inputs_of(network.last, lambda: network.judge(features))
    assert maps[:, :128].equal(features) and maps[:, 128].eq(1.5).all()
    alike = digits[:1].expand(4, 1, 28, 28).clone().requires_grad_()
    maps = inputs_of(network.last, lambda: network(alike))
    assert maps.shape == (4, 129, 7, 7) and maps[:, 128].abs().max() < 1e-5
    network(alike).sum().backward()
    assert alike.grad.isfinite().all()
    varied = inputs_of(network.last, lambda: network(digits[:4]))[:, 128]
    assert varied.min() == varied.max() > 0.1


def test_feature_matching_is_the_squared_distance_of_the_means(digits):
    real_features, fake_features = torch.zeros(4, 128, 7, 7), torch.zeros(6, 128, 7, 7)
    assert script.feature_matching(real_features, real_features) == 0
    fake_features[:3, 5, 1, 2], fake_features[:, 7, 0, 0] = 4, 3  # Means 2 and 3.
    assert script.feature_matching(real_features, fake_features) == 2**2 + 3**2
    shuffled = torch.randn(6, 128, 7, 7)
    assert script.feature_matching(shuffled, shuffled.flip(0)).item() < 1e-8


def test_feature_matching_leaves_g_alone_if_its_images_are_the_real_ones(digits, constants):
    constants(TRICKS=("feature_matching",))
    gan = script.build_gan(CPU)
    fake_images = gan.generator(script.sample_latents(6, gan.rng))
    before = copy.deepcopy(gan.generator.state_dict())
    args = gan.generator, gan.discriminator, gan.optimizer_g, fake_images
    loss = script.generator_step(*args, fake_images.detach().clone())
    assert all(before[name].equal(value) for name, value in gan.generator.state_dict().items())
    with torch.no_grad():
        expected = script.generator_loss(gan.discriminator(fake_images))
    assert loss.item() == pytest.approx(expected.item()), "the table keeps its meaning"


def test_feature_matching_brings_the_features_together(digits, constants):
    constants(TRICKS=("feature_matching",), LEARNING_RATE=1e-3)
    gan = script.build_gan(CPU)

    def distance():
        fake_images = gan.generator(script.sample_latents(20, gan.rng))
        d = gan.discriminator
        return fake_images, script.feature_matching(d.features(digits), d.features(fake_images))

    before = distance()[1].item()
    for _ in range(15):
        args = gan.generator, gan.discriminator, gan.optimizer_g, distance()[0]
        script.generator_step(*args, digits)
    after = distance()[1].item()
    assert after < 0.6 * before, f"from {before:.1f} to {after:.1f}"


def test_historical_averaging_is_zero_at_the_start_and_pulls_back(digits, constants):
    constants(TRICKS=("historical_averaging",), LEARNING_RATE=0.01)
    gan = script.build_gan(CPU)
    networks = (gan.discriminator, gan.past_d), (gan.generator, gan.past_g)
    for network, past in networks:
        assert script.historical_averaging(network, past) == 0
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(1)
        penalty = script.historical_averaging(network, past).item()
        assert penalty == pytest.approx(parameters(network), rel=1e-4), "each weight is 1 away"
    script.train_step(gan, digits[:8])
    # Adam's first step is LEARNING_RATE long, and all that pulls hard enough is the past. After
    # train_step the past is the new weights, so the first weights come from a second, equal GAN.
    first = script.build_gan(CPU)
    for network, start in (
        (gan.discriminator, first.discriminator),
        (gan.generator, first.generator),
    ):
        moved = [w - s for w, s in zip(network.parameters(), start.parameters())]
        distance = torch.cat([m.flatten() for m in moved])
        assert distance.mean().item() == pytest.approx(0.99, abs=1e-3)


def test_historical_averaging_keeps_the_mean_of_all_weights_so_far(digits, constants):
    constants(TRICKS=("historical_averaging",), LEARNING_RATE=0.01)
    gan = script.build_gan(CPU)
    seen = []
    for _ in range(3):
        script.train_step(gan, digits[:8])
        now = gan.generator.layers[0].weight, gan.discriminator.last[-1].weight
        seen.append([weight.detach().clone() for weight in now])
    past = gan.past_g.module.layers[0].weight, gan.past_d.module.last[-1].weight
    for mean, weights in zip(past, zip(*seen)):
        torch.testing.assert_close(mean, torch.stack(weights).mean(0))


def test_ema_lags_behind_the_generator_that_learns(digits, constants):
    constants(TRICKS=("ema",), LEARNING_RATE=0.01)
    gan = script.build_gan(CPU)
    start = gan.generator.layers[0].weight.clone()
    assert start.equal(gan.player.layers[0].weight)
    expected = start.clone()
    for _ in range(3):
        script.train_step(gan, digits[:8])
        expected = 0.995 * expected + 0.005 * gan.player.layers[0].weight
    average, now = gan.generator.layers[0].weight, gan.player.layers[0].weight
    torch.testing.assert_close(average, expected)
    assert 0 < (average - start).abs().sum() < 0.05 * (now - start).abs().sum()
    learning = {id(weight) for weight in gan.optimizer_g.param_groups[0]["params"]}
    assert learning == {id(weight) for weight in gan.player.parameters()}


def test_ema_is_what_generator_pt_holds(digits, constants, tmp_path):
    constants(TRICKS=("ema",), OUTPUT_DIR=str(tmp_path), LEARNING_RATE=0.01)
    gan = script.build_gan(CPU)
    script.train_step(gan, digits[:8])
    script.save_checkpoint(gan, "digits")
    saved = torch.load(tmp_path / "generator.pt", weights_only=True)
    generator = script.Generator()
    generator.load_state_dict(saved)
    assert saved["layers.0.weight"].equal(gan.generator.layers[0].weight)
    assert not saved["layers.0.weight"].equal(gan.player.layers[0].weight)


def test_ema_has_batchnorm_statistics_of_its_own(digits, constants):
    constants(TRICKS=("ema",), LEARNING_RATE=0.05)
    gan = script.build_gan(CPU)
    for _ in range(20):
        script.train_step(gan, digits)
    latents = script.sample_latents(200, gan.rng)
    with torch.no_grad():
        gan.generator.eval()
        drawn = gan.generator(latents)
        gan.generator.train()
        normalised = gan.generator(latents)
    ratio = drawn.std(0).mean() / normalised.std(0).mean()
    assert 0.8 < ratio < 1.25, ratio


def test_ttur_lets_d_learn_faster(constants):
    def rates():
        gan = script.build_gan(CPU)
        return [optimizer.param_groups[0]["lr"] for optimizer in (gan.optimizer_g, gan.optimizer_d)]

    assert rates() == [2e-4, 2e-4]
    constants(TRICKS=("ttur",))
    assert rates() == [1e-4, 4e-4]


def test_frequency_separation_shows_d_the_image_and_its_detail(digits, constants):
    constants(TRICKS=("frequency_separation",))
    network = script.Discriminator()
    flat = torch.full((2, 1, 28, 28), 0.3)
    seen = inputs_of(network.layers, lambda: network(flat))
    assert seen.shape == (2, 2, 28, 28)
    assert seen[:, :1].equal(flat) and seen[:, 1].abs().max() < 1e-6, "up to the very border"
    dot = torch.full((2, 1, 28, 28), -1.0)
    dot[:, :, 14, 14] = 1  # Its blur is 2 / 25 higher in the 5 x 5 pixels around it.
    detail = inputs_of(network.layers, lambda: network(dot))[0, 1]
    assert detail[14, 14].item() == pytest.approx(2 - 2 / 25)
    assert detail[12, 16].item() == pytest.approx(-2 / 25)
    assert detail[14, 17].item() == pytest.approx(0, abs=1e-6)


# Tricks: together
@pytest.mark.parametrize("networks", NETWORKS, ids="-".join)
def test_all_tricks_together_in_bfloat16(networks, digits, constants):
    constants(GENERATOR=networks[0], DISCRIMINATOR=networks[1], TRICKS=TRICKS, PRECISION="bfloat16")
    gan = script.build_gan(CPU)
    for count in (8, 2):
        assert script.train_step(gan, digits[:count]).isfinite().all()
    assert all(weight.dtype == torch.float32 for weight in gan.discriminator.parameters())
    assert gan.discriminator(digits[:2]).dtype == torch.float32


@pytest.mark.parametrize(
    "tricks, networks",
    [((), NETWORKS[1]), *(((t,), NETWORKS[0]) for t in TRICKS), *((TRICKS, n) for n in NETWORKS)],
    ids=lambda value: "+".join(value) if len(value) < 8 else "all",
)
def test_a_resumed_run_is_exactly_the_run_that_was_not_stopped(
    tricks, networks, digits, constants, tmp_path
):
    constants(GENERATOR=networks[0], DISCRIMINATOR=networks[1], TRICKS=tricks, BATCH_SIZE=8)
    constants(OUTPUT_DIR=str(tmp_path))
    whole = script.build_gan(CPU)
    script.train_epoch(whole, digits)
    whole.history.append({"epoch": 1})
    script.save_checkpoint(whole, "digits")
    saved = state(whole)
    script.train_epoch(whole, digits)

    resumed = script.build_gan(CPU)
    assert differences(saved, state(resumed)), "loading must have something to do"
    script.load_checkpoint(resumed, "digits")
    assert differences(saved, state(resumed)) == []
    script.train_epoch(resumed, digits)
    assert differences(state(whole), state(resumed)) == []
    assert resumed.history == [{"epoch": 1}]


def test_a_checkpoint_of_other_tricks_is_refused(digits, constants, tmp_path):
    constants(OUTPUT_DIR=str(tmp_path))
    script.save_checkpoint(script.build_gan(CPU), "digits")
    constants(TRICKS=("ema",))
    with pytest.raises(SystemExit, match=r"TRICKS = \(\), and now it is \('ema',\)"):
        script.load_checkpoint(script.build_gan(CPU), "digits")


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
    gan = SimpleNamespace(history=5 * [{"d_real": d_real, "d_fake": d_fake}], frames=[frame])
    warnings = script.diagnose(gan, digits)
    assert any("D has won" in warning for warning in warnings) == won
    gan.frames.append(frame[:1].expand(20, 28, 28))
    assert any("all alike" in warning for warning in script.diagnose(gan, digits))


def test_a_first_checkpoint_that_cannot_be_written_is_the_message(
    constants, digits, tmp_path, monkeypatch
):
    def full(*_):
        raise SystemExit("No space left")

    constants(OUTPUT_DIR=str(tmp_path), EPOCHS=1)
    monkeypatch.setattr(script, "load_images", lambda: (digits, None, "digits"))
    monkeypatch.setattr(script, "save_checkpoint", full)
    with pytest.raises(SystemExit, match="No space left"):
        script.main()


@pytest.fixture
def studies(constants, tmp_path, monkeypatch):
    """A function that runs save_studies and returns what it draws: two calls of draw_rows."""
    constants(OUTPUT_DIR=str(tmp_path))
    calls, draw_rows = [], script.draw_rows

    def record(*args):
        calls.append(args)
        return draw_rows(*args)

    monkeypatch.setattr(script, "draw_rows", record)

    def run(gan, images):
        gan.frames.append(script.generate(gan.generator, gan.fixed_latents))
        script.save_checkpoint(gan, "digits")
        with torch.no_grad():  # As if Ctrl-C had come in the middle of the next epoch.
            gan.generator.layers[0].weight.add_(1)
        script.save_studies(gan, images, "digits")
        names = {path.name for path in Path(tmp_path).glob("*.png")}
        assert names == {"interpolation.png", "neighbours.png"}
        return calls

    return run


def test_walks_go_from_sample_to_sample_through_usual_latents(digits, studies, monkeypatch):
    gan = script.build_gan(CPU)
    script.train_step(gan, digits)
    drawn, generate = [], script.generate
    monkeypatch.setattr(script, "generate", lambda g, z: drawn.append(z) or generate(g, z))
    with Placeless(script) as made:
        walks, title, ends, steps = studies(gan, digits)[0]
    assert made.found == [], "where the latents are"
    assert title == "Walks between latents: GAN on digits, after epoch 1"
    assert ends == ["A1 to A2", "A3 to A4", "A5 to A6", "A7 to A8",
                    "B1 to B2", "B3 to B4", "B5 to B6", "B7 to B8"]  # fmt: skip
    assert list(steps) == list(range(1, 11))
    assert walks.shape == (8, 10, 28, 28) and walks.dtype == torch.uint8
    frame = gan.frames[-1].int()
    assert (walks[:, 0].int() - frame[0:16:2]).abs().max() <= 1, "starts with A1, A3, ..."
    assert (walks[:, 9].int() - frame[1:16:2]).abs().max() <= 1, "ends with A2, A4, ..."
    latents = drawn[-1].view(8, 10, -1)
    lengths = latents.square().mean((0, 2)).sqrt()
    assert lengths == pytest.approx([1] * 10, abs=0.1), "as long as random latents"
    jumps = (latents[:, 1:] - latents[:, :-1]).norm(dim=2)
    assert jumps.max() < 1.3 * jumps.min(), "in equal steps"


def test_neighbours_are_the_nearest_training_images_nearest_first(digits, studies):
    gan = script.build_gan(CPU)
    script.train_step(gan, digits)
    samples = script.generate(gan.generator, gan.fixed_latents)[:8].unsqueeze(1) / 127.5 - 1
    images = torch.full((10_008, 1, 28, 28), -1.0)  # More than are compared at once.
    images[:20] = digits
    for place, offset in ((10_000, 0.0), (100, 0.1), (5_000, 0.2), (50, 0.3), (10_005, 0.4)):
        images[place] = samples[3] + offset
    rows, title, names, columns = studies(gan, images)[1]
    assert title == "Nearest training images: GAN on digits, after epoch 1"
    assert names == ["A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8"]
    assert columns == ["sample", "nearest", "2nd", "3rd", "4th", "5th"]
    assert rows.shape == (8, 6, 28, 28) and rows.dtype == torch.uint8
    assert rows[:, 0].equal(gan.frames[-1][:8])
    grey = [(rows[3, k].float() - rows[3, 0].float()).mean().item() for k in range(1, 6)]
    assert grey == pytest.approx([0, 12.75, 25.5, 38.25, 51], abs=0.5)


def test_a_whole_run_writes_the_files_that_the_docstring_names(digits, constants, tmp_path, capsys):
    constants(TRICKS=TRICKS, OUTPUT_DIR=str(tmp_path), EPOCHS=1, SAMPLE_EVERY=1, BATCH_SIZE=8)
    constants(load_images=lambda: (digits, None, "digits"))
    script.main()
    written = {path.name for path in tmp_path.iterdir()}
    assert {path.name for path in script.written_files()} == written
    assert written == {
        "samples_epoch_001.png", "training.gif", "interpolation.png", "neighbours.png",
        "losses.png", "history.csv", "generator.pt", "checkpoint.pt",
    }  # fmt: skip
    assert all(name.replace("_001", "_010") in script.__doc__ for name in written)
    assert f"Tricks    {', '.join(TRICKS)}\n" in capsys.readouterr().out
