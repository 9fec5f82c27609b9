"""Draw the pictures in docs/ from the outputs of finished runs.

    python train_gan.py; python train_dcgan_variant.py; python compare_losses.py
    python tests/experiments.py gan best; python tests/make_docs.py
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

sys.path.insert(0, ".")
import compare_losses as losses  # noqa: E402  It is only found now.

EPOCHS = (1, 10, 30, 100)


def draw(frames, columns, title, name):
    """Frames, uint8 [64, 28, 28], by their titles, side by side: so many columns of 8 images each."""
    figure = Figure(figsize=(8, 4.2 if columns == 4 else 3.2), layout="constrained")
    for axes, (label, frame) in zip(figure.subplots(1, len(frames)), frames.items()):
        grid = frame[: 8 * columns].view(8, columns, 28, 28).transpose(1, 2)
        axes.imshow(grid.reshape(224, 28 * columns).numpy(), cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.set_title(label, fontsize="medium")
    figure.suptitle(title)
    figure.savefig(f"docs/{name}.png", dpi=100)


def train_gan(folder):
    """The first 32 of the fixed latents' images after some epochs."""
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    frames = {f"epoch {epoch}": saved["frames"][epoch - 1] for epoch in EPOCHS}
    title = f"train_gan.py on {saved['made with']['data']}: the same 32 latents as G learns"
    draw(frames, 4, title, "train_gan")


def best_dcgan():
    """The checkpoint of train_dcgan_variant.py's best setting among the experiments."""
    (path,) = Path("outputs", "experiments", "best").glob("*/seed_0/run/checkpoint.pt")
    return torch.load(path, weights_only=True)


def train_dcgan_variant(folder):
    """The default run after 10 and 50 epochs, and the best setting of the experiments."""
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    frames = {f"default, epoch {epoch}": saved["frames"][epoch - 1] for epoch in (10, 50)}
    best = best_dcgan()
    label = f'GENERATOR = "conv", epoch {len(best["frames"])}'
    if tricks := best["made with"]["TRICKS"]:
        label += "\n" + ", ".join(tricks)
    frames[label] = best["frames"][-1]
    title = f"train_dcgan_variant.py on {saved['made with']['data']}"
    draw(frames, 8, title, "train_dcgan_variant")


def compare_losses(folder):
    """The script's own figure, in fewer pixels and colours."""
    with Image.open(folder / "comparison.png") as picture:
        picture = picture.convert("RGB")
    picture.thumbnail((1000, 1000), Image.Resampling.LANCZOS)
    picture.quantize(64, dither=Image.Dither.NONE).save("docs/compare_losses.png", optimize=True)


def experiments():
    """Four of the experiments with train_gan.py, side by side."""
    titles = {"as_it_is": "default", "rate_2e-3": "LEARNING_RATE = 2e-3",
              "beta1_0.9": "BETA1 = 0.9", "weak_d": "DISCRIMINATOR_HIDDEN\n= (16,)"}
    frames = {}
    for name, title in titles.items():
        path = Path("outputs", "experiments", "gan", name, "seed_0", "run", "checkpoint.pt")
        frames[title] = torch.load(path, weights_only=True)["frames"][-1]
    draw(frames, 4, "train_gan.py, one constant changed, after 10 epochs", "experiments")


def all_three():
    """Two rows of images of each script: the picture at the top of the README."""
    gan = torch.load("outputs/train_gan/checkpoint.pt", weights_only=True)["frames"]
    dcgan = best_dcgan()
    saved = torch.load("outputs/compare_losses/checkpoint.pt", weights_only=True)
    state = saved["states"]["LSGAN, seed 0"]
    generator = losses.Generator()
    generator.load_state_dict(state["generator"])
    epochs, settings = len(dcgan["frames"]), dcgan["made with"]
    tricks = "".join(f", {trick}" for trick in settings["TRICKS"])
    frames = {
        f"train_gan.py: two plain networks, {len(gan)} epochs": gan[-1],
        f"train_dcgan_variant.py: {settings['GENERATOR']}{tricks}, {epochs} epochs":
        dcgan["frames"][-1],
        f"compare_losses.py: LSGAN, {len(state['history'])} epochs":
        losses.generate(generator, state["fixed_latents"]),
    }
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    for axes, (label, frame) in zip(figure.subplots(3, 1), frames.items()):
        grid = frame[:32].view(2, 16, 28, 28).transpose(1, 2).reshape(56, 448)
        axes.imshow(grid.numpy(), cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.set_title(label, loc="left", fontsize="x-large")
    figure.savefig("docs/all_three.png", dpi=100)


if __name__ == "__main__":
    for make in (train_gan, train_dcgan_variant, compare_losses):
        folder = Path("outputs", make.__name__)
        if (folder / "checkpoint.pt").exists():
            make(folder)
            print(f"docs/{make.__name__}.png")
    for make in (experiments, all_three):
        make()
        print(f"docs/{make.__name__}.png")
