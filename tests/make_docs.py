"""Draw the pictures in docs/ from the outputs of finished default runs.

    python train_gan.py && python tests/make_docs.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

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


if __name__ == "__main__":
    if Path("outputs/train_gan/checkpoint.pt").exists():
        train_gan(Path("outputs/train_gan"))
        print("docs/train_gan.png")
