"""compare_losses.py: each loss and metric against values worked out by hand, steps, and resuming.

No MNIST here: the images are drawn digits or plain tensors, and everything is small.
"""

import copy
import csv
import functools
import math
from pathlib import Path

import compare_losses as script
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

LOSS_NAMES = sorted(script.loss_table())
WASSERSTEIN = ["WGAN", "WGAN-GP"]
SHARE = torch.linspace(0, 1, 32).view(32, 1, 1, 1)


def scores(*values):
    return torch.tensor(values).unsqueeze(1)


def weights_of(network):
    return copy.deepcopy(network.state_dict())


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@functools.cache
def digits(seed, draw_digits=script.draw_digits):
    """160 digits and their labels, drawn once for all tests."""
    return draw_digits(160, seed)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Small networks, few images and steps, and a folder of its own."""
    for name, value in {
        "DATASET": "drawn", "LATENT_DIM": 8, "GENERATOR_HIDDEN": (32,), "SAMPLES": 120,
        "DISCRIMINATOR_HIDDEN": (32,), "BATCH_SIZE": 32, "EPOCHS": 2,
        "OUTPUT_DIR": str(tmp_path / "out"),
        "draw_digits": lambda _, seed=0: [part.clone() for part in digits(seed)],
    }.items():
        monkeypatch.setattr(script, name, value)


@pytest.fixture
def images(small):
    return script.draw_digits(160)[0]


@pytest.fixture(scope="module")
def judged():
    """A judge of drawn digits, and digits that neither it nor anyone has seen."""
    images, labels = script.draw_digits(4500)
    judge = script.train_judge(images[:2500].repeat(4, 1, 1, 1), labels[:2500].repeat(4))
    judge.real_features, _ = script.look_at(judge, images[2500:3500])
    return judge, images[3500:], labels[3500:]


# Losses


@pytest.mark.parametrize(
    ("name", "real", "fake", "critic", "generator"),
    [
        ("BCE", (0.0, 0.0), (0.0, 0.0), 2 * math.log(2), math.log(2)),
        ("BCE", (math.log(3),), (-math.log(3),), 2 * math.log(4 / 3), math.log(4)),
        ("LSGAN", (1.0, 1.0), (0.0, 0.0), 0.0, 0.5),  # The critic's targets.
        ("LSGAN", (0.5,), (0.5,), 0.25, 0.125),  # It can only guess.
        ("LSGAN", (0.0, 3.0), (1.0, 1.0), 1.75, 0.0),  # The generator's target.
        ("WGAN", (5.0, 7.0), (1.0, 2.0), -4.5, -1.5),
        ("WGAN-GP", (5.0, 7.0), (1.0, 2.0), -4.5, -1.5),
        ("hinge", (0.0,), (0.0,), 2.0, 0.0),
        ("hinge", (2.0, 0.5), (-3.0, -0.5), 0.5, 1.75),  # No more to gain beyond the margin.
    ],
)
def test_losses_have_the_values_worked_out_by_hand(name, real, fake, critic, generator):
    loss = script.loss_table()[name]
    assert loss.critic(scores(*real), scores(*fake)).item() == pytest.approx(critic, abs=1e-6)
    assert loss.generator(scores(*fake)).item() == pytest.approx(generator, abs=1e-6)


@pytest.mark.parametrize("name", WASSERSTEIN)
def test_wasserstein_critic_loss_ignores_a_constant_added_to_all_scores(name):
    critic = script.loss_table()[name].critic
    real, fake = torch.randn(2, 50, 1)
    assert critic(real + 7, fake + 7).item() == pytest.approx(critic(real, fake).item(), abs=1e-5)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_generator_loss_falls_as_the_scores_of_fakes_rise(name):
    values = [script.loss_table()[name].generator(scores(s)).item() for s in (-3.0, -1.0, 0.0, 0.9)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4, values


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_critic_loss_falls_as_real_and_fake_scores_part(name):
    critic = script.loss_table()[name].critic
    values = [critic(scores(gap), scores(-gap)).item() for gap in (-0.5, -0.2, 0.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 3, values


@pytest.mark.parametrize("slope", [1.0, 3.0, 0.0])
def test_gradient_penalty_is_the_squared_difference_of_the_slope_from_one(slope):
    direction = F.normalize(torch.randn(784), dim=0) * slope
    real, fake = torch.randn(2, 6, 1, 28, 28)
    share = torch.rand(6, 1, 1, 1)
    penalty = script.gradient_penalty(lambda x: x.flatten(1) @ direction, real, fake, share)
    assert penalty.item() == pytest.approx((slope - 1) ** 2, abs=1e-5)


def test_gradient_penalty_looks_between_real_and_fake_and_teaches_the_critic():
    seen = []
    critic = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), nn.Tanh(), nn.Linear(4, 1))
    critic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    real, fake = torch.ones(3, 1, 28, 28), -torch.ones(3, 1, 28, 28)
    share = torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1, 1)
    script.gradient_penalty(critic, real, fake, share).backward()
    assert torch.equal(seen[0], torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1, 1).expand_as(real))
    assert critic[1].weight.grad.abs().max() > 0


# Steps


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_each_step_changes_its_own_network_and_leaves_the_other_alone(name, images):
    gan = script.build_gan("cpu", name, 0)
    loss = script.loss_table()[name]
    fake_images = gan.generator(script.sample_latents(32, gan.rng))
    before_g, before_d = weights_of(gan.generator), weights_of(gan.discriminator)
    script.critic_step(gan.discriminator, gan.optimizer_d, loss, images[:32], fake_images, SHARE)
    after_d = weights_of(gan.discriminator)
    assert equal(before_g, gan.generator.state_dict()) and not equal(before_d, after_d)
    assert all(weight.grad is None for weight in gan.generator.parameters())
    gradients = [weight.grad.clone() for weight in gan.discriminator.parameters()]
    script.generator_step(gan.generator, gan.discriminator, gan.optimizer_g, loss, fake_images)
    assert not equal(before_g, gan.generator.state_dict())
    assert equal(after_d, gan.discriminator.state_dict())
    assert all(map(torch.equal, gradients, (w.grad for w in gan.discriminator.parameters())))


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_gradients_do_not_add_up_over_steps(name, images, monkeypatch):
    gan = script.build_gan("cpu", name, 0)
    loss = script.loss_table()[name]
    for optimizer in (gan.optimizer_d, gan.optimizer_g):
        optimizer.param_groups[0]["lr"] = 0.0
    fake_images = gan.generator(script.sample_latents(32, gan.rng)).detach()
    loss.clip = None
    gradients = []
    for _ in range(2):
        script.critic_step(
            gan.discriminator, gan.optimizer_d, loss, images[:32], fake_images, SHARE
        )
        again = gan.generator(torch.ones(32, 8))
        script.generator_step(gan.generator, gan.discriminator, gan.optimizer_g, loss, again)
        gradients.append([w.grad.clone() for net in (gan.discriminator, gan.generator)
                          for w in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_thirty_generator_steps_raise_the_scores_of_fakes(name, images):
    gan = script.build_gan("cpu", name, 0)
    loss = script.loss_table()[name]
    latents = script.sample_latents(64, gan.rng)
    before = gan.discriminator(gan.generator(latents)).mean().item()
    for _ in range(30):
        fake_images = gan.generator(latents)
        script.generator_step(gan.generator, gan.discriminator, gan.optimizer_g, loss, fake_images)
    after = gan.discriminator(gan.generator(latents)).mean().item()
    assert after > before + 0.01, (before, after)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_thirty_critic_steps_score_real_images_above_fake_ones(name, images):
    gan = script.build_gan("cpu", name, 0)
    loss = script.loss_table()[name]
    real_images = images[:32]
    fake_images = gan.generator(script.sample_latents(32, gan.rng))
    for _ in range(30):
        script.critic_step(
            gan.discriminator, gan.optimizer_d, loss, real_images, fake_images, SHARE
        )
    gap = (gan.discriminator(real_images).mean() - gan.discriminator(fake_images).mean()).item()
    assert gap > (0.3 if loss.clip is None else 0.001), gap


def test_wgan_weights_are_within_the_clip_after_every_critic_step(images, monkeypatch):
    gan = script.build_gan("cpu", "WGAN", 0)
    loss, critic_step, largest = script.loss_table()["WGAN"], script.critic_step, []

    def watched(critic, *args):
        numbers = critic_step(critic, *args)
        largest.append(max(weight.abs().max().item() for weight in critic.parameters()))
        return numbers

    monkeypatch.setattr(script, "critic_step", watched)
    for _ in range(3):
        script.train_step(gan, images)
    assert len(largest) == 15
    assert max(largest) <= loss.clip + 1e-9 and min(largest) > 0.5 * loss.clip, largest


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_critic_steps_are_counted_over_the_ends_of_epochs(name, images, monkeypatch):
    calls = []
    for function in ("critic_step", "generator_step"):
        original = getattr(script, function)
        monkeypatch.setattr(
            script, function, lambda *a, f=original, n=function: (calls.append(n), f(*a))[1]
        )
    gan = script.build_gan("cpu", name, 0)
    for _ in range(2):
        script.train_epoch(gan, images)
    each = script.loss_table()[name].critic_steps
    assert calls == (["critic_step"] * each + ["generator_step"]) * 10  # 160 images, batches of 32.
    assert (gan.generator_steps, gan.critic_steps) == (10, 10 * each)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_each_loss_trains_in_bfloat16_with_weights_in_float32(name, images, monkeypatch):
    monkeypatch.setattr(script, "PRECISION", "bfloat16")
    gan = script.build_gan("cpu", name, 0)
    before = weights_of(gan.generator)
    numbers = script.train_step(gan, images)
    assert numbers.shape == (4,) and numbers.dtype == torch.float32 and numbers.isfinite().all()
    assert not equal(before, gan.generator.state_dict())
    assert {weight.dtype for weight in gan.generator.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_each_network_learns_at_the_rate_of_its_entry(name, monkeypatch):
    table = script.loss_table()
    table[name].critic_lr, table[name].generator_lr = 0.125, 0.25
    monkeypatch.setattr(script, "loss_table", lambda: table)
    gan = script.build_gan("cpu", name, 0)
    for optimizer, network, rate in ((gan.optimizer_d, gan.discriminator, 0.125),
                                     (gan.optimizer_g, gan.generator, 0.25)):
        (group,) = optimizer.param_groups
        assert group["lr"] == rate and isinstance(optimizer, table[name].optimizer)
        assert all(map(lambda a, b: a is b, group["params"], network.parameters()))
        for key, value in table[name].settings.items():
            assert group[key] == value


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_the_rates_are_steps_of_a_size_that_networks_learn_with(name):
    entry = script.loss_table()[name]
    assert 1e-5 <= entry.critic_lr <= 1e-2 and 1e-5 <= entry.generator_lr <= 1e-2


def test_wgan_learns_without_momentum():
    gan = script.build_gan("cpu", "WGAN", 0)
    for optimizer in (gan.optimizer_g, gan.optimizer_d):
        assert isinstance(optimizer, torch.optim.RMSprop)
        assert optimizer.param_groups[0]["momentum"] == 0


def test_the_critic_ends_without_a_sigmoid_and_scores_each_image_by_itself(images):
    critic = script.Discriminator()
    assert not any(isinstance(m, (nn.Sigmoid, nn.BatchNorm1d)) for m in critic.modules())
    together, alone = critic(images), torch.cat([critic(image) for image in images.split(1)])
    assert together.shape == (160, 1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


# The same for each loss


def test_each_loss_starts_from_the_same_weights_latents_and_images(images):
    gans = [script.build_gan("cpu", name, 3) for name in LOSS_NAMES]
    for gan in gans[1:]:
        assert equal(gan.generator.state_dict(), gans[0].generator.state_dict())
        assert equal(gan.discriminator.state_dict(), gans[0].discriminator.state_dict())
        assert torch.equal(gan.fixed_latents, gans[0].fixed_latents)
    other = script.build_gan("cpu", LOSS_NAMES[0], 4)
    assert not equal(other.generator.state_dict(), gans[0].generator.state_dict())


def test_each_loss_meets_the_same_real_images_and_latents_in_the_same_order(images, monkeypatch):
    critic_step, sample_latents, seen = script.critic_step, script.sample_latents, []

    def watched_step(critic, optimizer, loss, real_images, fake_images, share):
        seen[-1].append(real_images)
        return critic_step(critic, optimizer, loss, real_images, fake_images, share)

    def watched_latents(count, rng):
        seen[-1].append(sample_latents(count, rng))
        return seen[-1][-1]

    monkeypatch.setattr(script, "critic_step", watched_step)
    monkeypatch.setattr(script, "sample_latents", watched_latents)
    for name in LOSS_NAMES:
        seen.append([])
        gan = script.build_gan("cpu", name, 0)
        for _ in range(15 // script.loss_table()[name].critic_steps):
            script.train_step(gan, images)
    for other in seen[1:]:
        assert len(other) == len(seen[0]) == 1 + 2 * 15  # Fixed latents; then 15 times both.
        assert all(map(torch.equal, other, seen[0]))
    real_images = seen[0][2::2]
    first_epoch = torch.cat(real_images[:5]).flatten(1)
    assert len(first_epoch.unique(dim=0)) == len(images.flatten(1).unique(dim=0)), "each once"
    assert not torch.equal(real_images[0], real_images[5]), "shuffled anew"


def test_images_left_over_from_an_epoch_do_not_make_a_short_batch(small, monkeypatch):
    monkeypatch.setattr(script, "BATCH_SIZE", 30)
    gan = script.build_gan("cpu", "BCE", 0)
    batches = [script.next_batch(gan, torch.arange(100)) for _ in range(7)]
    assert [len(batch) for batch in batches] == [30] * 7
    assert len(torch.cat(batches[:3]).unique()) == len(torch.cat(batches[3:6]).unique()) == 90


# Metrics


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


def test_kernel_distance_agrees_with_its_definition_term_by_term():
    real, fake = torch.randn(2, 5, 3).double()

    def mean_kernel(first, second, skip):
        values = [(a @ b / 3 + 1) ** 3 for i, a in enumerate(first) for j, b in enumerate(second)
                  if not (skip and i == j)]
        return sum(values) / len(values)

    expected = mean_kernel(real, real, True) + mean_kernel(fake, fake, True)
    expected -= 2 * mean_kernel(real, fake, False)
    assert script.kernel_distance(real, fake) == pytest.approx(expected.item())


def test_kernel_distance_bears_any_number_of_images():
    points = torch.randn(1001, 4).double()
    assert math.isfinite(script.kernel_distance(points, points + 1))
    assert math.isfinite(script.kernel_distance(points[:150], points))


def test_kernel_distance_is_nothing_on_average_between_equals_and_more_otherwise():
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(40, 2, 100, 4, generator=rng, dtype=torch.float64)
    values = torch.tensor([script.kernel_distance(*pair) for pair in points])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(40) and values.min() < 0
    assert script.kernel_distance(points[0, 0], points[0, 1] + 1) > 10 * values.abs().max()


def test_classifier_score_is_ten_for_sure_and_even_and_one_for_unsure_or_alike():
    sure = torch.eye(10).double()
    assert script.classifier_score(sure) == pytest.approx(10)
    assert script.classifier_score(sure[:5]) == pytest.approx(5)
    assert script.classifier_score(sure[[3] * 10]) == pytest.approx(1)
    assert script.classifier_score(torch.full((10, 10), 0.1).double()) == pytest.approx(1)


def test_digits_covered_counts_only_digits_that_are_sure_and_not_rare():
    sure = torch.eye(10).double()
    assert script.digits_covered(sure) == (10, pytest.approx(1))
    assert script.digits_covered(sure[[7] * 20]) == (1, pytest.approx(0))
    assert script.digits_covered(sure[[7] * 10 + [2] * 10]) == (2, pytest.approx(math.log10(2)))
    assert script.digits_covered(0.8 * sure + 0.02)[0] == 0, "82 % is not sure"
    assert script.digits_covered(sure[[7] * 999 + [2]])[0] == 1, "one in a thousand is rare"


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


def test_precision_reaches_to_the_third_neighbour():
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # Radii 10, 9, 8, 10.
    fake = torch.tensor([[-9.5], [-10.5], [20.5], [19.5]])
    assert script.precision_and_recall(real, fake)[0] == 0.5


def test_the_judge_tells_real_digits_from_one_digit_blur_and_noise(judged):
    judge, images, labels = judged
    rng = torch.Generator().manual_seed(0)
    blurred = F.avg_pool2d(images, 5, stride=1, padding=2)
    sets = {
        "real": images,
        "one digit": images[labels == 3].repeat(10, 1, 1, 1),
        "blurred": blurred,
        "noise": torch.rand(1000, 1, 28, 28, generator=rng) * 2 - 1,
    }
    found = {name: script.measure(judge, *script.look_at(judge, x)) for name, x in sets.items()}
    real = found.pop("real")
    assert real["distance"] < 0.5 and abs(real["kernel"]) < 0.05, real
    assert real["digits"] == 10 and real["evenness"] > 0.99 and real["score"] > 8, real
    assert real["precision"] > 0.7 and real["recall"] > 0.7, real
    assert found["one digit"]["digits"] == 1 and found["one digit"]["evenness"] < 0.1, found
    for name, figures in found.items():
        assert figures["distance"] > 10 * real["distance"], (name, figures, real)
        assert figures["kernel"] > 10 * abs(real["kernel"]), (name, figures, real)
        assert figures["recall"] < real["recall"] / 2, (name, figures, real)


def test_the_features_of_a_judge_have_a_fixed_scale():
    """Otherwise a judge that learns larger features would find everything farther apart."""
    judge = script.Judge()
    seen = []
    judge.see[-2].register_forward_hook(lambda layer, inputs, result: seen.append(result))
    optimizer = torch.optim.SGD(judge.parameters(), lr=1.0)
    images = torch.rand(64, 1, 28, 28)
    for _ in range(3):
        optimizer.zero_grad()
        judge(images)[0].square().sum().backward()
        optimizer.step()
    assert seen[-1].std(0, unbiased=False).tolist() == pytest.approx([1] * 64, abs=0.02)


# The whole run: files, resuming, faults


@pytest.fixture
def quick(small, monkeypatch):
    """The whole script in a moment: dots for pictures."""
    monkeypatch.setattr(script, "draw_comparison", lambda *_: Figure((1, 1)))
    return script


def written(folder="."):
    return sorted(path.name for path in Path(script.OUTPUT_DIR, folder).iterdir() if path.is_file())


def read(name):
    return torch.load(Path(script.OUTPUT_DIR, name), weights_only=True)


def rows(name):
    with open(Path(script.OUTPUT_DIR, name), newline="") as file:
        return list(csv.DictReader(file))


def interrupt_after(monkeypatch, saves, error=KeyboardInterrupt):
    """Make the run stop right after so many checkpoints."""
    save_checkpoint, count = script.save_checkpoint, []

    def stopping(*args):
        save_checkpoint(*args)
        count.append(1)
        if len(count) == saves:
            raise error

    monkeypatch.setattr(script, "save_checkpoint", stopping)


def test_a_run_writes_its_tables_figure_and_networks(small, capsys):
    script.main()
    names = ["checkpoint.pt", "comparison.csv", "comparison.md", "comparison.png",
             "generator_bce.pt", "generator_lsgan.pt", "generator_wgan.pt", "history.csv",
             "judge.pt"]
    assert written() == names
    printed = capsys.readouterr().out
    assert all(name in printed and name in script.__doc__ for name in names)
    final = rows("comparison.csv")
    assert [row["loss"] for row in final] == ["BCE", "LSGAN", "WGAN", "real images"]
    assert [row["D steps"] for row in final] == ["10", "10", "50", ""]
    assert {row["data"] for row in final} == {"drawn digits"}
    history = rows("history.csv")
    assert [(row["loss"], row["epoch"], row["critic_steps"]) for row in history] == [
        ("BCE", "1", "5"), ("BCE", "2", "10"), ("LSGAN", "1", "5"), ("LSGAN", "2", "10"),
        ("WGAN", "1", "25"), ("WGAN", "2", "50")]  # fmt: skip
    for row in final[:3]:
        last = [other for other in history if other["loss"] == row["loss"]][-1]
        assert float(row["distance"]) == pytest.approx(float(last["distance"]))
    left = [line.split()[-1] for line in printed.splitlines() if line.startswith(("BCE ", "WGAN "))]
    assert len(left) == 4 and left[1] == left[3] == "0:00:00" and max(left) < "0:01:00", left
    markdown = Path(script.OUTPUT_DIR, "comparison.md").read_text(encoding="utf-8")
    assert markdown.splitlines()[0].count("|") == markdown.splitlines()[1].count("|") == 12
    assert "drawn digits" in markdown and markdown in printed
    generator = script.Generator()
    generator.load_state_dict(read("generator_wgan.pt"))


def test_several_seeds_give_mean_and_deviation(quick, monkeypatch):
    monkeypatch.setattr(script, "SEEDS", (0, 1, 5))
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    monkeypatch.setattr(script, "EPOCHS", 1)
    script.main()
    values = [float(row["distance"]) for row in rows("comparison.csv")[:3]]
    mean, deviation = torch.tensor(values).mean(), torch.tensor(values).std()
    markdown = Path(script.OUTPUT_DIR, "comparison.md").read_text(encoding="utf-8")
    assert f"| {mean:.2f} ± {deviation:.2f} " in markdown, (values, markdown)
    generator = script.build_gan("cpu", "BCE", 0)
    script.load_checkpoint([generator], "drawn digits")
    assert equal(read("generator_bce.pt"), generator.generator.state_dict()), "the first seed's"


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_an_interrupted_comparison_goes_on_exactly(quick, monkeypatch, saves, capsys):
    monkeypatch.setattr(script, "LOSSES", ("BCE", "WGAN-GP"))
    script.main()
    at_once = [read("generator_bce.pt"), read("generator_wgan-gp.pt"), rows("comparison.csv")]
    with monkeypatch.context() as patch:
        interrupt_after(patch, saves)
        script.main()
    assert "RESUME = True" in capsys.readouterr().out
    assert written("earlier_1"), "the first run is kept"
    monkeypatch.setattr(script, "RESUME", True)
    script.main()
    assert f"BCE, seed 0, after epoch {min(saves, 2)}" in capsys.readouterr().out
    assert equal(at_once[0], read("generator_bce.pt"))
    assert equal(at_once[1], read("generator_wgan-gp.pt"))
    for row, other in zip(at_once[2], rows("comparison.csv"), strict=True):
        del row["seconds"], other["seconds"]
        assert row == other


def test_ctrl_c_amid_an_epoch_leaves_the_figures_of_the_last_whole_one(quick, monkeypatch):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    monkeypatch.setattr(script, "EPOCHS", 1)
    script.main()
    whole = rows("comparison.csv")
    train_step = script.train_step

    def interrupted(gan, images):
        if gan.generator_steps == 7:  # An epoch has five.
            raise KeyboardInterrupt
        return train_step(gan, images)

    monkeypatch.setattr(script, "train_step", interrupted)
    monkeypatch.setattr(script, "EPOCHS", 2)
    script.main()
    for row, other in zip(whole, rows("comparison.csv"), strict=True):
        for column in ("distance", "G steps", "D steps"):
            assert row[column] == other[column], column


def test_ctrl_c_while_the_judge_learns_ends_a_resumed_run_cleanly(quick, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    monkeypatch.setattr(script, "RESUME", True)
    monkeypatch.setattr(script, "prepare_judge", interrupted)
    script.main()
    assert "Stopped." in capsys.readouterr().out


def test_a_first_checkpoint_that_cannot_be_written_is_the_message(quick, monkeypatch):
    def full(*_):
        raise SystemExit("No space left")

    monkeypatch.setattr(script, "save_checkpoint", full)
    with pytest.raises(SystemExit, match="No space left"):
        script.main()


def test_resuming_where_nothing_was_saved_says_so_and_starts_anew(quick, monkeypatch, capsys):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    monkeypatch.setattr(script, "RESUME", True)
    script.main()
    assert "Resumed   nothing" in capsys.readouterr().out
    assert len(rows("history.csv")) == 2


def test_a_checkpoint_of_other_networks_is_refused_in_one_line(quick, monkeypatch):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    monkeypatch.setattr(script, "RESUME", True)
    monkeypatch.setattr(script, "Discriminator", lambda: nn.Linear(784, 1))
    with pytest.raises(SystemExit, match="is of other networks than section 5 has"):
        script.main()


def test_resuming_trains_only_what_is_missing_and_keeps_the_rest(quick, monkeypatch):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    before = read("generator_bce.pt")
    trained, train_epoch = [], script.train_epoch
    monkeypatch.setattr(
        script,
        "train_epoch",
        lambda gan, images: (trained.append(gan.loss), train_epoch(gan, images))[1],
    )
    monkeypatch.setattr(script, "RESUME", True)
    monkeypatch.setattr(script, "LOSSES", ("hinge",))
    script.main()
    monkeypatch.setattr(script, "LOSSES", ("BCE", "hinge"))
    script.main()
    assert trained == ["hinge", "hinge"]
    assert equal(before, read("generator_bce.pt"))
    assert [row["loss"] for row in rows("comparison.csv")] == ["BCE", "hinge", "real images"]
    monkeypatch.setattr(script, "EPOCHS", 3)
    script.main()
    assert trained[2:] == ["BCE", "hinge"], "one more epoch each"


@pytest.mark.parametrize("name, value", [("BATCH_SIZE", 31), ("LATENT_DIM", 7), ("SAMPLES", 130)])
def test_a_checkpoint_of_other_constants_is_refused(quick, monkeypatch, name, value):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    monkeypatch.setattr(script, "RESUME", True)
    monkeypatch.setattr(script, name, value)
    with pytest.raises(SystemExit, match=f"{name} = .*now it is {value}"):
        script.main()


def test_a_checkpoint_of_another_learning_rate_is_refused(quick, monkeypatch):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    script.main()
    table = script.loss_table()
    table["BCE"].critic_lr *= 2
    monkeypatch.setattr(script, "loss_table", lambda: table)
    monkeypatch.setattr(script, "RESUME", True)
    with pytest.raises(SystemExit, match="another entry for BCE"):
        script.main()


def test_the_judge_is_used_again_for_the_same_data_only(quick, monkeypatch):
    monkeypatch.setattr(script, "LOSSES", ("BCE",))
    trained, train_judge = [], script.train_judge
    monkeypatch.setattr(
        script, "train_judge", lambda *args: (trained.append(1), train_judge(*args))[1]
    )
    script.main()
    script.main()
    assert len(trained) == 1
    path = Path(script.OUTPUT_DIR, "judge.pt")
    assert path.read_bytes() == Path(script.OUTPUT_DIR, "earlier_1", "judge.pt").read_bytes()
    torch.save({"KMNIST": read("judge.pt")["drawn digits"]}, path)
    script.main()
    path.write_bytes(b"damaged")
    script.main()
    assert len(trained) == 3


def test_the_judge_learns_training_images_and_compares_with_test_images(quick, monkeypatch):
    sets = {train: script.draw_digits(160, seed=int(train)) for train in (True, False)}
    monkeypatch.setattr(script, "load_images", lambda train=True: (*sets[train], "digits"))
    monkeypatch.setattr(script, "SAMPLES", 160)
    learnt, train_judge = [], script.train_judge
    monkeypatch.setattr(
        script, "train_judge", lambda *args: (learnt.append(args), train_judge(*args))[1]
    )
    judge = script.prepare_judge(*sets[True], "digits")
    assert learnt[0][0] is sets[True][0] and torch.equal(learnt[0][1], sets[True][1])
    expected, _ = script.look_at(judge, sets[False][0])
    found = judge.real_features
    assert found.shape == expected.shape and not torch.equal(found, expected), "mixed"
    torch.testing.assert_close(found.sort(0).values, expected.sort(0).values)


def test_the_edges_of_the_ranges_are_allowed_and_what_is_beyond_is_not(monkeypatch):
    edges = {"EPOCHS": (1, 999), "BATCH_SIZE": (2, 60_000), "LATENT_DIM": (1, 10_000),
             "SAMPLES": (100, 10_000)}  # fmt: skip
    for name, (low, high) in edges.items():
        for value, allowed in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
            with monkeypatch.context() as patch:
                patch.setattr(script, name, value)
                if allowed:
                    assert script.check_constants()[name] == value
                else:
                    with pytest.raises(SystemExit, match=f"{name} = {value} "):
                        script.check_constants()
    for name, value in {"SEEDS": (0, 2**32 - 1), "GENERATOR_HIDDEN": (1, 1, 1, 10_000),
                        "LOSSES": tuple(LOSS_NAMES), "DISCRIMINATOR_HIDDEN": (10_000,)}.items():
        monkeypatch.setattr(script, name, value)
        assert script.check_constants()[name] == value


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_saved(quick, monkeypatch):
    train_step = script.train_step

    def breaking(gan, images):
        numbers = train_step(gan, images)
        return numbers * math.nan if gan.loss == "LSGAN" and gan.generator_steps > 5 else numbers

    monkeypatch.setattr(script, "train_step", breaking)
    with pytest.raises(SystemExit, match="a loss of LSGAN in epoch 2 is not a finite number"):
        script.main()
    assert len(rows("history.csv")) == 3
    assert list(read("checkpoint.pt")["states"]) == ["BCE, seed 0", "LSGAN, seed 0"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("LOSSES", "BCE"), ("LOSSES", ()), ("LOSSES", ("BCE", "BCE")), ("LOSSES", ("bce",)),
     ("LOSSES", ["BCE"]), ("LOSSES", ([],)), ("SEEDS", 0), ("SEEDS", ()), ("SEEDS", (1, 1)),
     ("SEEDS", (-1,)), ("SEEDS", (0.5,)), ("SEEDS", ([],)), ("SEEDS", (True,)), ("BATCH_SIZE", 1),
     ("SAMPLES", 99), ("EPOCHS", 0), ("GENERATOR_HIDDEN", (0,)), ("PRECISION", "float16")],
)  # fmt: skip
def test_a_constant_that_cannot_be_used_is_named_in_one_line(small, monkeypatch, name, value):
    monkeypatch.setattr(script, name, value)
    with pytest.raises(SystemExit, match=f"^{name} = .* It must be [^\n]*$"):
        script.main()
    assert not Path(script.OUTPUT_DIR).exists()


def test_the_figure_shows_each_loss_and_the_floor(images, monkeypatch):
    monkeypatch.setattr(script, "LOSSES", ("BCE", "WGAN", "hinge"))
    gans = []
    for name in script.LOSSES:
        gan = script.build_gan("cpu", name, 0)
        for epoch in (1, 2, 3):
            gan.history.append({"epoch": epoch, "loss_d": 1.0, "loss_g": 2.0, "d_real": 5.0 - epoch,
                                "d_fake": -1.0, "distance": 30.0 / epoch, "seconds": 2.0,
                                "generator_steps": 10 * epoch})
        gans.append(gan)
    figures = [{"distance": 10.0, "digits": 9, "seconds": 6.0, "G steps": 30}] * 3
    figure = script.draw_comparison(gans, figures, {"distance": 0.5}, "squares")
    assert "squares" in figure.subfigs[0].get_suptitle()
    panels = figure.axes
    titles = [axes.get_title(loc="left") for axes in panels[0:6:2]]
    assert [title.split(":")[0] for title in titles] == ["BCE", "WGAN", "hinge"]
    assert "9 of 10 digits" in titles[0]
    (estimate,) = panels[3].lines
    assert list(estimate.get_ydata()) == [5.0, 4.0, 3.0], "D(x) - D(G(z)), above zero"
    assert [len(axes.lines) for axes in (panels[1], panels[5])] == [2, 2]
    for axes, places in ((panels[6], [10, 20, 30]), (panels[7], [2.0, 4.0, 6.0])):
        assert len(axes.lines) == 4
        assert list(axes.lines[0].get_xdata()) == places
        assert list(axes.lines[0].get_ydata()) == [30, 15, 10]
        assert set(axes.lines[3].get_ydata()) == {0.5}, "the floor"
