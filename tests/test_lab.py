"""The blind test of docs/lab.md: its picture shows what its key says, 32 digits of each kind."""

import csv
import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

import train_gan

PAGE = ROOT / "docs" / "lab.md"
REAL, FAKE = range(1, 128, 3), range(130, 255, 3)  # Each image is of one grey, which names it.


def run_block(number):
    """Run the page's block. Returns the key's rows, and the grey in the middle of each panel."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    names, old = {}, 'RUN, NUMBER = "outputs/train_gan/run_1", 1\n'
    assert old in block and len(block.splitlines()) <= 25
    exec(compile(block.replace(old, old[:-2] + f"{number}\n"), "lab.md", "exec"), names)
    picture = np.asarray(Image.open("blind_test.png").convert("L"))
    height, width = picture.shape
    greys = []
    for panel in names["figure"].axes:
        left, low, right, high = panel.get_position().extents  # Shares of the picture, from below.
        row, column = height * (1 - (low + high) / 2), width * (left + right) / 2
        greys.append(int(picture[int(row), int(column)]) // 3 * 3 + 1)  # Drawing may round.
        assert panel.get_title() == str(len(greys))
    with open("blind_test_key.csv", newline="") as key:
        return list(csv.reader(key)), greys


@pytest.fixture(autouse=True)
def finished_run(monkeypatch, tmp_path):
    """A folder with the generated digits of a run, and real ones for train_gan.load_images()."""
    shade = torch.tensor(REAL).view(-1, 1, 1, 1) / 127.5 - 1
    images = shade.expand(-1, 1, 28, 28), torch.zeros(len(REAL)).long(), "greys"
    monkeypatch.setattr(train_gan, "load_images", lambda train=True: images)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "train_gan" / "run_1"
    folder.mkdir(parents=True)
    fakes = np.full((28, 28, len(FAKE)), FAKE, np.uint8).transpose(2, 0, 1)
    np.save(folder / "generated.npy", fakes)


def test_the_picture_of_the_blind_test_shows_what_the_key_says():
    found = [run_block(number) for number in (1, 2)]
    for key, greys in found:
        assert [number for number, _ in key] == [str(number) for number in range(1, 65)]
        assert [kind for _, kind in key] == ["fake" if grey in FAKE else "real" for grey in greys]
        assert set(greys) <= {*REAL, *FAKE} and len(set(greys)) == 64  # No digit twice.
        assert sum(kind == "real" for _, kind in key) == 32
    (key, greys), (other_key, other_greys) = found
    assert key != other_key and set(greys) != set(other_greys), "another NUMBER, other digits"
