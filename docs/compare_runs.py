"""Put two or more runs side by side for a report: a figure of digits and curves, and a table.

    python docs/compare_runs.py outputs/train_gan/run_1 outputs/train_gan/run_2

The runs are those of train_gan.py or train_dcgan_variant.py. The current folder gets the figure,
compare_runs.png and .pdf, and the table of how good 10,000 images of each are, compare_runs.md.
"""

import csv
import os
import re
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import matplotlib.figure
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import compare_losses  # noqa: E402

# Column of history.csv, its value if D can only guess, its place in the figure, color and style.
CURVES = [("loss D", 2 * np.log(2), 1, "C0", "o-"), ("loss G", np.log(2), 1, "C1", "s--"),
          ("D(x)", 0.5, 2, "C2", "o-"), ("D(G(z))", 0.5, 2, "C3", "s--")]


def read_run(folder):
    """What a run left: 64 digits [8, 28, 8, 28], the rows of history.csv, constants as text."""
    for name in ("generated.npy", "history.csv", "run.txt"):
        if not (folder / name).exists():
            raise SystemExit(f"{folder} is not the folder of a run: it has no {name}.")
    digits = np.load(folder / "generated.npy")[:64].reshape(8, 8, 28, 28).swapaxes(1, 2)
    history = list(csv.DictReader((folder / "history.csv").read_text("utf-8").splitlines()))
    constants = dict(re.findall(r"(?m)^(\w+) = (.*)$", (folder / "run.txt").read_text("utf-8")))
    # Two may have come out otherwise: if the run was stopped, or if it had to use drawn digits.
    constants |= {"EPOCHS": history[-1]["epoch"], "DATASET": history[-1]["data"]}
    return SimpleNamespace(folder=folder, digits=digits, history=history, constants=constants)


def differences(run, runs):
    """The constants, NAME = value, in which a run differs from the first, or the first from any."""
    others = runs if run is runs[0] else runs[:1]
    return [f"{name} = {value}" for name, value in run.constants.items()
            if any(value != other.constants.get(name) for other in others)]


def draw(runs, names):
    """Make the figure, for the text of an A4 page: a row for each run, its digits and curves."""
    matplotlib.rcParams.update({"font.size": 7, "axes.titlesize": 7})
    gap = 0.3 + 0.13 * (max(map(len, names)) // 105)  # For titles. All sizes are in inches.
    side = min(1.9, 8.5 / len(runs) - gap)  # Of the square of digits.
    height = len(runs) * (side + gap) + 0.65
    figure = matplotlib.figure.Figure(figsize=(6.3, height))
    panels = figure.subplots(len(runs), 3, sharex="col", sharey="col",  # The same axes for all.
                             width_ratios=(side, 2.73 - side / 2, 2.73 - side / 2))
    figure.subplots_adjust(0.01, 0.65 / height, 0.98, 1 - gap / height, 0.17, gap / side)
    for row, run, title in zip(panels, runs, names):
        row[0].imshow(run.digits.reshape(224, 224), cmap="gray", vmin=0, vmax=255)
        row[0].set_title(textwrap.fill(title.replace(" = ", "\xa0=\xa0"), 105), loc="left")
        row[0].set_axis_off()
        for name, guess, place, color, style in CURVES:
            points = [(int(line["epoch"]), float(line[name])) for line in run.history]
            row[place].plot(*zip(*points), style, color=color, label=name, ms=2, lw=1)
            row[place].axhline(guess, color=color, ls=":", lw=1)
    for axes, top in zip(panels[-1, 1:], (None, 1)):
        axes.set(xlabel="epoch (dotted: if D only guesses)", ylim=(0, top))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.33 / side), ncols=2)
    figure.savefig("compare_runs.png", dpi=300)
    figure.savefig("compare_runs.pdf")


def main(arguments):
    folders = list(dict.fromkeys(Path(folder).resolve() for folder in arguments))  # Each once.
    if len(folders) < 2:
        raise SystemExit("Name the folders of two or more runs, such as outputs/train_gan/run_1.")
    runs, common = [read_run(folder) for folder in folders], os.path.commonpath(folders)
    names = [", ".join([folder.relative_to(common).as_posix(), *differences(run, runs)])
             for folder, run in zip(folders, runs)]
    draw(runs, names)
    data = [run.constants["DATASET"] for run in runs]
    if len(set(data)) > 1:
        print(f"Warning: the data differ ({', '.join(data)}). All are measured by the first.")
    judged = "drawn" if data[0].startswith("drawn digits") else data[0]
    if judged in ("drawn", "MNIST", "FashionMNIST", "KMNIST"):  # Not pictures of your own.
        compare_losses.DATASET = judged
    for name in ("DATA_DIR", "OUTPUT_DIR"):  # Beside compare_losses.py, if not here.
        if not Path(getattr(compare_losses, name)).expanduser().exists():
            setattr(compare_losses, name, ROOT / getattr(compare_losses, name))
    rows = {}
    for run, name in zip(runs, names):
        figures = compare_losses.measure_digits(run.folder / "generated.npy")
        rows["real images"], *_, rows[name] = figures.values()
    table = compare_losses.figure_table({name: [found] for name, found in rows.items()})
    table += "\nBy the judge of compare_losses.py: 10,000 digits of each, against 10,000 test images.\n"
    Path("compare_runs.md").write_text(table, encoding="utf-8")
    print(f"\n{table}\nFiles: compare_runs.png, compare_runs.pdf, compare_runs.md")


if __name__ == "__main__":
    main(sys.argv[1:])
