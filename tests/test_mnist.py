"""On the real MNIST: a judge of real digits reads the drawn ones, and sees what a short training brings."""

import os

import compare_losses as script
import pytest
import torch
from conftest import ROOT

pytestmark = pytest.mark.mnist


@pytest.fixture(scope="module")
def images_and_judge():
    """MNIST, and a judge that has learnt it from 10,000 images and knows 2,000 test images."""
    torch.set_num_threads(os.cpu_count())  # These networks are large enough to gain from it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "DATA_DIR", str(ROOT / "data"))
        images, labels, name = script.load_images()
        test_images, test_labels, _ = script.load_images(train=False)
    assert name == "MNIST"
    judge = script.train_judge(images[:10_000], labels[:10_000])
    mixed = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:2000]
    judge.real_features, probabilities = script.look_at(judge, test_images[mixed])
    right = (probabilities.argmax(1) == test_labels[mixed]).double().mean()
    assert right > 0.95, f"the judge names {right:.1%} right"
    yield images, judge
    torch.set_num_threads(1)


def test_a_judge_of_real_digits_reads_the_drawn_ones(images_and_judge):
    _, judge = images_and_judge
    images, labels = script.draw_digits(3000)
    right = (script.look_at(judge, images)[1].argmax(1) == labels).double()
    worst = min(right[labels == digit].mean().item() for digit in range(10))
    assert right.mean() > 0.8, f"{right.mean():.3f} of the drawn digits are read right"
    assert worst > 0.5, f"of one digit only {worst:.3f}"


def test_three_hundred_steps_beat_noise_and_real_images_beat_both(images_and_judge, monkeypatch):
    monkeypatch.setattr(script, "SAMPLES", 2000)
    images, judge = images_and_judge
    real = images[-2000:]
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    gan = script.build_gan(torch.device("cpu"), "LSGAN", seed=0)
    found = {
        "untrained": script.look_at_samples(judge, gan.generator),
        "noisy": script.look_at(judge, (real + noise).clamp(-1, 1)),
        "real": script.look_at(judge, real),
    }
    script.train_epoch(gan, images[: 300 * script.BATCH_SIZE])
    found["trained"] = script.look_at_samples(judge, gan.generator)
    figures = {name: script.measure(judge, *seen) for name, seen in found.items()}
    order = sorted(figures, key=lambda name: figures[name]["distance"])
    assert order == ["real", "trained", "noisy", "untrained"], figures
    assert figures["trained"]["precision"] > 0.5 > figures["noisy"]["precision"], figures
    assert figures["real"]["digits"] == 10 and figures["real"]["recall"] > 0.7, figures
