"""Draw the pictures in docs/ from finished runs. A picture whose runs are missing is left out.

    python train_gan.py; python train_dcgan_variant.py; python compare_losses.py
    python docs/make/experiments.py tutorials tutorial_c gan lab_tasks extensions
    python docs/make/pictures.py     (Of each script, it takes the newest run.)
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from experiments import ROOT, latest, place  # It finds the scripts, too.
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

import train_dcgan_variant
import train_gan

sys.path.insert(0, str(ROOT / "docs"))
import compare_runs  # noqa: E402

GAN, DCGAN, LOSSES = [latest(Path("outputs", name)) for name in
                      ("train_gan", "train_dcgan_variant", "compare_losses")]


def load(folder, name="checkpoint.pt"):
    """The checkpoint of a run: after each epoch its row, and 64 images as uint8 [64, 28, 28]."""
    return torch.load(folder / name, map_location="cpu", weights_only=True)


def experiment(group, name, seed=0):
    """The folder of an experiment's run, if the scripts are still those that made it."""
    return latest(place(group, name, seed)[2])


def draw(axes, image, title="", **options):
    """Draw an image, uint8 or other numbers [H, W], with all its pixels."""
    axes.imshow(image, **{"cmap": "gray", "interpolation": "nearest", **options})
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, loc="left", fontsize="medium")


def tile(images, rows, columns):
    """The first of images [N, 28, 28] in rows: one image [28 * rows, 28 * columns]."""
    grid = torch.as_tensor(images)[: rows * columns].view(rows, columns, 28, 28).transpose(1, 2)
    return grid.reshape(28 * rows, 28 * columns)


def side_by_side(frames, columns, title):
    """A figure of 8 rows of images for each title in frames."""
    figure = Figure(figsize=(9, 70 / len(frames) / columns + 0.6), layout="constrained")
    panels = figure.subplots(1, len(frames), squeeze=False).flat
    for axes, (label, images) in zip(panels, frames.items()):
        draw(axes, tile(images, 8, columns), label)
    figure.suptitle(title)
    return figure


def epochs(run, columns, first):
    """The same latents after the first epochs and the last one of a default run."""
    frames = load(run)["frames"]
    numbers = sorted({min(number, len(frames)) for number in (*first, len(frames))})
    frames = {f"epoch {number}": frames[number - 1] for number in numbers}
    return side_by_side(frames, columns, f"{run.parent.name}.py: the same {8 * columns} latents")


def lesson(name, run, default):
    """25 images of two runs, and below how sure D was."""
    figure = Figure(figsize=(9, 7.2), layout="constrained")
    panels = figure.subplots(2, 2, height_ratios=(3, 1))
    for column, run, label in zip(panels.T, map(load, (run, default)), (name, "the default")):
        draw(column[0], tile(run["frames"][-1], 5, 5), f"{label}, {run['step']:,} steps")
        for name, style in (("D(x)", "C0o-"), ("D(G(z))", "C1s--")):
            values = [row[name] for row in run["history"]]
            column[1].plot(range(1, len(values) + 1), values, style, ms=4, label=name)
        column[1].set(ylim=(0, 1.3), yticks=[0, 0.5, 1], xlabel="epoch")
        column[1].xaxis.get_major_locator().set_params(integer=True)
        column[1].legend(loc="upper right", ncols=2)
    return figure


def gradient():
    """The gradient of D's logit at eight real and eight fake images, with R1 and without."""
    real = train_dcgan_variant.load_images()[0][:64]  # Batches of 64, because D has BatchNorm.
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    figure.suptitle("What D tells G: the red pixels should become brighter, the blue ones darker")
    for column, name in zip(figure.subplots(4, 2).T, ("4: R1 = 1", "4: R1 = 0")):
        run = load(experiment("lab_tasks", name))
        discriminator = train_dcgan_variant.Discriminator()
        discriminator.load_state_dict(run["discriminator"])
        fake, gradients = run["frames"][-1].unsqueeze(1) / 127.5 - 1, []
        for images in (real, fake):
            images = images.clone().requires_grad_()
            gradients += torch.autograd.grad(discriminator(images).sum(), images)  # As in R1.
        most = torch.cat(gradients).abs().quantile(0.995).item()
        for row, images, found in ((0, real, gradients[0]), (2, fake, gradients[1])):
            kind, length = "fake" if row else "real", found.flatten(1).norm(dim=1).mean().item()
            draw(column[row], tile(images[:8, 0], 1, 8), f"{name[3:]}: {kind} images")
            draw(column[row + 1], tile(found[:8, 0], 1, 8), cmap="RdBu_r", vmin=-most, vmax=most,
                 title=f"gradient: mean length {length:.2f}, darkest colours at {most:.2f}")
    return figure


def gan():
    """How the parts of a GAN work together, with a latent and a fake image of the default run."""
    latent = train_gan.sample_latents(64, train_gan.random_stream("pictures", train_gan.SEED))[0]
    real = train_gan.load_images()[0][:3].squeeze(1)
    figure = Figure(figsize=(9, 3.4))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 90), ylim=(0, 34))
    axes.set_axis_off()
    for x, y, image in ((3, 17.5, latent.view(10, 10)), (37, 20, load(GAN)["frames"][-1][0]),
                        (28.5, 3, real[0]), (37, 3, real[1]), (45.5, 3, real[2])):
        draw(axes.inset_axes((x, y, 8, 8), transform=axes.transData), image)
    for start, end, curve, style in (
            ((11.5, 21.5), (16.7, 21.5), 0, "k-"), ((31.3, 23.5), (36.5, 23.5), 0, "k-"),
            ((45.5, 23.5), (51, 23.5), 0, "k-"), ((54, 7), (60, 16.5), 0.3, "k-"),
            ((69, 21.5), (73.5, 21.5), 0, "k-"), ((60, 26.8), (24, 26.8), 0.15, "r--")):
        axes.annotate("", end, start, arrowprops={
            "arrowstyle": "-|>", "lw": 1.5, "color": style[0], "ls": style[1:], "shrinkA": 0,
            "shrinkB": 0, "connectionstyle": f"arc3,rad={curve}"})
    box = {"boxstyle": "round,pad=0.8", "fc": "#e8eef7", "ec": "C0"}
    for x, y, text, options in (
            (24, 21.5, "G\ngenerator", {"size": 16, "bbox": box}),
            (60, 21.5, "D\ndiscriminator", {"size": 16, "bbox": box}),
            (7, 14.5, "z: 100 random\nnumbers", {}), (41, 18.5, "G(z): a fake image", {}),
            (41, 1.5, "x: real images", {}),
            (81.5, 21.5, "the probability that\nthe image is real:\nD(x) or D(G(z))", {}),
            (42, 31.7, "the gradient: how G should change its image", {"color": "r"}),
            (74, 7, "D learns to answer 1 to x, 0 to G(z).\nG learns to make it answer 1.", {})):
        axes.text(x, y, text, ha="center", va="center", linespacing=1.4, **options)
    return figure


def report():
    """The figure that docs/compare_runs.py makes of two runs, in fewer pixels."""
    names = ["4: R1 = 1", "4: R1 = 0"]
    runs = [compare_runs.read_run(experiment("lab_tasks", name)) for name in names]
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # It leaves its files in the current folder.
        compare_runs.draw(runs, [f"train_dcgan_variant.py, {name[3:]}" for name in names])
        os.chdir(here)
        return smaller(Path(folder, "compare_runs.png"), 900)


def smaller(file, width):
    """A picture with fewer pixels and colours, so that its file is small, in a list."""
    with Image.open(file) as picture:
        picture = picture.convert("RGB")
    picture.thumbnail((width, 10_000), Image.Resampling.LANCZOS)
    return [picture.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)]


def animation():
    """At most 16 frames of train_gan.py's GIF, from the first to the last."""
    with Image.open(GAN / "training.gif") as gif:
        frames = [frame.convert("L").quantize(16) for frame in ImageSequence.Iterator(gif)]
    numbers = np.linspace(0, len(frames) - 1, min(16, len(frames))).round().astype(int)
    return [frames[number] for number in numbers]


PICTURES = {
    "gan.png": gan, "gradient.png": gradient, "train_gan.gif": animation,
    "train_dcgan_variant.png": lambda: epochs(DCGAN, 8, (1, 2)),
    "tutorials.png": lambda: lesson(
        "tutorial A's settings", experiment("tutorials", "A"), GAN),
    "tutorial_c.png": lambda: lesson(
        "tutorial C's settings", experiment("tutorial_c", "C", 42), DCGAN),
    "experiments.png": lambda: side_by_side({
        name.replace("DISCRIMINATOR_HIDDEN", "D's widths"):
        load(experiment("gan", name))["frames"][-1] for name in (
            "as it is", "BETAS = (0.9, 0.999)", "AVERAGE = 0", "LATENT_DIM = 2",
            "DISCRIMINATOR_HIDDEN = [16]")},
        4, "train_gan.py with one change each, after 4 epochs"),
    "extensions.png": lambda: side_by_side({  # A column for each digit.
        "Asked for 0, 1, 2, 3, 4, 5, 6, 7, 8 and 9": load(experiment("extensions", "conditional"))[
            "frames"][-1].view(10, 8, 28, 28).transpose(0, 1).flatten(0, 1)}, 10, ""),
    "compare_losses.png": lambda: smaller(LOSSES / "comparison.png", 1650),
    "interpolation.png": lambda: smaller(DCGAN / "interpolation.png", 604),
    "neighbours.png": lambda: smaller(DCGAN / "neighbours.png", 484),
    "report.png": report}  # The last one, because it changes matplotlib's settings.

if __name__ == "__main__":
    for name, make in PICTURES.items():
        path = Path("docs", name)
        try:
            made = make()
        except (FileNotFoundError, SystemExit) as error:
            print(f"Left out {path}: {error}")
            continue
        if isinstance(made, Figure):
            made.savefig(path, dpi=100)
        else:
            made[0].save(path, save_all=len(made) > 1, append_images=made[1:], optimize=True,
                         loop=0, duration=[400] * (len(made) - 1) + [3000])
        print(path, f"{path.stat().st_size // 1000} kB")
