"""What all tests share: the scripts, made small, and a seeded GAN of each.

Some files of tests are for all scripts and some for one of them, so keep the three together.
The tests set every constant that they rely on. So they pass with the constants of your own, too.

    python -m pytest            what takes less than a minute together
    python -m pytest -m slow    the rest: a kill between any two writes, two runs in one folder
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# The constants in all tests, each in the scripts that have it.
USUAL = {
    "DATASET": "MNIST", "DATA_DIR": "data", "LATENT_DIM": 100, "GENERATOR_HIDDEN": (256, 512),
    "DISCRIMINATOR_HIDDEN": (512, 256), "GENERATOR": "mlp", "DISCRIMINATOR": "flatten",
    "TRICKS": (), "LOSSES": ("BCE", "LSGAN", "WGAN"), "SEEDS": (0,), "EPOCHS": 3, "BATCH_SIZE": 64,
    "LEARNING_RATE": 1e-3, "BETAS": (0.0, 0.99), "R1": 0.3, "AVERAGE": 8, "DEVICE": "cpu",
    "SEED": 0, "RESUME": False, "SAMPLE_EVERY": 2, "SAMPLES": 10_000,
}  # fmt: skip
# Constants that make a script quick: tiny networks where it has constants for them, few samples.
SMALL = {
    "train_gan": {"GENERATOR_HIDDEN": (16,), "DISCRIMINATOR_HIDDEN": (16,), "LATENT_DIM": 8},
    "train_dcgan_variant": {"LATENT_DIM": 8},
    "compare_losses": {
        "GENERATOR_HIDDEN": (16,), "DISCRIMINATOR_HIDDEN": (16,), "LATENT_DIM": 8, "SAMPLES": 100,
    },
}  # fmt: skip
SCRIPTS = sorted(name for name in SMALL if (ROOT / f"{name}.py").exists())


def pytest_configure(config):
    config.addinivalue_line("markers", "mnist: needs the real MNIST in data/")
    config.addinivalue_line("markers", "gpu: needs a CUDA or MPS device")
    config.addinivalue_line("markers", "waits: for a process that runs beside the other tests")
    config.addinivalue_line("markers", "slow: left out unless you ask for it by -m slow")
    config.addinivalue_line("filterwarnings", "error")
    # Old versions of matplotlib call functions of pyparsing by names that are outdated now.
    config.addinivalue_line("filterwarnings", "ignore:'.*' .*deprecated:DeprecationWarning")
    # One thread is as fast as several for networks this small, and does not disturb the machine.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config, items):
    if not config.getoption("-m"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
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
    late = ("mnist", "waits")
    items.sort(key=lambda item: [bool(item.get_closest_marker(name)) for name in late])


@pytest.fixture(autouse=True)
def usual_constants(monkeypatch, tmp_path):
    """All scripts have the usual constants, and write below tmp_path."""
    for script in map(importlib.import_module, SCRIPTS):
        for name, value in {**USUAL, "OUTPUT_DIR": str(tmp_path / "out")}.items():
            if hasattr(script, name):
                monkeypatch.setattr(script, name, value)


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
    """48 images [48, 1, 28, 28] from -1 to 1: squares in four different places, and noise."""
    rng = torch.Generator().manual_seed(1)
    images = torch.full((48, 1, 28, 28), -1.0)
    for number in range(48):
        row, column = 4 + 10 * (number % 2), 4 + 10 * (number // 2 % 2)
        images[number, :, row : row + 10, column : column + 10] = 0.9
    return (images + 0.2 * torch.rand(images.shape, generator=rng)).clamp(-1, 1)


def make_small(script, images, monkeypatch):
    """Make a script train in no time: tiny networks, few images, few of the 10,000 judged ones."""
    for name, value in {"BATCH_SIZE": 20, **SMALL[script.__name__]}.items():
        monkeypatch.setattr(script, name, value)
    labels = torch.arange(len(images)) % 4
    monkeypatch.setattr(script, "load_images", lambda train=True: (images, labels, "squares"))
    latents = script.sample_latents
    few = lambda count, *rest: latents(min(count, 100), *rest)  # noqa: E731
    monkeypatch.setattr(script, "sample_latents", few)
    return script


def make_dots(script, monkeypatch):
    """Replace pictures by dots where a test is about files: drawing takes most of the time."""
    dot = Image.new("L", (2, 2))
    curves = SimpleNamespace(savefig=lambda file, dpi: dot.save(file, "PNG"))
    dots = {"draw_grid": dot, "draw_curves": curves, "draw_comparison": curves}
    for name, picture in dots.items():
        if hasattr(script, name):
            monkeypatch.setattr(script, name, lambda *arguments, picture=picture, **_: picture)
    return script


@pytest.fixture
def small_with_pictures(gan_script, images, monkeypatch):
    """A script that trains in no time, with output in tmp_path/out."""
    return make_small(gan_script, images, monkeypatch)


@pytest.fixture
def small(small_with_pictures, monkeypatch):
    """The same, but with dots for pictures."""
    return make_dots(small_with_pictures, monkeypatch)


@pytest.fixture
def gan(gan_script):
    """The script's GAN at its full size, with its optimizers, before the first step."""
    return gan_script.build_gan(torch.device("cpu"))


def weights(network):
    """A copy of all weights and buffers of a network."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(first, second):
    """Whether two results of weights() agree bit for bit."""
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


class Placeless(TorchFunctionMode):
    """Collects the lines of a script that make a tensor in the wrong place.

    Random numbers are drawn on the CPU, so that they are the same everywhere, and indices may stay
    there. All else says where.
    """

    random = {torch.rand, torch.randn, torch.randint, torch.randperm}
    others = {torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.linspace,
              torch.tensor}  # fmt: skip

    def __init__(self, script):
        super().__init__()
        self.script, self.found = script, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        # Only lines of the script count: an optimizer of torch may keep its steps on the CPU.
        caller, kwargs = sys._getframe(1), kwargs or {}
        if caller.f_code.co_filename == self.script.__file__:
            on_cpu = "generator" in kwargs and kwargs["generator"].device.type == "cpu"
            wrong = function in self.random and (not on_cpu or "device" in kwargs)
            placeless = "device" not in kwargs and kwargs.get("dtype") != torch.int64
            if wrong or function in self.others and placeless:
                self.found.append((function.__name__, f"line {caller.f_lineno}"))
        return function(*args, **kwargs)


def edited(name, **settings):
    """The text of a script with these constants, the usual ones else, and few drawn digits."""
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    constants = {**USUAL, "DATASET": "drawn", "EPOCHS": 1, **SMALL[name], **settings}
    lines = [f"if {key!r} in globals(): {key} = {value!r}" for key, value in constants.items()]
    lines += ["draw_all = draw_digits",
              "def draw_digits(count, seed=0): return draw_all(count // 300, seed)",
              "if __name__ =="]  # fmt: skip
    assert text.count("\nif __name__ ==") == 1
    return text.replace("\nif __name__ ==", "\n" + "\n".join(lines))


# A console that knows no umlaut, and the backend that a notebook's kernel exports.
UNKIND = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def start(*command, **options):
    """A process that runs Python with this command."""
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True,
                "env": {**os.environ, "OMP_NUM_THREADS": "1", **UNKIND}}  # fmt: skip
    return subprocess.Popen([sys.executable, "-B", *command], **{**defaults, **options})


LONELY = """
import os, sys
sys.path.insert(0, ".")
import NAME
assert sys.stdout.tell() == 0, "importing printed something"
assert os.listdir(".") == ["NAME.py"], "importing wrote something"
text = open("NAME.py", encoding="utf-8").read()
exec(compile(text, "<cell>", "exec"), {"__name__": "__main__"})  # As if pasted into a notebook.
"""


@pytest.fixture(scope="session", autouse=True)
def lonely(request, tmp_path_factory):
    """For each script a process that runs a copy alone in a folder, beside all other tests.

    It is for one test alone, and autouse so that the processes start before the first test.
    """
    found = {}
    test = "test_alone_in_a_folder_and_pasted_whole_it_runs_and_writes_only_its_output"
    for item in [item for item in request.session.items if item.originalname == test]:
        name = item.callspec.params["name"]
        folder = tmp_path_factory.mktemp(name) / "a Zoë"
        folder.mkdir()
        text = edited(name, OUTPUT_DIR="outputs/für — dich")
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
        out = open(folder.parent / "out.txt", "w")  # A file, as a pipe has no position.
        with out:
            command = LONELY.replace("NAME", name)
            found[name] = folder, start("-c", command, cwd=folder, stdout=out)
    yield found
    for _, process in found.values():
        with process:  # Waits for its end and closes its pipes.
            process.kill()  # Where the tests stop at the first failure, say.
