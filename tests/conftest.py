"""What all tests share: the scripts, made small, and a seeded GAN of each.

Some files of tests are for all scripts and some for one of them, so keep the three scripts together.
"""

import functools
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# Constants that make a script quick: tiny networks where it has constants for them, few samples.
SMALL = {
    "train_gan": {"GENERATOR_HIDDEN": (16,), "DISCRIMINATOR_HIDDEN": (16,), "LATENT_DIM": 8},
    "train_dcgan_variant": {"LATENT_DIM": 8},
    "compare_losses": {
        "GENERATOR_HIDDEN": (16,), "DISCRIMINATOR_HIDDEN": (16,), "LATENT_DIM": 8, "SAMPLES": 100,
    },
}
SCRIPTS = sorted(name for name in SMALL if (ROOT / f"{name}.py").exists())


def pytest_configure(config):
    config.addinivalue_line("markers", "mnist: needs the real MNIST in data/")
    config.addinivalue_line("markers", "gpu: needs a CUDA or MPS device")
    config.addinivalue_line("markers", "waits: for a process that runs beside the other tests")
    config.addinivalue_line("filterwarnings", "error")
    # Old versions of matplotlib call functions of pyparsing by names that are outdated now.
    config.addinivalue_line("filterwarnings", "ignore:'.*' .*deprecated:DeprecationWarning")
    # One thread is as fast as several for networks this small, and does not disturb the machine.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    missing = {}
    if not (ROOT / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
        missing["mnist"] = "the real MNIST is not in data/"
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        missing["gpu"] = "there is no GPU"
    for item in items:
        for mark, reason in missing.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
    # Last what waits for other processes, and then what uses all processor cores.
    items.sort(key=lambda item: [bool(item.get_closest_marker(name)) for name in ("mnist", "waits")])


@pytest.fixture(autouse=True)
def no_gpu(request, monkeypatch):
    """The scripts find no GPU, because the tests know what a CPU does. Those for a GPU find it."""
    if not request.node.get_closest_marker("gpu"):
        no = functools.cache(lambda: False)  # A cached function, as torch expects it to be.
        monkeypatch.setattr(torch.cuda, "is_available", no)
        monkeypatch.setattr(torch.backends.mps, "is_available", no)


@pytest.fixture(params=SCRIPTS)
def script(request):
    """Each of the scripts, as an imported module."""
    return importlib.import_module(request.param)


@pytest.fixture(params=[name for name in SCRIPTS if name != "compare_losses"])
def gan_script(request):
    """Each of the scripts that train one GAN."""
    return importlib.import_module(request.param)


@pytest.fixture
def images():
    """48 images [48, 1, 28, 28] from -1 to 1: four bright squares in different places, and noise."""
    rng = torch.Generator().manual_seed(1)
    images = torch.full((48, 1, 28, 28), -1.0)
    for number in range(48):
        row, column = 4 + 10 * (number % 2), 4 + 10 * (number // 2 % 2)
        images[number, :, row : row + 10, column : column + 10] = 0.9
    return (images + 0.2 * torch.rand(images.shape, generator=rng)).clamp(-1, 1)


def dot_png(figure, dpi=110):
    """Stands in for the scripts' png() where a test is about files: drawing takes most of the time."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def small(small_with_pictures, monkeypatch):
    """The script as below, but with dots for pictures."""
    monkeypatch.setattr(small_with_pictures, "png", dot_png)
    for name in ("draw_grid", "draw_curves"):
        monkeypatch.setattr(small_with_pictures, name, lambda *arguments: None)
    return small_with_pictures


@pytest.fixture
def small_with_pictures(gan_script, images, tmp_path, monkeypatch):
    """A script that trains in no time: tiny networks, 48 images, output in tmp_path/out."""
    settings = {"EPOCHS": 3, "BATCH_SIZE": 20, "SAMPLE_EVERY": 2, "OUTPUT_DIR": str(tmp_path / "out")}
    for name, value in {**settings, **SMALL.get(gan_script.__name__, {})}.items():
        monkeypatch.setattr(gan_script, name, value)
    labels = torch.arange(48) % 4
    monkeypatch.setattr(gan_script, "load_images", lambda train=True: (images, labels, "squares"))
    return gan_script


@pytest.fixture
def gan(gan_script):
    """The script's GAN at its full size, with its optimizers, before the first step."""
    return gan_script.build_gan(torch.device("cpu"))


def needed_scripts(request, test):
    """The names of the scripts for which this test is to run in this session."""
    items = [item for item in request.session.items if item.originalname == test]
    return sorted({item.callspec.params["name"] for item in items})


def weights(network):
    """A copy of all weights and buffers of a network."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(first, second):
    """Whether two results of weights() agree bit for bit."""
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


class Placeless(TorchFunctionMode):
    """Collects the lines of a script that ask for a new tensor without saying where."""

    makers = {torch.rand, torch.randn, torch.randint, torch.randperm, torch.zeros, torch.ones,
              torch.full, torch.empty, torch.arange, torch.linspace, torch.tensor}  # fmt: skip

    def __init__(self, script):
        super().__init__()
        self.script, self.found = script, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        # Only lines of the script count: an optimizer of torch may keep its steps on the CPU.
        caller = sys._getframe(1)
        if function in self.makers and caller.f_code.co_filename == self.script.__file__:
            if "device" not in (kwargs or {}):
                self.found.append((function.__name__, f"line {caller.f_lineno}"))
        return function(*args, **(kwargs or {}))


SHRINK = """
import sys
sys.path.insert(0, ".")
import NAME as script
assert sys.stdout.tell() == 0, "importing printed something"
import os
assert os.listdir(".") == ["NAME.py"], "importing wrote something"
draw = script.draw_digits
script.draw_digits = lambda count, seed=0: draw(count // 100, seed)
for name, value in SETTINGS.items():
    assert hasattr(script, name), name
    setattr(script, name, value)
script.main()
"""


@pytest.fixture(scope="session", autouse=True)
def lonely(request, tmp_path_factory):
    """For each script a process that runs a copy alone in a folder, beside all other tests.

    It is for one test alone, and autouse so that the processes start before the first test.
    """
    found = {}
    test = "test_alone_in_a_folder_it_runs_and_writes_only_its_output"
    for name in needed_scripts(request, test):
        folder = tmp_path_factory.mktemp(name) / "a Zoë"
        folder.mkdir()
        (folder / f"{name}.py").write_bytes((ROOT / f"{name}.py").read_bytes())
        settings = {"DATASET": "drawn", "EPOCHS": 1, **SMALL.get(name, {})}
        code = SHRINK.replace("NAME", name).replace("SETTINGS", repr(settings))
        with open(folder.parent / "out.txt", "w") as out:  # A file, as a pipe has no position.
            found[name] = folder, subprocess.Popen(
                [sys.executable, "-B", "-c", code],
                cwd=folder, stdout=out, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
            )  # fmt: skip
    yield found
    for _, process in found.values():
        with process:  # Waits for its end and closes its pipes.
            process.kill()  # Where the tests stop at the first failure, say.
