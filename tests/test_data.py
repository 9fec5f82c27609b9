"""Reading MNIST, what happens where it is missing or damaged, and the drawn digits."""

import builtins
import importlib
import os
import shutil
import socket
import struct
import threading
import time
import urllib.error
import urllib.request

import pytest
import torch
import torchvision

FILES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}


@pytest.fixture
def script():
    """One script is enough here: another test holds these functions equal in all of them."""
    return importlib.import_module("train_gan")


def write_idx(path, numbers):
    """A file of MNIST's format that holds these numbers, uint8 [N, 28, 28] or [N]."""
    header = struct.pack(f">BBBB{numbers.dim()}I", 0, 0, 8, numbers.dim(), *numbers.shape)
    path.write_bytes(header + numbers.numpy().tobytes())


def numbers_of(name):
    """The upper half of image n is filled with the byte n % 256, and label n is n % 10."""
    count, *size = FILES[name]
    if not size:
        return (torch.arange(count) % 10).byte()
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    images[:, :14] = (torch.arange(count) % 256).byte().view(-1, 1, 1)
    return images


@pytest.fixture(scope="module")
def lookalike(tmp_path_factory):
    """A folder that holds four files of MNIST's size under the names of MNIST and FashionMNIST."""
    folder = tmp_path_factory.mktemp("data")
    for dataset in ("MNIST", "FashionMNIST"):
        (folder / dataset / "raw").mkdir(parents=True)
        for name in FILES:
            write_idx(folder / dataset / "raw" / name, numbers_of(name))
    return folder


@pytest.fixture
def raw(script, lookalike, tmp_path, monkeypatch):
    """A folder of links to the files above, for a test that damages one, with no network."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).hardlink_to(lookalike / "MNIST" / "raw" / name)
    monkeypatch.setattr(script, "DATA_DIR", str(tmp_path / "data"))
    cut_network(monkeypatch)
    return folder


def cut_network(monkeypatch):
    def refuse(*arguments, **options):
        raise urllib.error.URLError("no network in the tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST"])
def test_files_on_disk_become_one_tensor_from_minus_one_to_one(
    script, lookalike, dataset, monkeypatch
):
    monkeypatch.setattr(script, "DATA_DIR", str(lookalike))
    monkeypatch.setattr(script, "DATASET", dataset)
    cut_network(monkeypatch)
    for train, count in ((True, 60_000), (False, 10_000)):
        images, labels, name = script.load_images(train=train)
        assert name == dataset
        assert images.shape == (count, 1, 28, 28) and images.dtype == torch.float32
        assert labels.shape == (count,) and labels.dtype == torch.int64
        assert images[0].unique().tolist() == [-1] and images[255].unique().tolist() == [-1, 1]
        assert images[51, 0, :14].unique().item() == pytest.approx(51 / 127.5 - 1)
        assert images[51, 0, 14:].unique().item() == -1
        assert labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["cut short", "too long", "zeroed", "empty"])
def test_a_damaged_file_is_named_and_never_replaced(script, raw, name, fault):
    content = (raw / name).read_bytes()
    (raw / name).unlink()
    damaged = {
        "cut short": content[:-1],
        "too long": content + b"0",
        "zeroed": bytes(len(content)),
        "empty": b"",
    }[fault]
    (raw / name).write_bytes(damaged)
    with pytest.raises(SystemExit, match=name) as stop:
        script.load_images(train="train" in name)
    assert "damaged" in str(stop.value) and "\n" not in str(stop.value)
    assert "elete" not in str(stop.value), "what cannot be read may be someone's only copy"
    assert (raw / name).read_bytes() == damaged


WRONG = {
    "labels of 10": lambda labels: labels.where(labels != 3, 10),
    "labels of 200": lambda labels: labels.index_fill(0, torch.tensor([59_999]), 200),
    "labels from 1 to 10": lambda labels: labels + 1,
    "no label 7": lambda labels: labels.where(labels != 7, 1),
    "labels all 0": torch.zeros_like,
    "random pixels": lambda images: images.random_(generator=torch.Generator().manual_seed(0)),
    "black pixels": torch.zeros_like,
    "grey pixels": lambda images: torch.full_like(images, 60),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_file_of_the_right_size_with_wrong_content_is_an_error_of_one_line(script, raw, fault):
    name = f"train-{'labels-idx1' if 'label' in fault else 'images-idx3'}-ubyte"
    (raw / name).unlink()
    write_idx(raw / name, WRONG[fault](numbers_of(name)))
    with pytest.raises(SystemExit, match=name) as stop:
        script.load_images()
    assert "\n" not in str(stop.value)


def test_a_file_that_may_not_be_read_is_an_error_of_one_line_without_advice_to_delete(
    script, raw, monkeypatch
):
    real = builtins.open

    def forbidden(path, *arguments, **options):
        if "t10k-images" in str(path) or "train-images" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", forbidden)
    with pytest.raises(SystemExit, match="Permission denied") as stop:
        script.load_images()
    message = str(stop.value)
    assert str(raw) in message and "elete" not in message and "\n" not in message


def test_a_folder_that_is_shared_and_read_only_works_without_a_word(script, raw, capsys):
    places = [*raw.iterdir(), raw, raw.parent, raw.parent.parent]
    before = {place: place.stat().st_mtime_ns for place in places}
    for place in places:
        place.chmod(0o555)  # No hindrance for root, who would leave traces in the times.
    try:
        assert script.load_images()[2] == "MNIST" and script.load_images(train=False)[2] == "MNIST"
    finally:
        for place in places:
            place.chmod(0o755)
    assert capsys.readouterr() == ("", "")
    assert before == {place: place.stat().st_mtime_ns for place in places}
    assert sorted(raw.iterdir()) == sorted(places[:4])


def test_a_tilde_in_data_dir_is_the_home_folder(script, raw, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):  # The second is for Windows.
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(script, "DATA_DIR", "~/data")
    assert script.load_images()[2] == "MNIST"


def test_missing_files_without_network_give_the_notice_and_drawn_digits(
    script, raw, capsys, monkeypatch
):
    (raw / "train-labels-idx1-ubyte").unlink()
    rest = {path: path.read_bytes() for path in raw.iterdir()}
    monkeypatch.setattr(script, "draw_digits", lambda count, seed: ([count, seed], None))
    assert script.load_images() == ([60_000, 0], None, "drawn digits")
    assert script.load_images(train=False) == ([10_000, 1], None, "drawn digits")
    notice = capsys.readouterr().out
    assert "MNIST IS NOT THERE AND CANNOT BE DOWNLOADED: " in notice
    assert "DRAWN DIGITS" in notice and str(raw) in notice
    assert all(name in notice for name in FILES)
    assert rest == {path: path.read_bytes() for path in raw.iterdir()}, "nothing is touched"


def test_a_download_that_fails_without_a_word_is_told_by_its_kind(
    script, tmp_path, monkeypatch, capsys
):
    class TimeOut(torchvision.datasets.MNIST):
        def __init__(self, *arguments, **options):
            raise TimeoutError

    monkeypatch.setattr(torchvision.datasets, "MNIST", TimeOut)
    monkeypatch.setattr(script, "DATA_DIR", str(tmp_path))
    assert script.fetch_dataset(True) is None
    assert "DOWNLOADED: TimeoutError" in capsys.readouterr().out


def test_a_server_that_accepts_and_never_answers_is_given_up(script, tmp_path, monkeypatch, capsys):
    set_timeout, seconds = socket.setdefaulttimeout, []

    def short(value):
        seconds.append(value)
        set_timeout(value and 0.2)

    monkeypatch.setattr(socket, "setdefaulttimeout", short)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(script, "DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(script, "draw_digits", lambda count, seed: (count, None))
    start = time.perf_counter()
    with socket.create_server(("127.0.0.1", 0)) as server:
        hang_up = threading.Timer(4, server.close)  # For a script that would wait forever.
        hang_up.start()
        mirror = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [mirror, mirror])
        assert script.load_images() == (60_000, None, "drawn digits")
        hang_up.cancel()
    set_timeout(None)  # For the other tests.
    assert time.perf_counter() - start < 4
    printed = capsys.readouterr().out
    assert "Download  MNIST, 12 to 31 MB" in printed.splitlines()[0]
    assert "timed out" in printed and "DRAWN DIGITS" in printed
    assert 5 <= seconds[0] <= 30


def test_missing_data_is_downloaded_once(script, tmp_path, lookalike, monkeypatch, capsys):
    calls = []

    class Dataset:
        resources = torchvision.datasets.MNIST.resources

        def __init__(self, root, train=True, download=False):
            calls.append(download)
            if download:
                shutil.copytree(lookalike / "MNIST", tmp_path / "MNIST", copy_function=os.link)
            self.data = torch.tensor([0, 0, 200]).byte().view(3, 1, 1).expand(3, 28, 28)
            self.targets = torch.arange(10)

    monkeypatch.setattr(script, "DATA_DIR", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "MNIST", Dataset)
    assert script.load_images()[2] == "MNIST"
    assert script.load_images()[2] == "MNIST"
    assert calls == [True, False], "a second run finds the files and does not download"
    assert "Download  MNIST" in capsys.readouterr().out


def test_drawn_digits_need_no_file_and_no_network(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "DATASET", "drawn")
    draw = script.draw_digits
    monkeypatch.setattr(script, "draw_digits", lambda count, seed: draw(count // 1000, seed))
    cut_network(monkeypatch)
    images, labels, name = script.load_images()
    assert images.shape == (60, 1, 28, 28) and labels.shape == (60,) and name == "drawn digits"
    assert list(tmp_path.iterdir()) == []


def test_drawn_digits_are_images_of_all_ten_digits_evenly(script):
    images, labels = script.draw_digits(2100)
    assert images.shape == (2100, 1, 28, 28) and images.dtype == torch.float32
    assert labels.dtype == torch.int64 and torch.bincount(labels).tolist() == [210] * 10
    assert not labels.equal(labels.sort().values), "shuffled"
    assert images.min() == -1 and images.max() == 1
    ink = (images + 1).mean((1, 2, 3)) / 2
    assert 0.08 < ink.mean() < 0.2, f"{ink.mean():.3f} of the area is ink; MNIST has 0.13"
    assert ink.min() > 0.005, "no image is empty"
    border = torch.cat([images[:, :, 0].flatten(), images[:, :, -1].flatten()])
    assert (border > 0).float().mean() < 0.01, "digits are not cut off"


def test_drawn_digits_are_centred_by_their_mass(script):
    images, _ = script.draw_digits(1000)
    ink = (images.squeeze(1) + 1) / (images + 1).sum((1, 2, 3))[:, None, None]
    places = torch.arange(28) - 13.5
    for direction in (1, 2):
        centre = (ink.sum(direction) * places).sum(1)
        assert abs(centre.mean()) < 0.5 and centre.std() < 1.5, f"{centre.mean()}, {centre.std()}"


def test_drawn_digits_have_about_the_size_and_slant_of_those_of_mnist(script):
    ink = (script.draw_digits(2000)[0].squeeze(1) > 0).double()
    heights, widths = ink.amax(2).sum(1), ink.amax(1).sum(1)
    places = torch.arange(28).double() - 13.5
    ink /= ink.sum((1, 2), keepdim=True)
    x = places.view(1, 1, 28) - (ink.sum(1) * places).sum(1).view(-1, 1, 1)
    y = places.view(1, 28, 1) - (ink.sum(2) * places).sum(1).view(-1, 1, 1)
    slants = (ink * x * y).sum((1, 2)) / (ink * y * y).sum((1, 2))  # Columns to the side, a row.
    found = [round(v.item(), 2) for s in (heights, widths, slants) for v in (s.mean(), s.std())]
    # MNIST's first 5,000: heights 19.6 and 1.3, widths 14.9 and 4.0, slants -0.13 and 0.29.
    limits = [(17, 21), (1, 2), (12.5, 16), (2.5, 5), (-0.25, -0.05), (0.15, 0.35)]
    assert all(low < value < high for value, (low, high) in zip(found, limits)), found


def test_drawn_digits_are_the_same_for_the_same_seed_only(script):
    first, again, other = (script.draw_digits(100, seed)[0] for seed in (5, 5, 6))
    assert first.equal(again) and not first.equal(other)


def test_drawn_digits_vary_within_a_digit_and_differ_between_digits(script):
    images, labels = script.draw_digits(1000)
    means = torch.stack([images[labels == digit].mean(0) for digit in range(10)])
    for digit in range(10):
        of_digit = images[labels == digit]
        assert len(of_digit.unique(dim=0)) == 100
    nearest = torch.cdist(images.flatten(1), means.flatten(1)).argmin(1)
    right = (nearest == labels).float().mean().item()
    assert right > 0.6, f"the nearest mean image names only {right:.2f} of the drawn digits"
