"""What a run is given: the data, read, downloaded or drawn; the constants; the device; the console.
What is tested with one script here is one text in all three.
"""

import importlib
import shutil
import socket
import struct
import sys
import urllib.error
import urllib.request
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torchvision
from conftest import SCRIPTS, edited, set_constants

FILES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
         "t10k-labels-idx1-ubyte"]


@pytest.fixture
def reader():
    """A script whose data, drawn or read, is tested."""
    return importlib.import_module("train_gan")


@pytest.fixture
def raw(reader, tmp_path, monkeypatch):
    """The folder of a small MNIST: image n of 40 has the grey value 3 * n above black, and label
    n % 10. There is no network.
    """
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES:
        count = 40 if "train" in name else 30
        shape = (count, 28, 28) if "images" in name else (count,)
        values = torch.zeros(shape, dtype=torch.uint8)
        if "images" in name:
            values[:, :14] = (3 * torch.arange(count)).byte().view(-1, 1, 1)
        else:
            values += torch.arange(count).byte() % 10
        header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
        (folder / name).write_bytes(header + values.numpy().tobytes())
    monkeypatch.setattr(reader, "DATA_DIR", str(tmp_path / "data"))
    cut_network(monkeypatch)
    return folder


def cut_network(monkeypatch, timeouts=[]):
    def refuse(*arguments, **options):
        raise urllib.error.URLError("no network in the tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "setdefaulttimeout", timeouts.append)  # It would stay.


def refusal(function, *arguments, **options):
    with pytest.raises(SystemExit) as stop:
        function(*arguments, **options)
    return str(stop.value)


# Data on disk


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "KMNIST"])
def test_files_on_disk_become_one_tensor_from_minus_one_to_one(reader, raw, dataset, monkeypatch):
    raw.parent.rename(raw.parent.with_name(dataset))
    monkeypatch.setattr(reader, "DATASET", dataset)
    for train, count in ((True, 40), (False, 30)):
        images, labels, name = reader.load_images(train=train)
        assert name == dataset and images.dtype == torch.float32 and labels.dtype == torch.int64
        assert images.shape == (count, 1, 28, 28) and images[:, :, 14:].unique().tolist() == [-1]
        grey = torch.arange(count) * 3 / 127.5 - 1
        torch.testing.assert_close(images[:, 0, :14], grey.view(-1, 1, 1).expand(-1, 14, 28))
        assert labels.tolist() == [number % 10 for number in range(count)]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["half", "empty", "too long", "another file", "web page"])
def test_a_damaged_file_is_an_error_that_names_it_and_is_never_replaced(reader, raw, name, fault):
    content = (raw / name).read_bytes()
    damaged = {"half": content[: len(content) // 2], "too long": content + b"0", "empty": b"",
               "another file": (raw / FILES[FILES.index(name) ^ 1]).read_bytes(),
               "web page": b"<!DOCTYPE html><title>Please log in</title>" + bytes(999)}[fault]
    (raw / name).write_bytes(damaged)
    message = refusal(reader.load_images, train="train" in name)
    assert "damaged" in message and str(raw / name) in message and "elete" not in message
    assert (raw / name).read_bytes() == damaged, "it may be someone's only copy"


def test_a_shared_folder_that_is_read_only_works(reader, raw, tmp_path, monkeypatch, capsys):
    for variable in ("HOME", "USERPROFILE"):  # The second is for Windows.
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(reader, "DATA_DIR", "~/data")
    places = [*raw.iterdir(), raw, raw.parent, raw.parent.parent]
    before = {place: place.stat().st_mtime_ns for place in places}
    for place in places:
        place.chmod(0o555)  # No hindrance for root, who would leave traces in the times.
    try:
        assert reader.load_images()[2] == reader.load_images(train=False)[2] == "MNIST"
    finally:
        for place in places:
            place.chmod(0o755)
    assert capsys.readouterr() == ("", ""), "it works without a word"
    assert before == {place: place.stat().st_mtime_ns for place in places}
    assert set(raw.iterdir()) == {raw / name for name in FILES}


# Downloads, and drawn digits in their place


def test_missing_data_is_downloaded_once_and_only_then(reader, raw, tmp_path, monkeypatch, capsys):
    asked = []

    class Dataset(torchvision.datasets.MNIST):
        def download(self):
            asked.append(self.root)
            shutil.copytree(raw, tmp_path / "empty" / "MNIST" / "raw")

    Dataset.__name__ = "MNIST"
    monkeypatch.setattr(torchvision.datasets, "MNIST", Dataset)
    monkeypatch.setattr(reader, "DATA_DIR", str(tmp_path / "empty"))
    for _ in range(2):
        images, _, name = reader.load_images()
        assert (len(images), name) == (40, "MNIST")
    assert len(asked) == 1 and capsys.readouterr().out.count("Download  MNIST") == 1


def test_without_data_and_network_the_notice_says_what_to_do_and_digits_are_drawn(
    reader, raw, capsys, monkeypatch
):
    (raw / FILES[1]).unlink()
    cut_network(monkeypatch, timeouts := [])
    rest = {path: path.read_bytes() for path in raw.iterdir()}
    monkeypatch.setattr(reader, "draw_digits", lambda count, seed: ([count, seed], None))
    name = "drawn digits in place of MNIST"
    assert reader.load_images() == ([60_000, 0], None, name)
    assert reader.load_images(train=False) == ([10_000, 1], None, name)
    notice = capsys.readouterr().out
    assert "DOWNLOADED: Error downloading" in notice and "DRAWN DIGITS" in notice
    assert all(str(raw / file) in notice for file in FILES)
    assert rest == {path: path.read_bytes() for path in raw.iterdir()}, "nothing is touched"
    assert len(timeouts) == 2 and 5 <= timeouts[0] <= 30, "a server that never answers is given up"



def test_drawn_digits_look_like_those_of_mnist(reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cut_network(monkeypatch)
    images, labels = reader.draw_digits(2100)
    assert images.shape == (2100, 1, 28, 28) and images.dtype == torch.float32
    assert labels.dtype == torch.int64 and torch.bincount(labels).tolist() == [210] * 10
    assert not labels.equal(labels.sort().values), "shuffled"
    assert images.min() == -1 and images.max() == 1 and not list(tmp_path.iterdir())
    assert (images[:, :, [0, -1]] > 0).float().mean() < 0.01, "digits are not cut off"
    ink = (images.squeeze(1).double() + 1) / 2
    assert 0.08 < ink.mean() < 0.2, "MNIST has 0.13"
    inside = images.squeeze(1) > 0
    ink, places = inside.double(), torch.arange(28).double() - 13.5
    ink /= ink.sum((1, 2), keepdim=True)
    right, down = [(ink.sum(direction) * places).sum(1) for direction in (1, 2)]
    x, y = places.view(1, 1, 28) - right.view(-1, 1, 1), places.view(1, 28, 1) - down.view(-1, 1, 1)
    slant = (ink * x * y).sum((1, 2)) / (ink * y * y).sum((1, 2))  # Columns to the side, a row.
    # Mean and deviation. MNIST's first 5,000: heights 19.6 and 1.3, widths 14.9 and 4.0, slants
    # -0.13 and 0.29, and its digits are centred by their mass.
    for what, values, lowest, highest in (
        ("height", inside.any(2).sum(1).double(), (17, 1), (21, 2)),
        ("width", inside.any(1).sum(1).double(), (12.5, 2.5), (16, 5)),
        ("slant", slant, (-0.25, 0.15), (-0.05, 0.35)),
        ("right", right, (-0.5, 0), (0.5, 1.5)), ("down", down, (-0.5, 0), (0.5, 1.5)),
    ):
        for value, low, high in zip((values.mean(), values.std()), lowest, highest):
            assert low <= value <= high, f"{what}: {value:.2f}"


def test_drawn_digits_are_the_same_for_a_seed_vary_and_can_be_told_apart(reader):
    images, labels = reader.draw_digits(1000, seed=5)
    assert images.equal(reader.draw_digits(1000, seed=5)[0])
    assert not images[:100].equal(reader.draw_digits(100, seed=6)[0])
    assert len(images.unique(dim=0)) == 1000
    means = torch.stack([images[labels == digit].mean(0) for digit in range(10)])
    nearest = torch.cdist(images.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == labels).float().mean() > 0.6


# Images of your own, constants, and the device

GOOD = torch.linspace(-1, 1, 784).view(1, 1, 28, 28) * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
WRONG = {
    "bytes": GOOD.add(1).mul(127.5).byte(), "doubles": GOOD.double(), "no channel": GOOD[:, 0],
    "colours": GOOD.expand(2, 3, 28, 28), "32 x 32": torch.zeros(2, 1, 32, 32) - GOOD[0, 0, 0, 0],
    "0 to 1": (GOOD + 1) / 2, "0 to 255": (GOOD + 1) * 127.5, "-2 to 1": GOOD * 1.5 - 0.5,
    "alike": GOOD[:1].expand(9, -1, -1, -1), "black": -torch.ones(9, 1, 28, 28),
    "white": torch.ones(9, 1, 28, 28), "not a number": GOOD.index_fill(0, torch.tensor(1), np.nan),
    "an array": GOOD.numpy(),
}


@pytest.mark.parametrize("kind", WRONG)
def test_images_of_your_own_that_cannot_be_used_are_told_in_a_line(kind, reader, monkeypatch):
    monkeypatch.setattr(reader, "load_images", lambda: (WRONG[kind], None, "mine"))
    message = refusal(reader.main)
    assert str(WRONG[kind].dtype) in message and str(list(WRONG[kind].shape)) in message
    assert "Wanted: float32 [N, 1, 28, 28], -1 to 1" in message and "\n" not in message


CONSTANTS = {
    "DATASET": ["CIFAR10", "mnist", None], "EPOCHS": [0, 2.5, "3", None, True, 10**9],
    "BATCH_SIZE": [0, -1, 64.0], "LATENT_DIM": [0, [100]], "SAMPLE_EVERY": [0, "2"],
    "LEARNING_RATE": [0, -1e-3, "1e-3", float("nan")], "R1": [-0.1, None, float("inf"), True],
    "AVERAGE": [-1, float("inf"), "8"], "GENERATOR": ["MLP", None], "DISCRIMINATOR": ["conv"],
    "TRICKS": ["ttur", ["TTUR"]], "LOSSES": ["BCE", [], ["bce"], ["BCE", "BCE"]],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_constant_that_would_fail_late_or_do_nothing_is_refused(name, tmp_path, monkeypatch):
    script = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    wrong = {**CONSTANTS, "BATCH_SIZE": [*CONSTANTS["BATCH_SIZE"], *([1] * (name != "train_gan"))]}
    for constant in wrong.keys() & vars(script).keys():
        for value in wrong[constant]:
            with monkeypatch.context() as patch:
                patch.setattr(script, constant, value)
                message = refusal(script.main)
            assert message.startswith(f"{constant} = {value!r} must be "), message
            assert "\n" not in message
    assert not list(tmp_path.iterdir()), "before anything is done"
    lowest = {"EPOCHS": 1, "LATENT_DIM": 1, "SAMPLE_EVERY": 1, "LEARNING_RATE": 1e-7, "R1": 0,
              "AVERAGE": 0.0, "BATCH_SIZE": 1 if name == "train_gan" else 2, "DATASET": "drawn",
              "GENERATOR": "conv", "TRICKS": ["ttur", "spectral_norm"]}
    set_constants(monkeypatch, script, {**lowest, "LOSSES": [*vars(script).get("LOSS_TABLE", [])]})
    script.check_constants()


def test_the_cpu_is_taken_without_a_look_at_the_gpu_and_a_gpu_that_fails_in_few_words(
    reader, monkeypatch, capsys
):
    ones = MagicMock(side_effect=[torch.ones(1), *[RuntimeError("CUDA error: busy. " * 99)] * 2])
    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert reader.find_device() == torch.device("cpu") and not capsys.readouterr().out
    ones.assert_called_once_with(1, device="cpu")
    monkeypatch.setattr(reader, "DEVICE", "auto")
    assert reader.find_device() == torch.device("cpu")
    assert len(note := capsys.readouterr().out) < 300 and "'cuda'" in note and "busy" in note
    monkeypatch.setattr(reader, "DEVICE", "cuda:1")
    assert len(message := refusal(reader.find_device)) < 300 and "'cuda:1'" in message


# The console


def pasted(name, before_guard="", **constants):
    """Run the text of a script as Python does where it is started, but without a file."""
    text = edited(name, **constants).replace("\nif __name__", f"\n{before_guard}\nif __name__")
    exec(compile(text, "<cell>", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("name", SCRIPTS)
def test_pasted_into_a_notebook_offline_a_script_runs_and_says_what_data_it_took(
    name, tmp_path, monkeypatch, capsys
):
    cut_network(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["/x/ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.chdir(tmp_path)
    quick = "draw_curves = draw_comparison = lambda *_: Figure((1, 1))"
    pasted(name, f"{quick}\nmeasure = lambda *_: dict(distance=1.0)", DATASET="FashionMNIST",
           LOSSES=["BCE"], OUTPUT_DIR="out")
    name_of_data, (folder,) = "drawn digits in place of FashionMNIST", (tmp_path / "out").glob("r*")
    assert name_of_data in capsys.readouterr().out.strip().splitlines()[-2]
    for file in ("run.txt", "history.csv", *["comparison.md"] * (name == "compare_losses")):
        assert name_of_data in (folder / file).read_text("utf-8"), file


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_argument_is_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"/home/me/{name}.py", "--epochs", "3"])
    message = refusal(pasted, name, f"__file__ = '/home/me/{name}.py'")
    assert "edit the constants" in message and "\n" not in message and not list(tmp_path.iterdir())
