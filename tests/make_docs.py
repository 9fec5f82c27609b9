"""Draw the pictures in docs/ from the outputs of finished runs.

    python train_gan.py; python compare_losses.py; python tests/make_docs.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

EPOCHS = (1, 10, 30, 100)


def train_gan(folder):
    """The first 32 of the fixed latents' images after some epochs, side by side."""
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    for axes, epoch in zip(figure.subplots(1, len(EPOCHS)), EPOCHS):
        frame = saved["frames"][epoch - 1][:32].view(8, 4, 28, 28)
        axes.imshow(frame.transpose(1, 2).reshape(224, 112).numpy(), cmap="gray", vmin=0, vmax=255)
        axes.set(title=f"epoch {epoch}", xticks=[], yticks=[])
    data = saved["made with"]["data"]
    figure.suptitle(f"train_gan.py on {data}: the same 32 latents as G learns")
    figure.savefig("docs/train_gan.png", dpi=100)


def compare_losses(folder):
    """The script's own figure, in fewer pixels and colours."""
    with Image.open(folder / "comparison.png") as picture:
        picture = picture.convert("RGB")
    picture.thumbnail((1000, 1000), Image.Resampling.LANCZOS)
    picture.quantize(64, dither=Image.Dither.NONE).save("docs/compare_losses.png", optimize=True)


if __name__ == "__main__":
    for draw in (train_gan, compare_losses):
        folder = Path("outputs", draw.__name__)
        if (folder / "checkpoint.pt").exists():
            draw(folder)
            print(f"docs/{draw.__name__}.png")
