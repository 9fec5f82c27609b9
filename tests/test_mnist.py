"""On the real MNIST: a judge of it reads the drawn digits, and sees what a short training does."""

import compare_losses as script
import pytest
import torch
from conftest import ROOT

pytestmark = [pytest.mark.mnist, pytest.mark.slow]


@pytest.fixture(scope="module")
def images_and_judge():
    """MNIST, and a judge that has learnt it from 6,000 images and knows 1,000 test images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "DATA_DIR", str(ROOT / "data"))
        images, labels, name = script.load_images()
        test_images, test_labels, _ = script.load_images(train=False)
        recipe = {**script.judge_recipe(), "batch": 32, "rounds": 2}  # These are few.
        patch.setattr(script, "judge_recipe", lambda: recipe)
        judge = script.train_judge(images[:7200], labels[:7200])
    assert name == "MNIST"
    mixed = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:1000]
    judge.real_features, probabilities = script.look_at(judge, test_images[mixed])
    right = (probabilities.argmax(1) == test_labels[mixed]).double().mean()
    assert right > 0.93, f"the judge names {right:.1%} right"
    return images, judge


def test_a_judge_of_real_digits_reads_the_drawn_ones(images_and_judge):
    _, judge = images_and_judge
    images, labels = script.draw_digits(2000)
    right = (script.look_at(judge, images)[1].argmax(1) == labels).double()
    worst = min(right[labels == digit].mean().item() for digit in range(10))
    assert right.mean() > 0.8, f"{right.mean():.3f} of the drawn digits are read right"
    assert worst > 0.5, f"of one digit only {worst:.3f}"


def test_three_hundred_steps_beat_noise_and_real_images_beat_both(images_and_judge, monkeypatch):
    monkeypatch.setattr(script, "SAMPLES", 1000)
    images, judge = images_and_judge
    real = images[-1000:]
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    gan = script.build_gan(torch.device("cpu"), "BCE-R1", seed=0)
    sets = {"untrained": script.sample_images(gan.average, 0), "real": real,
            "noisy": (real + noise).clamp(-1, 1)}  # fmt: skip
    script.train_epoch(gan, images[: 300 * script.BATCH_SIZE])
    script.renew_statistics(gan)
    sets["trained"] = script.sample_images(gan.average, 0)
    figures = {name: script.measure(judge, part) for name, part in sets.items()}
    order = sorted(figures, key=lambda name: figures[name]["distance"])
    assert order == ["real", "trained", "noisy", "untrained"], figures
    precision = [figures[name]["precision"] for name in ("real", "trained", "noisy")]
    assert precision[0] > 0.8 > precision[1] > 0.08 > precision[2], figures
    assert figures["real"]["digits"] == 10 and figures["real"]["recall"] > 0.5, figures
    assert figures["real"]["readable"] > 0.7 > 0.3 > figures["trained"]["readable"], figures
