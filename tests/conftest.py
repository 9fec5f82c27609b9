"""What all tests share: the scripts with constants that the tests rely on, and small images.

Open test_gan.py first: it shows how a GAN is tested. The tests set every constant that they rely
on, so they also pass with the constants of your own.

    python -m pytest            what takes less than a minute together
    python -m pytest -m slow    the rest
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SCRIPTS = ["compare_losses", "train_dcgan_variant", "train_gan"]

# The constants in all tests, each in the scripts that have it.
USUAL = {
    "DATASET": "MNIST", "DATA_DIR": "data", "LATENT_DIM": 100, "GENERATOR_HIDDEN": [256, 512],
    "DISCRIMINATOR_HIDDEN": [512, 256], "GENERATOR": "mlp", "DISCRIMINATOR": "flatten",
    "TRICKS": [], "LOSSES": ["BCE", "LSGAN", "WGAN"], "SEEDS": [0], "EPOCHS": 3, "BATCH_SIZE": 64,
    "LEARNING_RATE": 1e-3, "BETAS": (0.0, 0.99), "R1": 0.3, "AVERAGE": 8, "DEVICE": "cpu",
    "SEED": 0, "RESUME": False, "SAMPLE_EVERY": 2,
}
# Constants that make a script quick.
TINY = {"GENERATOR_HIDDEN": [16], "DISCRIMINATOR_HIDDEN": [16], "LATENT_DIM": 8, "BATCH_SIZE": 20}

MNIST = ROOT / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte"
needs_mnist = pytest.mark.skipif(not MNIST.exists(), reason="the real MNIST is not in data/")
gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
needs_gpu = pytest.mark.skipif(gpu is None, reason="there is no GPU")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out unless you ask for it by -m slow")
    config.option.markexpr = config.option.markexpr or "not slow"
    config.addinivalue_line("filterwarnings", "error")
    # Old versions of matplotlib call functions of pyparsing by names that are outdated now.
    config.addinivalue_line("filterwarnings", "ignore:'.*' .*deprecated:DeprecationWarning")
    # One thread is as fast as several for networks this small, and does not disturb the machine.
    torch.set_num_threads(1)


def set_constants(monkeypatch, script, constants):
    """Set those of the constants that the script has."""
    for name, value in constants.items():
        if hasattr(script, name):
            monkeypatch.setattr(script, name, value)


@pytest.fixture(autouse=True)
def usual_constants(monkeypatch, tmp_path):
    """All scripts have the usual constants, and write below tmp_path."""
    for script in map(importlib.import_module, SCRIPTS):
        set_constants(monkeypatch, script, {**USUAL, "OUTPUT_DIR": str(tmp_path / "out")})


@pytest.fixture(params=SCRIPTS)
def script(request):
    """Each of the scripts, as an imported module."""
    return importlib.import_module(request.param)


@pytest.fixture(params=["train_dcgan_variant", "train_gan"])
def gan_script(request):
    """Each of the two scripts that train one GAN."""
    return importlib.import_module(request.param)


@pytest.fixture
def gan(gan_script):
    """The GAN of gan_script at its full size, with its optimizers, before the first step."""
    return gan_script.build_gan(torch.device("cpu"))


@pytest.fixture
def rng():
    """A stream of random numbers for latents."""
    return torch.Generator().manual_seed(7)


@pytest.fixture
def images():
    """48 images [48, 1, 28, 28] from -1 to 1: squares in four different places, and noise."""
    rng = torch.Generator().manual_seed(1)
    images = torch.full((48, 1, 28, 28), -1.0)
    for number in range(48):
        row, column = 4 + 10 * (number % 2), 4 + 10 * (number // 2 % 2)
        images[number, :, row : row + 10, column : column + 10] = 0.9
    return (images + 0.2 * torch.rand(images.shape, generator=rng)).clamp(-1, 1)


@pytest.fixture
def tiny(monkeypatch, images):
    """tiny(script) makes it train in no time: tiny networks, 48 images, 100 in place of 10,000."""

    def shrink(script):
        set_constants(monkeypatch, script, TINY)
        labels = torch.arange(len(images)) % 4
        monkeypatch.setattr(script, "load_images", lambda train=True: (images, labels, "squares"))
        latents = script.sample_latents
        few = lambda count, *rest: latents(min(count, 100), *rest)  # noqa: E731
        monkeypatch.setattr(script, "sample_latents", few)
        return script

    return shrink


@pytest.fixture
def meta(monkeypatch):
    """A device whose tensors have no values. One that a script leaves on the CPU is an error."""
    make = torch.optim.Adam.__init__  # Its fused=True knows no such device.
    plain = lambda *args, **options: make(*args, **{**options, "fused": False})  # noqa: E731
    monkeypatch.setattr(torch.optim.Adam, "__init__", plain)
    return torch.device("meta")


def weights(network):
    """A copy of all weights and buffers of a network."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(first, second):
    """Whether two results of weights() agree bit for bit."""
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def edited(name, **constants):
    """The text of a script with these constants, tiny ones else, and few drawn digits."""
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    constants = {**USUAL, **TINY, "DATASET": "drawn", "EPOCHS": 1, **constants}
    lines = [f"if {key!r} in globals(): {key} = {value!r}" for key, value in constants.items()]
    lines += ["draw_all = draw_digits",
              "def draw_digits(count, seed=0): return draw_all(count // 300, seed)"]
    body, guard = text.split("\nif __name__ ==")
    return "\n".join([body, *lines, "if __name__ ==" + guard])


def start(*command, **options):
    """A process that runs Python with this command."""
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True,
                "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    return subprocess.Popen([sys.executable, "-B", *command], **{**defaults, **options})
