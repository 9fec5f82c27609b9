"""What one step, one epoch and a short training do, for each script that trains one GAN."""

import copy
import math
import re

import pytest
import torch
from conftest import ROOT, SCRIPTS, same, weights
from torch import nn


def probability(logits):
    return logits.detach().sigmoid().mean().item()


def fakes(script, gan, count):
    return gan.generator(script.sample_latents(count, gan.latents_rng))


@pytest.mark.parametrize("count", [2, 5, 128])
def test_networks_keep_the_shapes_and_the_range_of_images(gan_script, gan, count):
    images = fakes(gan_script, gan, count)
    logits = gan.discriminator(images)
    assert images.shape == (count, 1, 28, 28) and images.dtype == torch.float32
    assert logits.shape == (count, 1) and logits.dtype == torch.float32
    assert images.abs().max() <= 1


def test_one_image_alone_can_be_drawn_and_judged(gan_script, gan):
    gan.generator.eval(), gan.discriminator.eval()
    assert gan.discriminator(fakes(gan_script, gan, 1)).shape == (1, 1)


def test_images_stay_in_range_however_large_the_weights_are(gan_script, gan):
    with torch.no_grad():
        for weight in gan.generator.parameters():
            weight.mul_(50)
    images = fakes(gan_script, gan, 16)
    assert images.min() == -1 and images.max() == 1, f"{images.min()} to {images.max()}"


def test_discriminator_gives_logits_not_probabilities(gan_script, gan, images):
    with torch.no_grad():
        for weight in gan.discriminator.parameters():
            weight.mul_(50)
    logits = gan.discriminator(torch.cat([images, -images, 0 * images]))
    assert logits.min() < -1 or logits.max() > 1


def test_losses_have_the_values_worked_out_by_hand(gan_script):
    zero = torch.zeros(4, 1)
    assert gan_script.discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert gan_script.generator_loss(zero).item() == pytest.approx(math.log(2))
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [3.0]])
    # -log D(x) = log(1 + e^-logit), -log(1 - D(G(z))) = log(1 + e^logit).
    of_real = (math.log1p(math.exp(-2)) + math.log(2)) / 2
    of_fake = (math.log1p(math.exp(-1)) + math.log1p(math.exp(3))) / 2
    assert gan_script.discriminator_loss(real, fake).item() == pytest.approx(of_real + of_fake)
    for_g = (math.log1p(math.exp(1)) + math.log1p(math.exp(-3))) / 2
    assert gan_script.generator_loss(fake).item() == pytest.approx(for_g)


def test_losses_stay_finite_for_extreme_logits(gan_script):
    extreme = torch.tensor([[200.0], [-200.0]])
    assert gan_script.discriminator_loss(extreme, extreme).item() == pytest.approx(200)
    assert gan_script.generator_loss(extreme).item() == pytest.approx(100)


def test_latents_are_standard_normal_and_new_each_time(gan_script, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    first, second = gan_script.sample_latents(2000, rng), gan_script.sample_latents(2000, rng)
    assert first.shape == (2000, gan_script.LATENT_DIM)
    assert not first.equal(second)
    assert abs(first.mean().item()) < 0.01 and abs(first.std().item() - 1) < 0.01
    monkeypatch.setattr(gan_script, "LATENT_DIM", 7)
    assert gan_script.sample_latents(3, rng).shape == (3, 7)
    assert gan_script.Generator().eval()(gan_script.sample_latents(3, rng)).shape == (3, 1, 28, 28)


def test_discriminator_step_changes_the_discriminator_and_leaves_the_generator_alone(
    gan_script, gan, images
):
    fake_images = fakes(gan_script, gan, len(images))
    before_g, before_d = weights(gan.generator), weights(gan.discriminator)
    gan_script.discriminator_step(gan.discriminator, gan.optimizer_d, images, fake_images)
    assert same(before_g, weights(gan.generator))
    assert all(weight.grad is None for weight in gan.generator.parameters())
    changed = [not before_d[n].equal(w) for n, w in gan.discriminator.named_parameters()]
    assert all(changed), changed


def test_generator_step_changes_the_generator_and_no_weight_of_the_discriminator(gan_script, gan):
    fake_images = fakes(gan_script, gan, 16)
    before_g, before_d = weights(gan.generator), dict(gan.discriminator.named_parameters())
    before_d = {name: weight.detach().clone() for name, weight in before_d.items()}
    gan_script.generator_step(gan.generator, gan.discriminator, gan.optimizer_g, fake_images)
    for name, weight in gan.discriminator.named_parameters():
        assert before_d[name].equal(weight), name
        assert weight.grad is None, name
    changed = [not before_g[n].equal(w) for n, w in gan.generator.named_parameters()]
    assert all(changed), changed


def test_gradients_of_one_step_do_not_add_up_with_those_of_the_next(gan_script, gan, images):
    for optimizer in (gan.optimizer_d, gan.optimizer_g):
        optimizer.param_groups[0]["lr"] = 0.0
    latents = gan_script.sample_latents(len(images), gan.latents_rng)
    seen = []
    for _ in range(2):
        fake_images = gan.generator(latents)
        gan_script.discriminator_step(gan.discriminator, gan.optimizer_d, images, fake_images)
        gan_script.generator_step(gan.generator, gan.discriminator, gan.optimizer_g, fake_images)
        networks = (gan.discriminator, gan.generator)
        seen.append([w.grad.clone() for network in networks for w in network.parameters()])
    for first, second in zip(*seen):
        torch.testing.assert_close(first, second)


def test_15_discriminator_steps_tell_real_from_fake(gan_script, gan, images):
    for _ in range(15):
        fake_images = fakes(gan_script, gan, len(images))
        step = gan_script.discriminator_step(
            gan.discriminator, gan.optimizer_d, images, fake_images
        )
    loss, d_real, d_fake = (value.item() for value in step)
    assert d_real - d_fake > 0.3, f"D(x) = {d_real:.3f}, D(G(z)) = {d_fake:.3f}"
    assert loss < 2 * math.log(2), loss


def test_15_generator_steps_make_the_discriminator_believe(gan_script, gan):
    before = probability(gan.discriminator(fakes(gan_script, gan, 64)))
    for _ in range(15):
        fake_images = fakes(gan_script, gan, 64)
        gan_script.generator_step(gan.generator, gan.discriminator, gan.optimizer_g, fake_images)
    after = probability(gan.discriminator(fakes(gan_script, gan, 64)))
    assert after > before + 0.01, f"D(G(z)) went from {before:.4f} to {after:.4f}"


def test_train_step_returns_the_losses_and_probabilities_of_this_batch(gan_script, gan, images):
    parts = {name: getattr(gan, name) for name in ("generator", "discriminator")}
    twin, rng = copy.deepcopy(parts), torch.Generator()
    rng.set_state(gan.latents_rng.get_state())
    loss_d, loss_g, d_real, d_fake = gan_script.train_step(gan, images).tolist()
    # The same worked out slowly: the scores before D's step, then the score after it.
    generator, discriminator = twin["generator"], twin["discriminator"]
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


def test_optimizers_hold_their_own_network_and_the_constants(gan_script, monkeypatch):
    monkeypatch.setattr(gan_script, "LEARNING_RATE", 0.003)
    monkeypatch.setattr(gan_script, "BETAS", (0.25, 0.9))
    gan = gan_script.build_gan(torch.device("cpu"))
    for optimizer, network in (
        (gan.optimizer_g, gan.generator),
        (gan.optimizer_d, gan.discriminator),
    ):
        (group,) = optimizer.param_groups
        assert isinstance(optimizer, torch.optim.Adam)
        assert group["lr"] == 0.003 and group["betas"] == (0.25, 0.9)
        assert [id(w) for w in group["params"]] == [id(w) for w in network.parameters()]


def test_an_epoch_shows_every_image_once_in_a_new_order(gan_script, small, images, monkeypatch):
    shown = []

    def record(gan, batch):
        shown.append(batch)
        return torch.tensor([1.0, 2.0, 3.0, 4.0]) * len(shown)

    monkeypatch.setattr(gan_script, "train_step", record)
    gan = gan_script.build_gan(torch.device("cpu"))
    means = gan_script.train_epoch(gan, images)
    assert [len(batch) for batch in shown] == [20, 20, 8]
    assert means == pytest.approx([2, 4, 6, 8]), "the mean of the three batches"
    first = torch.cat(shown)
    assert not first.equal(images), "not in the order of the file"
    key = lambda batch: sorted(batch.flatten(1).sum(1).tolist())  # noqa: E731
    assert key(first) == key(images)
    shown.clear()
    gan_script.train_epoch(gan, images)
    assert not torch.cat(shown).equal(first), "each epoch has its own order"


def test_a_run_is_the_same_for_the_same_seed_and_differs_for_another(small, images, monkeypatch):
    def run(seed):
        monkeypatch.setattr(small, "SEED", seed)
        gan = small.build_gan(torch.device("cpu"))
        small.train_epoch(gan, images)
        return weights(gan.generator), weights(gan.discriminator)

    first, again, other = run(3), run(3), run(4)
    assert same(first[0], again[0]) and same(first[1], again[1])
    assert not same(first[0], other[0]) and not same(first[1], other[1])


@pytest.mark.slow
def test_generator_learns_to_draw_the_one_picture_that_it_is_shown(gan_script, small, monkeypatch):
    monkeypatch.setattr(gan_script, "LEARNING_RATE", 1e-3)
    if gan_script.__name__ == "train_gan":
        monkeypatch.setattr(gan_script, "GENERATOR_HIDDEN", (64,))
        monkeypatch.setattr(gan_script, "DISCRIMINATOR_HIDDEN", (64,))
    gan = gan_script.build_gan(torch.device("cpu"))
    picture = torch.full((1, 1, 28, 28), -1.0)
    picture[:, :, 8:20, 8:20] = 1

    def distance():
        with torch.no_grad():
            return (fakes(gan_script, gan, 64) - picture).abs().mean().item()

    before = distance()
    for _ in range(400 if gan_script.__name__ == "train_gan" else 40):
        gan_script.train_step(gan, picture.expand(16, 1, 28, 28))
    after = distance()
    assert after < 0.6 * before, f"the distance went from {before:.3f} to {after:.3f}"


@pytest.mark.gpu
def test_on_a_gpu_the_generator_agrees_with_the_cpu_and_a_step_is_finite(gan_script, images):
    device = torch.device("cuda" if torch.cuda.is_available() else "mps")
    gans = [gan_script.build_gan(place) for place in (torch.device("cpu"), device)]
    assert same(weights(gans[0].generator), weights(copy.deepcopy(gans[1].generator).cpu()))
    latents = gan_script.sample_latents(16, gans[0].latents_rng)
    on_cpu, on_gpu = gans[0].generator(latents), gans[1].generator(latents.to(device)).cpu()
    torch.testing.assert_close(on_cpu, on_gpu, atol=1e-2, rtol=1e-2)
    row = gan_script.train_step(gans[1], images.to(device)).tolist()
    assert all(math.isfinite(number) for number in row)


# Random numbers


def test_no_two_uses_and_no_two_seeds_share_a_stream(gan_script):
    texts = [(ROOT / f"{name}.py").read_text(encoding="utf-8") for name in SCRIPTS]
    uses = sorted(set(re.findall(r'random_stream\("([\w ]+)"', "".join(texts))))
    assert len(uses) >= 6, uses
    streams = [gan_script.random_stream(use, seed) for use in uses for seed in range(100)]
    seeds = [stream.initial_seed() for stream in streams]
    assert all(stream.device.type == "cpu" for stream in streams)
    assert len(set(seeds) | set(range(100))) == len(seeds) + 100
    first, again = (gan_script.random_stream(uses[0], 3).get_state() for _ in range(2))
    assert first.equal(again), "the same use and seed, the same numbers"


def test_first_weights_and_fixed_latents_are_not_made_of_the_same_numbers(gan_script, gan):
    """With one stream for both, fixed latent i would drive hidden unit i to about -2."""
    first = next(weight for weight in gan.generator.parameters() if weight.dim() == 2)
    driven = (first[:64] * gan.fixed_latents).sum(1)
    assert abs(driven.mean()) < 0.4, f"the mean of 64 numbers with a spread of 0.6: {driven.mean()}"


def test_each_use_of_a_run_has_a_stream_of_its_own(gan_script, monkeypatch):
    make, used = gan_script.random_stream, []
    monkeypatch.setattr(gan_script, "SEED", 5)
    monkeypatch.setattr(gan_script, "random_stream", lambda *a: used.append(a) or make(*a))
    torch.manual_seed(1)
    gan = gan_script.build_gan(torch.device("cpu"))
    assert torch.initial_seed() == make("weights", 5).initial_seed()
    assert {seed for _, seed in used} == {5} and len(set(used)) == len(used) >= 4
    assert gan.order_rng.initial_seed() != gan.latents_rng.initial_seed()


def test_latents_are_drawn_on_the_cpu_and_then_moved(gan_script):
    """The meta device stands in for a GPU: nothing can be drawn there with a source on the CPU."""
    rng = torch.Generator().manual_seed(0)
    assert gan_script.sample_latents(3, rng, "meta").device.type == "meta"
    after = gan_script.sample_latents(3, rng)
    rng.manual_seed(0)
    gan_script.sample_latents(3, rng)
    assert after.equal(gan_script.sample_latents(3, rng)), "as many numbers as on the CPU"


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
    # The slope of half the squared length of x is x.
    penalty = gan_script.r1_penalty(lambda x: x.square().sum((2, 3)) / 2, real_images)
    assert penalty.item() == pytest.approx(784 * (0 + 0.25 + 1) / 3 / 2)


def test_r1_comes_in_every_8th_step_8_times_as_strong(gan_script, gan, images, monkeypatch):
    step, strengths = gan_script.discriminator_step, []

    def record(*arguments):
        strengths.append(arguments[4])
        return step(*arguments)

    monkeypatch.setattr(gan_script, "discriminator_step", record)
    for _ in range(17):
        gan_script.train_step(gan, images[:2])
    assert strengths == [8, 0, 0, 0, 0, 0, 0, 0] * 2 + [8]
    assert gan.step == 17
    strengths.clear()
    monkeypatch.setattr(gan_script, "R1", 0)
    monkeypatch.setattr(gan_script, "r1_penalty", lambda *arguments: pytest.fail("it is off"))
    gan = gan_script.build_gan(torch.device("cpu"))
    gan_script.train_step(gan, images[:2])
    assert strengths == [0]


def test_the_penalty_teaches_d_alone_and_is_not_in_its_loss(gan_script, gan, images):
    fake_images, found = fakes(gan_script, gan, len(images)), {}
    gan.optimizer_d.param_groups[0]["lr"] = 0.0
    for strength in (0, 8):
        row = gan_script.discriminator_step(
            gan.discriminator, gan.optimizer_d, images, fake_images, strength
        )
        found[strength] = row, [w.grad.clone() for w in gan.discriminator.parameters()]
    assert all(weight.grad is None for weight in gan.generator.parameters())
    for without, with_penalty in zip(found[0][0], found[8][0]):
        assert without.item() == pytest.approx(with_penalty.item(), rel=1e-5)
    gan.optimizer_d.zero_grad()
    (8 * gan_script.r1_penalty(gan.discriminator, images)).backward()
    reached = 0
    for weight, without, with_penalty in zip(
        gan.discriminator.parameters(), found[0][1], found[8][1]
    ):
        of_penalty = torch.zeros(1) if weight.grad is None else weight.grad  # No slope has a bias.
        torch.testing.assert_close(with_penalty, without + of_penalty, atol=1e-5, rtol=1e-3)
        reached += of_penalty.abs().max() > 1e-6
    assert reached >= 2, "the penalty reaches the weights of D"


# The average of G's weights


def test_the_average_over_three_steps_is_as_worked_out_by_hand(gan_script, monkeypatch):
    monkeypatch.setattr(gan_script, "AVERAGE", 4)
    generator, average = nn.Linear(1, 1), nn.Linear(1, 1)
    # Shares 4/4, 4/5 and 4/6: 1, then 1 + 0.8 * (6 - 1) = 5, then 5 + (2 - 5) * 2/3 = 3.
    for step, (value, expected) in enumerate([(1, 1), (6, 5), (2, 3)]):
        with torch.no_grad():
            for weight in generator.parameters():
                weight.fill_(value)
        gan_script.update_average(average, generator, step)
        for mean in average.parameters():
            assert mean.item() == pytest.approx(expected)
    assert all(weight.item() == 2 for weight in generator.parameters()), "G itself stays"


def test_with_batchnorm_in_g_the_average_takes_over_its_statistics(gan_script):
    """Without them, whoever adds BatchNorm to G would see spoilt pictures."""
    generator = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = copy.deepcopy(generator)
    generator(torch.tensor([[5.0, 6], [-7, 8]]))
    gan_script.update_average(average, generator, 0)
    for copied, buffer in zip(average.buffers(), generator.buffers(), strict=True):
        assert copied.equal(buffer)
    assert average[1].running_mean.abs().min() > 0


def test_the_average_starts_as_a_copy_of_g_and_then_follows_it(gan_script, gan, images):
    gan_script.train_step(gan, images)
    pairs = list(zip(gan.average.parameters(), gan.generator.parameters()))
    assert all(mean.equal(weight) and mean is not weight for mean, weight in pairs)
    gan_script.train_step(gan, images)
    assert not any(mean.equal(weight) for mean, weight in pairs)
    held = {id(w) for group in gan.optimizer_g.param_groups for w in group["params"]}
    assert not held & {id(mean) for mean in gan.average.parameters()}, "no optimizer moves it"


def test_without_an_average_g_itself_is_shown(gan_script, images, monkeypatch):
    monkeypatch.setattr(gan_script, "AVERAGE", 0)
    gan = gan_script.build_gan(torch.device("cpu"))
    for _ in range(2):
        gan_script.train_step(gan, images)
    assert gan.average is gan.generator


# The device


def no_kernel(*arguments, **options):
    raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")


@pytest.fixture
def cudnn(monkeypatch):
    """What find_device() sets is set back."""
    for name in ("deterministic", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))


def test_auto_takes_the_cpu_where_the_first_operation_on_a_gpu_fails(
    gan_script, monkeypatch, capsys, cudnn
):
    monkeypatch.setattr(gan_script, "DEVICE", "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", no_kernel)
    assert gan_script.find_device() == torch.device("cpu")
    (line,) = capsys.readouterr().out.splitlines()
    assert "no kernel image is available" in line and "CPU is used" in line


def test_auto_takes_the_cpu_without_a_word_where_there_is_no_gpu(
    gan_script, monkeypatch, capsys, cudnn
):
    monkeypatch.setattr(gan_script, "DEVICE", "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gan_script.find_device() == torch.device("cpu") and capsys.readouterr().out == ""
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("device", ["cuda:77", "toaster", "meta"])
def test_a_named_device_that_fails_is_an_error_of_one_line(gan_script, monkeypatch, device, cudnn):
    monkeypatch.setattr(gan_script, "DEVICE", device)
    monkeypatch.setattr(gan_script, "load_images", lambda train=True: pytest.fail("too late"))
    with pytest.raises(SystemExit) as stop:
        gan_script.main()
    assert str(stop.value).startswith(f"DEVICE = {device!r}") and "\n" not in str(stop.value)
