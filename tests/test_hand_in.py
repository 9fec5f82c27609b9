"""The two small programs in docs/: the GAN to hand in, and the comparison of runs for a report."""

import importlib.util
import runpy
from pathlib import Path
from types import SimpleNamespace

import compare_losses
import numpy as np
import pytest
import torch
import torchvision
import train_gan
from conftest import ROOT, needs_mnist
from PIL import Image

MINIMAL, COMPARE = ROOT / "docs" / "minimal_gan.py", ROOT / "docs" / "compare_runs.py"
# With these constants, train_gan.py must compute what minimal_gan.py does.
CONSTANTS = {"LATENT_DIM": 100, "GENERATOR_HIDDEN": [256, 512], "DISCRIMINATOR_HIDDEN": [512, 256],
             "LEARNING_RATE": 1e-3, "BETAS": (0.0, 0.99), "R1": 0, "AVERAGE": 8}  # fmt: skip


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gan_to_hand_in_fits_on_a_page():
    assert len(MINIMAL.read_text(encoding="utf-8").splitlines()) <= 60


def test_it_computes_what_train_gan_computes(monkeypatch, request):
    # Numbers have 64 bits here, because Adam would make differences of rounding visible.
    torch.set_default_dtype(torch.float64)
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    for name, value in CONSTANTS.items():
        monkeypatch.setattr(train_gan, name, value)
    gan, minimal = train_gan.build_gan(torch.device("cpu")), load(MINIMAL)
    pairs = [(getattr(minimal, name), getattr(gan, name))
             for name in ("generator", "average", "discriminator")]  # fmt: skip
    for mine, theirs in pairs:
        for weight, other in zip(mine.parameters(), theirs.parameters(), strict=True):
            weight.data.copy_(other)
    for step in range(4):
        real_images = torch.rand(20, 1, 28, 28) * 2 - 1
        torch.manual_seed(step)
        losses = minimal.train_step(real_images, step)
        expected = train_gan.train_step(gan, real_images, torch.Generator().manual_seed(step))
        assert losses == pytest.approx(expected[:2].tolist(), rel=1e-9)
    for (mine, theirs), inputs in zip(pairs, [*torch.randn(2, 20, 100), real_images]):
        torch.testing.assert_close(mine(inputs), theirs(inputs), rtol=0, atol=1e-7)


def test_it_draws_a_picture_after_each_of_three_epochs(monkeypatch, tmp_path, capsys):
    few = SimpleNamespace(data=torch.randint(256, (70, 28, 28), dtype=torch.uint8))
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda folder, download: few)
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(MINIMAL), run_name="__main__")
    names = [f"minimal_gan_epoch_{epoch}.png" for epoch in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    torchvision.utils.save_image(main["average"](main["latents"]) / 2 + 0.5, "new.png")
    assert Path("new.png").read_bytes() == Path(names[2]).read_bytes()
    assert capsys.readouterr().out.count("\n") == 3


@pytest.mark.slow
@needs_mnist
def test_in_three_epochs_it_draws_ten_digits(monkeypatch, tmp_path):
    real = torchvision.datasets.MNIST(ROOT / "data")
    with monkeypatch.context() as patch:
        patch.setattr(torchvision.datasets, "MNIST", lambda folder, download: real)
        patch.chdir(tmp_path)
        average = runpy.run_path(str(MINIMAL), run_name="__main__")["average"]
    settings = {"DATASET": "MNIST", "DATA_DIR": str(ROOT / "data"), "OUTPUT_DIR": str(tmp_path)}
    for name, value in settings.items():
        monkeypatch.setattr(compare_losses, name, value)
    images = average(torch.randn(10_000, 100)).detach()
    *_, figures = compare_losses.measure_digits(images).values()
    assert figures["digits"] == 10, figures


@pytest.fixture
def compare(monkeypatch, tmp_path):
    """compare_runs.py as a module, in an empty folder, with distances that are made up.

    They are the number in the folder's name, and 100 more if the judge has learnt drawn digits.
    """

    def measure_digits(path):
        distance = int(path.parent.name[-1]) + 100 * (compare_losses.DATASET == "drawn")
        return {"real images": {"distance": 0.1}, path.name: {"distance": distance}}

    settings = {"DATASET": "KMNIST", "DATA_DIR": "data", "OUTPUT_DIR": str(tmp_path),
                "measure_digits": measure_digits}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setattr(compare_losses, name, value)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return load(COMPARE)


def make_run(folder, epochs=3, data="MNIST", **constants):
    """A folder with what a run leaves. The constants go into run.txt."""
    folder.mkdir(parents=True)
    np.save(folder / "generated.npy", np.random.randint(0, 256, (100, 28, 28), np.uint8))
    rows = [f"\n{epoch},1.3,{epoch},0.6,0.4,5.0,{data}" for epoch in range(1, epochs + 1)]
    rows.insert(0, "epoch,loss D,loss G,D(x),D(G(z)),seconds,data")
    (folder / "history.csv").write_text("".join(rows))
    lines = ["Output    a = b", *(f"{name} = {value!r}" for name, value in constants.items())]
    (folder / "run.txt").write_text("\n".join(lines))
    return str(folder)


def test_runs_come_into_one_figure_and_one_table(compare, tmp_path):
    first = make_run(tmp_path / "gan" / "run_1", DATASET="MNIST", R1=0.3, SEED=0, EPOCHS=3)
    second = make_run(tmp_path / "gan" / "run_2", DATASET="MNIST", R1=0, SEED=0, EPOCHS=3)
    third = make_run(tmp_path / "gan" / "run_3", 2, DATASET="MNIST", R1=0.3, SEED=0, EPOCHS=3)
    compare.main([first, second, third, second])  # The same folder again changes nothing.
    # The third run was stopped after two epochs. SEED and DATASET are the same in all.
    cells = [cell.strip() for cell in Path("compare_runs.md").read_text().split("|")]
    for name, distance in (("real images", "0.10"), ("run_1, R1 = 0.3, EPOCHS = 3", "1.00"),
                           ("run_2, R1 = 0", "2.00"), ("run_3, EPOCHS = 2", "3.00")):  # fmt: skip
        assert cells[cells.index(name) + 1] == distance
    assert compare_losses.DATASET == "MNIST"  # The judge learns what the runs learnt.
    assert compare_losses.DATA_DIR == ROOT / "data"  # There is no data/ in the current folder.
    with Image.open("compare_runs.png") as picture:
        assert picture.width == pytest.approx(16 / 2.54 * 300, abs=2)
    assert Path("compare_runs.pdf").read_bytes().startswith(b"%PDF")


def test_runs_of_two_scripts_and_other_data_are_told_apart(compare, tmp_path, capsys):
    first = make_run(tmp_path / "a" / "run_1", data="drawn digits", DATASET="MNIST", HIDDEN=[8])
    second = make_run(tmp_path / "b" / "run_1", DATASET="MNIST", TRICKS=["ttur"])
    compare.main([first, second])
    table = Path("compare_runs.md").read_text()
    assert "| a/run_1, DATASET = drawn digits, HIDDEN = [8] | 101.00 " in table
    assert "| b/run_1, DATASET = MNIST, TRICKS = ['ttur'] " in table
    assert capsys.readouterr().out.count("Warning") == 1


def test_what_is_no_run_is_an_error_of_one_line(compare, tmp_path):
    whole, no_images, no_history = [make_run(tmp_path / name) for name in "abc"]
    Path(no_images, "generated.npy").unlink()
    Path(no_history, "history.csv").unlink()
    for other in (whole, "nowhere", no_images, no_history):  # The first folder twice is one.
        with pytest.raises(SystemExit, match="^[^\n]+$"):
            compare.main([whole, other])
    assert not list(Path().iterdir())
