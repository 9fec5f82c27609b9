"""What the judge's figures react to: real training images that were spoilt on purpose.

Run it:  python docs/make/spoilt.py     (Two minutes. It prints the table of docs/results.md.)

Each set has 10,000 images, unless its name says another number, and is made from the last training
images. The judge has learnt from none of the last 10,000, but "no fours" and "threes only" need
some more. Of the sets of 500 there are twenty, each compared with 500 other test images: the rows
give their mean and standard deviation.
"""

import torch
import torch.nn.functional as F

import experiments
from experiments import compare_losses


def spoil(images, labels, judge):
    """Sets of images [N, 1, 28, 28] by their names. Takes the training images and their labels."""
    images, labels = images.flip(0), labels.flip(0)  # The judge has not learnt from the last ones.
    real = images[:10_000]
    rng = torch.Generator().manual_seed(0)
    places = torch.rand(len(real), 784, generator=rng).topk(3).indices
    specks = real.flatten(1).scatter(1, places, 1.0).view_as(real)
    blur = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).view(1, 1, 3, 3) / 16
    blurred = F.conv2d(real + 1, blur, padding=1) - 1  # Black is 0 meanwhile, as the padding is.
    threes = images[labels == 3][:10_000]
    surest = compare_losses.look_at(judge, real)[1].max(0).indices  # An image of each digit.
    return {
        "real images": real,
        "three white pixels at random on each": specks,
        "blurred (3 x 3, weights 1 2 1)": blurred,
        "no fours": images[labels != 4][:10_000],
        f"threes only ({len(threes):,})": threes,
        "ten images, one of each digit, all the time": real[surest].repeat(1000, 1, 1, 1),
        "noise": torch.rand(real.shape, generator=rng) * 2 - 1,
    }


def main():
    experiments.OUTPUT.mkdir(parents=True, exist_ok=True)
    images, labels, data_name = compare_losses.load_images()
    judge = compare_losses.prepare_judge(images, labels, data_name)
    sets = spoil(images, labels, judge)
    rows = {name: [compare_losses.measure(judge, part)] for name, part in sets.items()}
    real_features = judge.real_features
    for name in list(sets)[:3]:
        row = rows[f"{name}, 500 at a time"] = []
        for part, features in zip(sets[name].split(500), real_features.split(500)):
            judge.real_features = features
            row.append(compare_losses.measure(judge, part))
    print(f"{experiments.processor()}, torch {torch.__version__}, judge against {judge.about}\n\n"
          f"{compare_losses.figure_table(rows)}")


if __name__ == "__main__":
    main()
