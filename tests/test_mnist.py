"""On the real MNIST: a short training comes nearer to real digits than real digits under noise."""

import compare_losses as script
import pytest
import torch
from conftest import ROOT

pytestmark = pytest.mark.mnist


@pytest.fixture
def images_and_judge(monkeypatch):
    """MNIST, and a judge that has learnt it from 10,000 images and knows 2,000 test images."""
    monkeypatch.setattr(script, "DATA_DIR", str(ROOT / "data"))
    monkeypatch.setattr(script, "SAMPLES", 2000)
    images, labels, name = script.load_images()
    assert name == "MNIST"
    judge = script.train_judge(images[:10_000], labels[:10_000])
    test_images, test_labels, _ = script.load_images(train=False)
    mixed = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:2000]
    judge.real_features, probabilities = script.look_at(judge, test_images[mixed])
    right = (probabilities.argmax(1) == test_labels[mixed]).double().mean()
    assert right > 0.95, f"the judge names {right:.1%} right"
    return images, judge


def test_three_hundred_steps_beat_noise_and_real_images_beat_both(images_and_judge):
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
