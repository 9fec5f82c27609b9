"""How a GAN is tested. If you read one of the test files, read this one.

No test can say whether a GAN's images are good: people look at them, or a judge does, as in the
last test here. But a GAN with a mistake in it still runs, and its losses still move, so the mistake
is found late. Therefore each test asks a question whose answer is known:

    Networks       Do shapes and ranges fit, however large the weights are?
    Losses, R1     Do they have the values that one works out by hand?
    Steps          Does each step change its own network, and nothing else?
    Learning       Does D tell real from fake, does G fool D, and does a whole GAN learn to draw
                   the one picture that it is shown?
    Epochs         Is each image shown once, and is a run the same for the same seed?
    Device         Does a step also work where nothing lies on the CPU?
    Real digits    Are there ten different digits after as many steps as README says?

The tests run for both scripts that train one GAN, and where it makes sense for all three. To see
what a test is good for, break a script on purpose: turn a sign round, or leave out detach().
"""

import copy
import importlib.util
import itertools
import math
import sys
from collections import Counter
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from conftest import ROOT, gpu, needs_gpu, needs_mnist, same, set_constants, weights
from torch import nn

# On the real MNIST, the images of each script's default settings (in compare_losses.py those of
# BCE-R1) show all ten digits after as many steps of G. README names the same numbers. Three seeds
# needed 1,500 to 1,700, 800 to 900, and 700 to 800.
STEPS_TO_TEN_DIGITS = {"train_gan": 3000, "train_dcgan_variant": 1800, "compare_losses": 1500}


def build(script, device="cpu"):
    """A GAN of any script before its first step. In compare_losses.py it is the one of BCE-R1."""
    if script.__name__.endswith("compare_losses"):
        return script.build_gan(torch.device(device), "BCE-R1", script.SEEDS[0])
    return script.build_gan(torch.device(device))


def train(script, gan, images, rng, steps=1):
    """Steps of any script, each on these same images. Returns the four numbers of the last one."""
    is_comparison = script.__name__ == "compare_losses"
    for _ in range(steps):
        row = script.train_step(gan, itertools.repeat(images) if is_comparison else images, rng)
    return row


def resumed(script, gan):
    """A new GAN with the state that a checkpoint of this one would keep."""
    new = build(script)
    for name, part in vars(gan).items():
        if hasattr(part, "state_dict"):
            getattr(new, name).load_state_dict(copy.deepcopy(part.state_dict()))
        else:
            setattr(new, name, part)
    return new


def fakes(script, gan, count, rng):
    return gan.generator(script.sample_latents(count, rng))


def probability(logits):
    return logits.detach().sigmoid().mean().item()


def g_step(script, gan, fake_images, real_images):
    """A step of G. That of train_dcgan_variant.py takes real images as well."""
    several = [real_images] if script.__name__ == "train_dcgan_variant" else []
    networks = gan.generator, gan.discriminator
    return script.generator_step(*networks, gan.optimizer_g, fake_images, *several)


# Networks
@pytest.mark.parametrize("count", [1, 2, 128])
def test_networks_keep_the_shapes_and_the_range_of_images(script, rng, count):
    gan = build(script)
    gan.generator.train(count > 1), gan.discriminator.train(count > 1)  # BatchNorm needs two.
    images = fakes(script, gan, count, rng)
    logits = gan.discriminator(images)
    assert images.shape == (count, 1, 28, 28) and logits.shape == (count, 1)
    assert images.dtype == logits.dtype == torch.float32 and images.abs().max() <= 1


def test_with_large_weights_images_stay_in_range_and_logits_do_not(script, images, rng):
    """G needs a Tanh at its end, and D no Sigmoid. Fresh weights are too small to show it."""
    gan = build(script)
    with torch.no_grad():
        for weight in (*gan.generator.parameters(), *gan.discriminator.parameters()):
            weight.mul_(50)
    drawn = fakes(script, gan, 16, rng)
    assert drawn.min() == -1 and drawn.max() == 1, f"{drawn.min()} to {drawn.max()}"
    logits = gan.discriminator(torch.cat([images, -images, 0 * images]))
    assert logits.min() < -1 or logits.max() > 1


def test_latents_are_standard_normal_and_new_each_time(script, rng, monkeypatch):
    first, second = script.sample_latents(2000, rng), script.sample_latents(2000, rng)
    assert first.shape == (2000, script.LATENT_DIM) and not first.equal(second)
    assert abs(first.mean().item()) < 0.01 and abs(first.std().item() - 1) < 0.01
    monkeypatch.setattr(script, "LATENT_DIM", 7)
    assert script.Generator().eval()(script.sample_latents(3, rng)).shape == (3, 1, 28, 28)


# Losses
def test_losses_have_the_values_worked_out_by_hand(gan_script):
    zero = torch.zeros(4, 1)
    assert gan_script.discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert gan_script.generator_loss(zero).item() == pytest.approx(math.log(2))
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [3.0]])
    # -log D(x) = log(1 + e^-logit), and -log(1 - D(G(z))) = log(1 + e^logit).
    of_real = (math.log1p(math.exp(-2)) + math.log(2)) / 2
    of_fake = (math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 2
    assert gan_script.discriminator_loss(real, fake).item() == pytest.approx(of_real + of_fake)
    for_g = (math.log1p(math.exp(1)) + math.log1p(math.exp(-3))) / 2
    assert gan_script.generator_loss(fake).item() == pytest.approx(for_g)


def test_losses_stay_finite_for_extreme_logits(gan_script):
    """The sigmoid of 200 rounds to 1, and log(1 - 1) would be infinite."""
    extreme = torch.tensor([[200.0], [-200.0]])
    assert gan_script.discriminator_loss(extreme, extreme).item() == pytest.approx(200)
    assert gan_script.generator_loss(extreme).item() == pytest.approx(100)


# Steps
def test_discriminator_step_changes_every_weight_of_d_and_none_of_g(gan_script, gan, images, rng):
    """Without detach(), it would leave gradients in G."""
    fake_images = fakes(gan_script, gan, len(images), rng)
    before_g, before_d = weights(gan.generator), weights(gan.discriminator)
    gan_script.discriminator_step(gan.discriminator, gan.optimizer_d, images, fake_images)
    assert same(before_g, weights(gan.generator))
    assert all(weight.grad is None for weight in gan.generator.parameters())
    changed = [not before_d[n].equal(w) for n, w in gan.discriminator.named_parameters()]
    assert all(changed), changed


def test_generator_step_changes_every_weight_of_g_and_none_of_d(gan_script, gan, images, rng):
    """Its gradient passes through D. There, it must neither move nor leave anything."""
    before_g, before_d = weights(gan.generator), weights(gan.discriminator)
    g_step(gan_script, gan, fakes(gan_script, gan, 16, rng), images)
    for name, weight in gan.discriminator.named_parameters():
        assert before_d[name].equal(weight) and weight.grad is None, name
    changed = [not before_g[n].equal(w) for n, w in gan.generator.named_parameters()]
    assert all(changed), changed


def test_gradients_of_one_step_do_not_add_up_with_those_of_the_next(gan_script, gan, images, rng):
    """Without zero_grad(), the second step would have twice the gradient. (The rate is 0 here.)"""
    for optimizer in (gan.optimizer_d, gan.optimizer_g):
        optimizer.param_groups[0]["lr"] = 0.0
    latents = gan_script.sample_latents(len(images), rng)
    seen = []
    for _ in range(2):
        fake_images = gan.generator(latents)
        gan_script.discriminator_step(gan.discriminator, gan.optimizer_d, images, fake_images)
        g_step(gan_script, gan, fake_images, images)
        networks = gan.discriminator, gan.generator
        seen.append([w.grad.clone() for network in networks for w in network.parameters()])
    for first, second in zip(*seen):
        torch.testing.assert_close(first, second)


def test_train_step_returns_the_four_numbers_of_its_batch(gan_script, gan, images, rng):
    generator, discriminator = copy.deepcopy((gan.generator, gan.discriminator))
    loss_d, loss_g, d_real, d_fake = gan_script.train_step(gan, images, rng).tolist()
    # The same worked out slowly: what D said before its step, and what it says after it.
    rng.manual_seed(rng.initial_seed())
    fake_images = generator(gan_script.sample_latents(len(images), rng)).detach()
    real_logits, fake_logits = discriminator(images), discriminator(fake_images)
    expected = gan_script.discriminator_loss(real_logits, fake_logits).item()
    assert loss_d == pytest.approx(expected, rel=1e-4)
    assert d_real == pytest.approx(probability(real_logits), rel=1e-4)
    assert d_fake == pytest.approx(probability(fake_logits), rel=1e-4)
    after = gan_script.generator_loss(gan.discriminator(fake_images)).item()
    assert loss_g == pytest.approx(after, rel=1e-2)
    before = gan_script.generator_loss(fake_logits).item()
    assert abs(loss_g - after) < abs(loss_g - before), "G learns from the D that has just learned"


def test_each_optimizer_holds_its_own_network_and_the_constants(gan_script, monkeypatch):
    set_constants(monkeypatch, gan_script, {"LEARNING_RATE": 0.003, "BETAS": (0.25, 0.9)})
    gan = build(gan_script)
    pairs = (gan.optimizer_g, gan.generator), (gan.optimizer_d, gan.discriminator)
    for optimizer, network in pairs:
        (group,) = optimizer.param_groups
        assert isinstance(optimizer, torch.optim.Adam)
        assert group["lr"] == 0.003 and group["betas"] == (0.25, 0.9)
        assert [id(w) for w in group["params"]] == [id(w) for w in network.parameters()]


# Learning
def test_15_discriminator_steps_tell_real_from_fake(gan_script, gan, images, rng):
    for _ in range(15):
        fake_images = fakes(gan_script, gan, len(images), rng)
        loss, d_real, d_fake = gan_script.discriminator_step(
            gan.discriminator, gan.optimizer_d, images, fake_images
        )
    assert d_real - d_fake > 0.3, f"D(x) = {d_real:.3f}, D(G(z)) = {d_fake:.3f}"
    assert loss < 2 * math.log(2), loss


def test_15_generator_steps_make_the_discriminator_believe(gan_script, gan, images, rng):
    before = probability(gan.discriminator(fakes(gan_script, gan, 64, rng)))
    for _ in range(15):
        g_step(gan_script, gan, fakes(gan_script, gan, 64, rng), images)
    after = probability(gan.discriminator(fakes(gan_script, gan, 64, rng)))
    assert after > before + 0.01, f"D(G(z)) went from {before:.4f} to {after:.4f}"


def test_a_gan_learns_to_draw_the_one_picture_that_it_is_shown(script, rng):
    """All parts together: a GAN that cannot learn one picture cannot learn 60,000."""
    gan = build(script)
    picture = torch.full((1, 1, 28, 28), -1.0)
    picture[:, :, 8:20, 8:20] = 1

    @torch.no_grad()
    def distance():
        return (fakes(script, gan, 64, rng) - picture).abs().mean().item()

    before = distance()
    train(script, gan, picture.expand(16, 1, 28, 28), rng, steps=30)
    after = distance()
    assert after < 0.4 * before, f"the distance went from {before:.3f} to {after:.3f}"


# R1
def test_r1_of_a_linear_discriminator_is_the_squared_length_of_its_weights(gan_script, monkeypatch):
    monkeypatch.setattr(gan_script, "R1", 0.6)
    linear = nn.Linear(784, 1)
    real_images = torch.randn(5, 1, 28, 28)
    penalty = gan_script.r1_penalty(nn.Sequential(nn.Flatten(), linear), real_images)
    assert penalty.item() == pytest.approx(0.3 * linear.weight.square().sum().item(), rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, 0.6 * linear.weight.detach())
    assert not real_images.requires_grad, "the images of the dataset stay as they are"


def test_r1_is_a_mean_over_the_images(gan_script, monkeypatch):
    monkeypatch.setattr(gan_script, "R1", 1.0)
    real_images = torch.stack([torch.full((1, 28, 28), value) for value in (0.0, 0.5, 1.0)])
    # The gradient of half the squared length of x is x.
    penalty = gan_script.r1_penalty(lambda x: x.square().sum((2, 3)) / 2, real_images)
    assert penalty.item() == pytest.approx(784 * (0 + 0.25 + 1) / 3 / 2)


def test_r1_comes_in_every_8th_step_8_times_as_strong(gan_script, gan, images, rng, monkeypatch):
    step, strengths = gan_script.discriminator_step, []

    def record(*arguments):
        strengths.append(arguments[4])
        return step(*arguments)

    monkeypatch.setattr(gan_script, "discriminator_step", record)
    train(gan_script, gan, images[:2], rng, 17)
    assert strengths == [8, 0, 0, 0, 0, 0, 0, 0] * 2 + [8]
    assert gan.step == 17
    monkeypatch.setattr(gan_script, "R1", 0)
    monkeypatch.setattr(gan_script, "r1_penalty", lambda *arguments: pytest.fail("it is off"))
    train(gan_script, build(gan_script), images[:2], rng)
    assert strengths[17:] == [0]


def test_the_penalty_teaches_d_alone_and_is_not_in_its_loss(gan_script, gan, images, rng):
    fake_images, rows, gradients = fakes(gan_script, gan, len(images), rng), [], []
    gan.optimizer_d.param_groups[0]["lr"] = 0.0
    for strength in (0, 8):
        row = gan_script.discriminator_step(
            gan.discriminator, gan.optimizer_d, images, fake_images, strength
        )
        rows.append(torch.stack(row))
        gradients.append([w.grad.clone() for w in gan.discriminator.parameters()])
    assert all(weight.grad is None for weight in gan.generator.parameters())
    torch.testing.assert_close(*rows)
    gan.optimizer_d.zero_grad()
    (8 * gan_script.r1_penalty(gan.discriminator, images)).backward()
    reached = 0
    for weight, without, with_penalty in zip(gan.discriminator.parameters(), *gradients):
        of_penalty = torch.zeros(1) if weight.grad is None else weight.grad  # As the last bias.
        torch.testing.assert_close(with_penalty, without + of_penalty, atol=1e-5, rtol=1e-3)
        reached += of_penalty.abs().max() > 1e-6
    assert reached >= 2, "the penalty reaches the weights of D"


# The average of G's weights
def test_the_average_over_three_steps_is_as_worked_out_by_hand(script, monkeypatch):
    """Also with BatchNorm in G, whose statistics are copied: without them, pictures are spoilt."""
    monkeypatch.setattr(script, "AVERAGE", 4)
    generator, average = (nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)) for _ in range(2))
    # Shares 4/4, 4/5 and 4/6: 1, then 1 + 0.8 * (6 - 1) = 5, then 5 + (2 - 5) * 2/3 = 3.
    for step, (value, expected) in enumerate([(1, 1), (6, 5), (2, 3)]):
        for tensor in generator.state_dict().values():
            tensor.fill_(value)
        script.update_average(average, generator, step)
        assert [mean.item() for mean in average.parameters()] == pytest.approx([expected] * 4)
        assert [buffer.item() for buffer in average.buffers()] == [value] * 3
        assert all(weight.item() == value for weight in generator.parameters()), "G itself stays"


def test_the_average_starts_as_a_copy_of_g_and_then_follows_it(script, images, rng):
    gan = build(script)
    train(script, gan, images, rng)
    pairs = list(zip(gan.average.parameters(), gan.generator.parameters()))
    assert all(mean.equal(weight) and mean is not weight for mean, weight in pairs)
    train(script, gan, images, rng)
    assert not any(mean.equal(weight) for mean, weight in pairs)
    held = {id(w) for group in gan.optimizer_g.param_groups for w in group["params"]}
    assert not held & {id(mean) for mean in gan.average.parameters()}, "no optimizer moves it"


def test_without_an_average_g_itself_is_shown(script, images, rng, monkeypatch):
    monkeypatch.setattr(script, "AVERAGE", 0)
    gan = build(script)
    train(script, gan, images, rng, 2)
    assert gan.average is gan.generator


# Epochs and random numbers
def test_an_epoch_shows_every_image_once_in_a_new_order(gan_script, tiny, images, monkeypatch):
    shown, told = [], []

    def record(gan, batch, rng):
        shown.append(batch)
        return torch.tensor([1.0, 2.0, 3.0, 4.0]) * len(shown)

    tiny(gan_script)
    monkeypatch.setattr(gan_script, "train_step", record)
    monkeypatch.setattr(gan_script, "show_progress", lambda *place: told.append(place))
    means = gan_script.train_epoch(None, images, 1)
    assert [len(batch) for batch in shown] == [20, 20, 8] and told == [(1, 3), (2, 3), (3, 3)]
    assert means == pytest.approx([2, 4, 6, 8]), "the mean of the three batches"
    first = torch.cat(shown)
    order = torch.randperm(48, generator=gan_script.random_stream("epoch 1", gan_script.SEED))
    assert first.equal(images[order]), "in the order that the epoch's own stream draws"
    shown.clear()
    gan_script.train_epoch(None, images, 2)
    assert not torch.cat(shown).equal(first), "each epoch has an order of its own"


def test_a_run_is_the_same_for_the_same_seed_and_differs_for_another(
    script, tiny, images, monkeypatch
):
    def run(seed):
        set_constants(monkeypatch, script, {"SEED": seed, "SEEDS": [seed]})
        gan = build(tiny(script))
        script.train_epoch(gan, images, 1)
        return weights(gan.generator), weights(gan.discriminator)

    first, again, other = run(3), run(3), run(4)
    assert same(first[0], again[0]) and same(first[1], again[1])
    assert not same(first[0], other[0]) and not same(first[1], other[1])


def test_a_resumed_epoch_is_bit_for_bit_that_of_an_unbroken_run_also_with_dropout(
    script, tiny, images, monkeypatch
):
    """Dropout draws from torch's own stream, which no checkpoint keeps: each epoch starts it."""
    plain = tiny(script).Generator

    def with_dropout():
        network = plain()
        network.layers.insert(1, nn.Dropout())
        return network

    monkeypatch.setattr(script, "Generator", with_dropout)
    whole = build(script)
    script.train_epoch(whole, images, 1)
    second = resumed(script, whole)
    means = script.train_epoch(whole, images, 2)
    torch.rand(99)  # Whatever else the process did before it resumed.
    assert script.train_epoch(second, images, 2) == means
    for name in ("generator", "discriminator", "average"):
        assert same(weights(getattr(whole, name)), weights(getattr(second, name))), name


def test_no_two_uses_and_no_two_seeds_share_random_numbers(script, tiny, monkeypatch):
    make, used = script.random_stream, []
    monkeypatch.setattr(script, "random_stream", lambda *use: used.append(use) or make(*use))
    for name in ("draw_grid", "draw_curves", "draw_comparison", "write"):
        monkeypatch.setattr(script, name, MagicMock(), raising=False)  # No pictures, no files.
    set_constants(monkeypatch, script, {"EPOCHS": 2, "LOSSES": ["BCE"], "SEED": 5, "SEEDS": [5]})
    tiny(script).main()
    times = Counter(use for use, seed in used)
    assert {seed for _, seed in used} == {5}
    once = [use for use, count in times.items() if count == 1]
    assert used[0][0] in once, "the first weights share their stream with nothing"
    assert len(once) >= 5, "and each of the two epochs has two or more of its own"
    assert len(times) >= 7, "besides, there are those of pictures and files, which stay the same"
    seeds = [make(use, seed).initial_seed() for use in times for seed in range(100)]
    assert len({*seeds, *range(100)}) == len(seeds) + 100
    assert make("weights", 0).initial_seed() == 113_014_463, "and that in any process"


# Pictures
def test_pictures_are_bytes_and_drawn_in_eval_mode(script):
    images = torch.tensor([-1.0, 0.0, 1.0]).repeat(900).view(2700, 1, 1, 1).expand(-1, 1, 28, 28)
    network = nn.Dropout()  # In eval mode it leaves the images as they are.
    drawn = script.generate(network, images)
    assert drawn.shape == (2700, 28, 28) and drawn.dtype == torch.uint8
    assert drawn[:, 0, 0].tolist() == [0, 128, 255] * 900, "black, grey and white"
    assert network.training, "the training goes on as before"


@pytest.mark.parametrize("d_real, d_fake, won", [(0.96, 0.04, 1), (0.94, 0, 0), (1, 0.06, 0)])
def test_a_warning_comes_where_d_has_won_or_pictures_are_alike_for_three_epochs(
    gan_script, images, d_real, d_fake, won
):
    bad, calm = {"D(x)": d_real, "D(G(z))": d_fake}, {"D(x)": 0.6, "D(G(z))": 0.4}
    varied = images[:, 0].add(1).mul(127.5).byte()

    def warnings(*history, frame=varied):
        gan = SimpleNamespace(history=list(history), frames=[frame])
        return len(gan_script.diagnose(gan, images))

    assert warnings(calm, bad, bad, bad) == won
    assert warnings(bad, bad) == warnings(bad, calm, bad, bad) == warnings(bad, bad, calm) == 0
    alike = varied[:1].expand(48, 28, 28)
    assert warnings(calm, calm, frame=alike) == 0 and warnings(*[calm] * 3, frame=alike) == 1


# Device
def test_a_step_works_where_nothing_lies_on_the_cpu(script, images, rng, meta):
    """So it will work on a GPU: here it is tried without one."""
    gan = build(script, meta)
    row = train(script, gan, images.to(meta), rng, 2)
    assert row.is_meta and row.shape == (4,)
    assert all(weight.is_meta for weight in gan.average.parameters())


@needs_gpu
def test_a_step_on_a_gpu_is_that_on_the_cpu(script, images, rng):
    rows = []
    for device in ("cpu", gpu):
        gan, rng = build(script, device), rng.manual_seed(7)
        rows.append(train(script, gan, images.to(device), rng).cpu())
    torch.testing.assert_close(*rows, atol=1e-2, rtol=1e-2)
    assert train(script, gan, images.to(gpu), rng, 9).isfinite().all()


@needs_gpu
def test_a_run_on_a_gpu_can_be_resumed(script, tiny, tmp_path, monkeypatch):
    for resume, epochs in ((False, 1), (True, 2)):
        constants = {"DEVICE": gpu, "RESUME": resume, "EPOCHS": epochs, "LOSSES": ["BCE-R1"]}
        set_constants(monkeypatch, tiny(script), constants)
        script.main()
    assert len(list((tmp_path / "out" / "run_2").iterdir())) > 5


def test_auto_takes_the_cpu_if_a_first_operation_on_the_gpu_fails(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "DEVICE", "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", MagicMock(side_effect=RuntimeError("too old\nUpdate it.")))
    assert script.find_device() == torch.device("cpu")
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("device", ["cuda:77", "toaster", "meta"])
def test_a_named_device_that_fails_is_an_error_of_one_line(script, monkeypatch, device):
    monkeypatch.setattr(script, "DEVICE", device)
    monkeypatch.setattr(script, "load_images", lambda train=True: pytest.fail("too late"))
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert repr(device) in str(stop.value) and "\n" not in str(stop.value)


# Real digits
def with_its_own_constants(name):
    """A script as it stands in its file: here, no constant is the one that tests usually set."""
    spec = importlib.util.spec_from_file_location(f"own_{name}", ROOT / f"{name}.py")
    sys.modules[spec.name] = script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.DATA_DIR, script.DEVICE = str(ROOT / "data"), "cpu"
    return script


@pytest.fixture(scope="module")
def mnist_and_judge():
    """The 60,000 images of MNIST, and the judge of compare_losses.py, which has learnt them."""
    script = with_its_own_constants("compare_losses")
    images, labels, _ = script.load_images()
    judge = script.train_judge(images, labels)
    test_images, test_labels, _ = script.load_images(train=False)
    judge.real_features, probabilities = script.look_at(judge, test_images)
    assert (probabilities.argmax(1) == test_labels).double().mean() > 0.98, "it can read"
    return images, judge, script.measure


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize("name", STEPS_TO_TEN_DIGITS)
def test_a_default_run_draws_all_ten_digits_within_as_many_steps(name, mnist_and_judge):
    images, judge, measure = mnist_and_judge
    script = with_its_own_constants(name)
    step = script.train_step

    def count(gan, *rest):
        if gan.step == STEPS_TO_TEN_DIGITS[name]:
            raise StopIteration
        return step(gan, *rest)

    script.train_step, device = count, script.find_device()
    gan = build(script, device)
    with pytest.raises(StopIteration):
        for epoch in range(1, script.EPOCHS + 1):
            script.train_epoch(gan, images, epoch)
    if hasattr(script, "renew_statistics"):
        script.renew_statistics(gan.average, 0, device)
    latents = script.sample_latents(10_000, script.random_stream("10,000 images", 0))
    figures = measure(judge, script.generate(gan.average, latents).unsqueeze(1) / 127.5 - 1)
    assert figures["digits"] == 10, figures
