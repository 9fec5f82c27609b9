"""Draw the pictures in docs/ from finished runs. A picture whose runs are missing is left out.

    python train_gan.py; python train_dcgan_variant.py; python compare_losses.py
    python docs/make/experiments.py tutorials tutorial_c gan lab_dcgan extensions
    python docs/make/pictures.py
"""

import re
from pathlib import Path

import numpy as np
import torch
from experiments import ROOT, place
from matplotlib.figure import Figure
from PIL import Image

GAN, DCGAN, LOSSES = (Path("outputs", name) for name in
                      ("train_gan", "train_dcgan_variant", "compare_losses"))  # fmt: skip


def load(folder):
    """The checkpoint of a run: after each epoch its row, and 64 images as uint8 [64, 28, 28]."""
    return torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)


def experiment(group, name, seed=0):
    """The folder of an experiment's run, if the scripts are still those that made it."""
    return place(group, name, seed)[2] / "run"


def show(axes, images, rows, columns, title, **options):
    """Draw the first of images, uint8 [N, 28, 28], in rows."""
    grid = torch.as_tensor(images)[: rows * columns].view(rows, columns, 28, 28).transpose(1, 2)
    axes.imshow(grid.reshape(28 * rows, 28 * columns).numpy(), cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, **options)


def side_by_side(frames, columns, title):
    """A figure of 8 rows of images for each title in frames."""
    height = 8.7 / len(frames) * 8 / columns + 0.6  # Of the images, and of the titles.
    figure = Figure(figsize=(9, height), layout="constrained")
    for axes, (label, images) in zip(figure.subplots(1, len(frames)), frames.items()):
        show(axes, images, 8, columns, label, fontsize="medium")
    figure.suptitle(title)
    return figure


def all_three():
    """Two rows of images of each script: the picture at the top of the README."""
    gan, dcgan = load(GAN), load(DCGAN)
    losses = np.load(LOSSES / "generated_bce-r1.npy", mmap_mode="r")
    state = torch.load(LOSSES / "checkpoint_bce-r1_0.pt", map_location="cpu", weights_only=True)
    frames = {
        f"train_gan.py: two plain networks, {len(gan['frames'])} epochs": gan["frames"][-1],
        f"train_dcgan_variant.py: BatchNorm and convolutions, {len(dcgan['frames'])} epochs":
        dcgan["frames"][-1],
        f"compare_losses.py: the loss BCE-R1, {len(state['history'])} epochs": losses[:32].copy(),
    }  # fmt: skip
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for axes, (label, images) in zip(figure.subplots(3, 1), frames.items()):
        show(axes, images, 2, 16, label, loc="left", fontsize="x-large")
    return figure


def train_gan():
    """The same latents after some epochs of the default run."""
    frames = load(GAN)["frames"]
    epochs = sorted({epoch for epoch in (1, 2, 6) if epoch < len(frames)} | {len(frames)})
    frames = {f"epoch {epoch}": frames[epoch - 1] for epoch in epochs}
    return side_by_side(frames, 4, "train_gan.py: the same 32 latents as G learns")


def train_dcgan_variant():
    """The same for the other script."""
    frames = load(DCGAN)["frames"]
    frames = {f"epoch {epoch}": frames[epoch - 1] for epoch in (1, 2, len(frames))}
    return side_by_side(frames, 8, "train_dcgan_variant.py: the same 64 latents as G learns")


def lesson(runs, title):
    """The last images of each run, and below them how sure D was after each epoch."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    for column, (label, run) in zip(figure.subplots(2, len(runs), squeeze=False).T, runs.items()):
        show(column[0], run["frames"][-1], 8, 8, label, fontsize="medium")
        for name, style in (("D(x)", "C0o-"), ("D(G(z))", "C1s--")):
            values = [row[name] for row in run["history"]]
            column[1].plot(range(1, len(values) + 1), values, style, ms=4, label=name)
        column[1].set(ylim=(0, 1), xlabel="epoch")
        column[1].xaxis.get_major_locator().set_params(integer=True)
        column[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    figure.suptitle(title)
    return figure


def tutorials():
    """Tutorial A's settings beside the default after as many steps."""
    runs = {"tutorial A's settings": load(experiment("tutorials", "A")),
            "train_gan.py's default": load(GAN)}  # fmt: skip
    return lesson(runs, "The same networks after 13,132 steps (tutorial: 469 in an epoch, default: 938)")


def tutorial_c():
    """The same for tutorial C, after 7,504 steps."""
    runs = {"tutorial C's settings": load(experiment("tutorial_c", "C", 42)),
            "train_dcgan_variant.py's default": load(DCGAN)}  # fmt: skip
    return lesson(runs, "The same G after 7,504 steps (tutorial: 469 in an epoch, default: 938)")


def report():
    """The figure of two runs that docs/report.md draws, by the lines on that page."""
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    (lines,) = [block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
                if "RUNS = " in block]  # fmt: skip
    runs = {"R1 = 0": str(experiment("lab_dcgan", "R1 = 0")),
            "R1 = 0.3": str(experiment("lab_dcgan", "R1 = 0.3"))}  # fmt: skip
    lines = re.sub(r"(?m)^RUNS = .*$", lambda old: f"RUNS = {runs}", lines)
    names = {}
    exec(re.sub(r"(?m)^figure\.savefig.*$", "", lines), names)
    return names["figure"]


def experiments():
    """Some of the experiments with train_gan.py, side by side."""
    names = ("as it is", "BETAS = (0.9, 0.999)", "AVERAGE = 0", "LATENT_DIM = 2", "ten steps of G")
    frames = {name: load(experiment("gan", name))["frames"][-1] for name in names}
    return side_by_side(frames, 4, "train_gan.py with one change each, after 4 epochs")


def extensions():
    """The conditional GAN of docs/extensions.md: a column for each digit."""
    images = load(experiment("extensions", "conditional"))["frames"][-1]  # [80, 28, 28]
    figure = Figure(figsize=(6, 5.2), layout="constrained")
    images = images.view(10, 8, 28, 28).transpose(0, 1).flatten(0, 1)
    show(figure.subplots(), images, 8, 10, "Asked for 0, 1, 2, 3, 4, 5, 6, 7, 8 and 9")
    return figure


def compare_losses():
    """The script's own figure, in fewer pixels and colours."""
    with Image.open(LOSSES / "comparison.png") as picture:
        picture = picture.convert("RGB")
    picture.thumbnail((1000, 1400), Image.Resampling.LANCZOS)
    return picture.quantize(64, dither=Image.Dither.NONE)


if __name__ == "__main__":
    for make in (all_three, train_gan, train_dcgan_variant, tutorials, tutorial_c, experiments, report,
                 extensions, compare_losses):  # fmt: skip
        path = Path("docs", f"{make.__name__}.png")
        try:
            made = make()
        except FileNotFoundError as error:
            print(f"Left out {path}: {error.filename} is missing")
            continue
        if isinstance(made, Image.Image):
            made.save(path, optimize=True)
        else:
            made.savefig(path, dpi=100)
        print(path)
