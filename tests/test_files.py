"""What a run prints and writes, how it resumes, and which constants it takes."""

import csv
import importlib
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import same
from PIL import Image


@pytest.fixture
def gan_script():
    """One script is enough here: most of these functions are one text in all scripts, which another
    test holds them to. The others have tests of their own for what differs."""
    return importlib.import_module("train_gan")


def output(script):
    return Path(script.OUTPUT_DIR)


def files(script):
    """The names in OUTPUT_DIR, but for the lock, which is no result."""
    names = [path.name for path in output(script).iterdir()]
    return sorted(name for name in names if name not in ("lock", "lock-journal"))


def checkpoint(script):
    return torch.load(output(script) / "checkpoint.pt", weights_only=True)


def differences(first, second, path=""):
    """The places where two checkpoints differ, but for the seconds, and what a run may change."""
    if isinstance(first, dict) and first.keys() == second.keys():
        pairs = [(f"{path}/{key}", first[key], second[key]) for key in first
                 if key not in ("seconds", "OUTPUT_DIR", "RESUME", "EPOCHS")]  # fmt: skip
    elif isinstance(first, list) and len(first) == len(second):
        pairs = [(f"{path}/{number}", *both) for number, both in enumerate(zip(first, second))]
    else:
        equal = first.equal(second) if torch.is_tensor(first) else first == second
        return [] if equal else [path]
    return [place for name, *both in pairs for place in differences(*both, name)]


def refusal(script):
    """The line with which a run ends that does not begin."""
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert "\n" not in str(stop.value)
    return str(stop.value)


class Terminal:
    """A terminal that keeps what is printed."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


# What is printed and written


def test_a_run_writes_the_files_that_its_docstring_names_and_says_where(
    small_with_pictures, capsys
):
    small = small_with_pictures
    small.main()
    printed = capsys.readouterr().out
    listed = small.__doc__.split("It writes to")[1].split("A new run")[0]
    promised = set(re.findall(r"\w+\.(?:png|gif|csv|npy|pt|txt|md)", listed))
    assert {re.sub(r"\d\d\d", "001", name) for name in files(small)} == promised
    pictures = {"samples_epoch_001.png", "samples_epoch_002.png", "samples_epoch_003.png"}
    assert pictures <= set(files(small)), "the first, the multiples of SAMPLE_EVERY, the last"
    for word in ("squares", "48 images", "cpu", torch.__version__, "threads", "parameters"):
        assert word in printed, word
    assert str(output(small).resolve()) in printed
    for name in files(small):
        if name.endswith("png"):
            with Image.open(output(small) / name) as picture:
                assert picture.width >= 900 and len(picture.convert("L").getcolors(256)) > 20, name


def test_run_txt_tells_what_the_run_was(small, monkeypatch):
    monkeypatch.setattr(small, "SEED", 17)
    small.main()
    lines = (output(small) / "run.txt").read_text(encoding="utf-8").splitlines()
    for name, value in small.check_constants().items():
        assert f"{name} = {value!r}" in lines
    assert "SEED = 17" in lines and any("squares" in line for line in lines)
    assert any(f"torch {torch.__version__}" in line for line in lines)


def test_the_table_has_one_header_and_one_row_an_epoch(small, capsys):
    small.main()
    printed = capsys.readouterr().out
    assert len(re.findall(r"^epoch +loss D", printed, re.M)) == 1
    assert re.findall(r"^ +(\d+) +[\d.]+ +[\d.]+ +[01]\.\d+ ", printed, re.M) == ["1", "2", "3"]
    assert "\r" not in printed, "the moving line is for terminals only"


def test_a_terminal_gets_a_line_that_moves_within_the_epoch(small, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(small, "BATCH_SIZE", 2)
    small.main()
    assert "\r  step 20 of 24\r" in terminal.text
    lines = [line.rsplit("\r", 1)[-1] for line in terminal.text.splitlines()]
    assert sum(line.startswith("    2 ") for line in lines) == 1, "the row replaces the moving line"


def test_a_notebook_shows_the_moving_line_and_the_pictures(small, monkeypatch, capsys):
    shown = []

    def show(*pictures):
        for picture in pictures:
            picture.load()
        shown.append(len(pictures))

    display = SimpleNamespace(display=show)
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=display))
    monkeypatch.setattr(small, "BATCH_SIZE", 2)
    small.main()
    assert "\r  step 20 of 24\r" in capsys.readouterr().out and shown == [2, 2, 2]


def test_history_holds_the_numbers_of_the_table(small, capsys):
    small.main()
    printed = capsys.readouterr().out
    with open(output(small) / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert {row["data"] for row in rows} == {"squares"}
    for row in rows:
        columns = zip(("loss D", "loss G", "D(x)", "D(G(z))"), (4, 4, 3, 3))
        numbers = [f"{float(row[name]):.{digits}f}" for name, digits in columns]
        assert [row["epoch"], *numbers] in [line.split()[:5] for line in printed.splitlines()]
        assert float(row["seconds"]) > 0


@pytest.mark.parametrize("average", [0, 8])
def test_pictures_and_files_are_of_the_average_of_g(small, monkeypatch, average):
    monkeypatch.setattr(small, "AVERAGE", average)
    small.main()
    state, saved = torch.load(output(small) / "generator.pt", weights_only=True), checkpoint(small)
    assert same(state, saved["average"]) and same(state, saved["generator"]) == (average == 0)
    generator = small.Generator()
    generator.load_state_dict(state)
    assert small.generate(generator, saved["fixed_latents"]).equal(saved["frames"][-1])
    assert len(saved["frames"]) == len(saved["history"]) == 3


def test_generated_npy_holds_10_000_images_of_generator_pt(small_with_pictures, monkeypatch):
    small = small_with_pictures
    latents = lambda count, rng, device="cpu": torch.randn(count, 8, generator=rng)  # noqa: E731
    monkeypatch.setattr(small, "sample_latents", latents)  # make_small() makes it draw only a few.
    monkeypatch.setattr(small, "EPOCHS", 1)
    small.main()
    images = np.load(output(small) / "generated.npy")
    assert images.shape == (10_000, 28, 28) and images.dtype == np.uint8
    generator = small.Generator()
    generator.load_state_dict(torch.load(output(small) / "generator.pt", weights_only=True))
    judged = latents(10_000, small.random_stream("judged latents", small.SEED))
    assert np.array_equal(small.generate(generator, judged).numpy(), images)
    assert len(np.unique(images[:200], axis=0)) == 200


def test_a_grid_shows_the_images_in_rows_on_one_grey_scale(gan_script):
    images = (torch.arange(64) * 4).byte().view(64, 1, 1).expand(64, 28, 28)
    picture = gan_script.draw_grid(images, "a title")
    left, top = picture.width - 4 * 242, picture.height - 4 * 242
    for place, (row, column) in {0: (0, 0), 1: (0, 1), 8: (1, 0), 63: (7, 7)}.items():
        x, y = left + 4 * (30 * column + 2), top + 4 * (30 * row + 2)
        cell = picture.crop((x, y, x + 112, y + 112))
        assert cell.getextrema() == (4 * place, 4 * place), "never stretched to its own range"
    title = picture.crop((0, 0, picture.width, top))
    untitled = gan_script.draw_grid(images, "").crop((0, 0, picture.width, top))
    assert title.getextrema() == (0, 255) and title.tobytes() != untitled.tobytes()


def test_generate_maps_the_range_to_bytes_and_goes_back_to_training(gan_script):
    parts = []

    class Fake(torch.nn.Module):
        def forward(self, latents):
            assert not self.training and not torch.is_grad_enabled()
            parts.append(len(latents))
            return latents.view(-1, 1, 1, 1).expand(-1, 1, 28, 28)

    fake = Fake().train()
    images = gan_script.generate(fake, torch.tensor([-1.0, 0.0, 1.0]))
    assert images.shape == (3, 28, 28) and images.dtype == torch.uint8
    assert images[:, 0, 0].tolist() == [0, 128, 255]
    assert fake.training
    assert len(gan_script.generate(fake, torch.zeros(2500))) == 2500
    assert max(parts) <= 1000, "in parts, to need little memory"


def test_curves_show_the_columns_and_the_value_of_a_mere_guess(gan_script):
    names = ("loss D", "loss G", "D(x)", "D(G(z))")
    history = [
        {"epoch": n, "loss D": 10 + n, "loss G": n - 2, "D(x)": 0.5 + n / 10, "D(G(z))": n / 10}
        for n in (1, 2, 3)
    ]
    guess = dict(zip(names, (1.4, 0.7, 0.5, 0.4)))
    figure = gan_script.draw_curves(history, "GAN on squares", guess)
    assert figure.get_suptitle() == "GAN on squares"
    lines = [line for axes in figure.axes for line in axes.lines]
    for name in names:
        (curve,) = [line for line in lines if line.get_label() == name]
        assert list(curve.get_xdata()) == [1, 2, 3]
        assert list(curve.get_ydata()) == [row[name] for row in history]
        others = [line.get_ydata()[0] for line in lines if name in line.get_label()]
        assert guess[name] in others, f"no line for the guess of {name}"
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(names)
    left = figure.axes[0]
    assert left.get_ylim()[0] < -1, "a negative loss is seen"
    assert all(axes.get_xlabel() == "epoch" and axes.get_ylabel() for axes in figure.axes)


@pytest.mark.parametrize(
    "count, kept",
    [(1, [1]), (50, range(1, 51)), (51, range(1, 52, 2)), (120, range(3, 121, 3))],
    ids=["1", "50", "51", "120"],
)
def test_the_gif_ends_with_the_last_epoch_and_has_at_most_50_frames(
    small, monkeypatch, count, kept
):
    def draw(frame, title):
        assert title.endswith(f"epoch {frame[0, 0, 0].item()}")
        return Image.new("L", (8, 8), frame[0, 0, 0].item())

    monkeypatch.setattr(small, "draw_grid", draw)
    frames = [torch.full((64, 28, 28), n, dtype=torch.uint8) for n in range(1, count + 1)]
    gan = SimpleNamespace(frames=frames, history=[{"epoch": 1}], made_with={"data": "squares"})
    output(small).mkdir()
    small.save_pictures(gan)
    assert f"samples_epoch_{count:03d}.png" in files(small)
    with Image.open(output(small) / "training.gif") as gif:
        assert gif.n_frames == len(kept)
        for place, epoch in enumerate(kept):
            gif.seek(place)
            assert gif.convert("L").getpixel((2, 2)) == epoch, "time runs forwards"
        assert gif.info["duration"] == 2000, "the last one stays for two seconds"


# Resuming


def test_two_parts_give_the_same_as_one_run(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(small, "EPOCHS", 4)
    small.main()
    whole, whole_files = checkpoint(small), files(small)
    results = [(output(small) / name).read_bytes() for name in ("generator.pt", "generated.npy")]
    assert whole["step"] == 12, "the third step of an epoch is the 3rd, 6th and 9th of all"
    monkeypatch.setattr(small, "OUTPUT_DIR", str(tmp_path / "parts"))
    monkeypatch.setattr(small, "EPOCHS", 1)
    small.main()
    monkeypatch.setattr(small, "EPOCHS", 4)
    monkeypatch.setattr(small, "RESUME", True)
    capsys.readouterr()
    small.main()
    assert "after epoch 1 of 4" in capsys.readouterr().out
    assert differences(whole, checkpoint(small)) == []
    assert results == [
        (output(small) / name).read_bytes() for name in ("generator.pt", "generated.npy")
    ]
    assert files(small) == whole_files


def test_r1_and_the_average_go_on_where_they_were(small, tmp_path, monkeypatch):
    """The next penalty is in step 8, which is in the third epoch of three steps each."""
    step, strengths = small.discriminator_step, []

    def record(*arguments):
        strengths.append(arguments[4])
        return step(*arguments)

    monkeypatch.setattr(small, "discriminator_step", record)
    monkeypatch.setattr(small, "EPOCHS", 2)
    small.main()
    average = checkpoint(small)["average"]
    monkeypatch.setattr(small, "RESUME", True)
    monkeypatch.setattr(small, "EPOCHS", 3)
    small.main()
    assert strengths == [8, 0, 0, 0, 0, 0, 0, 0, 8]
    assert not same(average, checkpoint(small)["average"])
    assert not same(checkpoint(small)["generator"], checkpoint(small)["average"])


def test_a_finished_run_that_is_resumed_says_what_to_do_and_changes_nothing(
    small, monkeypatch, capsys
):
    small.main()
    before = checkpoint(small)
    monkeypatch.setattr(small, "RESUME", True)
    capsys.readouterr()
    small.main()
    assert differences(before, checkpoint(small)) == []
    assert not any(name.startswith("earlier") for name in files(small))
    assert "raise EPOCHS" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["generator.pt", "generated.npy", "samples_epoch_003.png"])
def test_what_a_kill_kept_from_being_written_is_written_on_resuming(small, monkeypatch, name):
    small.main()
    content = (output(small) / name).read_bytes()
    (output(small) / name).write_bytes(b"of an earlier epoch")
    monkeypatch.setattr(small, "RESUME", True)
    small.main()
    assert (output(small) / name).read_bytes() == content


def test_pictures_and_numbers_appear_while_the_run_goes_on(small, monkeypatch):
    train_epoch, seen = small.train_epoch, []

    def look(gan, images):
        seen.append(files(small))
        return train_epoch(gan, images)

    monkeypatch.setattr(small, "train_epoch", look)
    monkeypatch.setattr(small, "EPOCHS", 4)
    small.main()
    pictures = [[name for name in names if name.startswith("samples")] for names in seen]
    assert seen[0] == ["run.txt"]
    assert {"checkpoint.pt", "losses.png", "history.csv", "training.gif"} <= set(seen[1])
    assert [len(names) for names in pictures] == [0, 1, 2, 2], "after 1 and the multiples of 2"


def test_resuming_where_nothing_was_saved_starts_anew(small, monkeypatch, capsys):
    monkeypatch.setattr(small, "RESUME", True)
    small.main()
    assert len(checkpoint(small)["history"]) == 3
    assert "after epoch 0 of 3" in capsys.readouterr().out


def test_a_new_run_keeps_the_files_of_the_earlier_ones(small, monkeypatch, capsys):
    small.main()
    first = {name: (output(small) / name).read_bytes() for name in files(small)}
    (output(small) / "notes.md").write_text("mine")
    for number in (1, 2):
        monkeypatch.setattr(small, "SEED", number)
        small.main()
    kept = output(small) / "earlier_1"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == first
    assert "SEED = 1\n" in (output(small) / "earlier_2" / "run.txt").read_text()
    assert (output(small) / "notes.md").read_text() == "mine"
    assert "earlier_2" in capsys.readouterr().out


CHANGES = {"SEED": 9, "BATCH_SIZE": 10, "LEARNING_RATE": 2e-3, "BETAS": (0.5, 0.9), "R1": 0,
           "AVERAGE": 4, "LATENT_DIM": 9, "GENERATOR_HIDDEN": (17,),
           "DATASET": "drawn"}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_other_constants_is_refused_by_name(small, monkeypatch, name):
    small.main()
    before = (output(small) / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(small, "RESUME", True)
    old = getattr(small, name)
    monkeypatch.setattr(small, name, CHANGES[name])
    message = refusal(small)
    assert f"{name} = {old!r}" in message and repr(CHANGES[name]) in message
    assert (output(small) / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_of_another_device_goes_on_and_says_that_bits_may_differ(
    small, monkeypatch, capsys
):
    small.main()
    state = checkpoint(small)
    state["made_with"]["device"], state["made_with"]["DEVICE"] = "NVIDIA Tesla", "cuda"
    torch.save(state, output(small) / "checkpoint.pt")
    monkeypatch.setattr(small, "RESUME", True)
    monkeypatch.setattr(small, "EPOCHS", 4)
    capsys.readouterr()
    small.main()
    assert "another device" in capsys.readouterr().out
    assert len(checkpoint(small)["history"]) == 4
    small.main()
    assert "another device" not in capsys.readouterr().out


def test_a_checkpoint_of_other_data_is_refused(small, monkeypatch, images):
    small.main()
    monkeypatch.setattr(small, "RESUME", True)
    monkeypatch.setattr(small, "load_images", lambda train=True: (images, None, "circles"))
    assert re.search("data = 'squares'.*'circles'", refusal(small))


def test_constants_that_do_not_touch_the_training_may_change(small, monkeypatch, tmp_path):
    small.main()
    for name, value in {"RESUME": True, "EPOCHS": 4, "SAMPLE_EVERY": 1, "DATA_DIR": "x"}.items():
        monkeypatch.setattr(small, name, value)
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.setattr(small, "OUTPUT_DIR", str(tmp_path / "moved"))
    small.main()
    assert {f"samples_epoch_00{n}.png" for n in (1, 2, 3, 4)} <= set(files(small))


def is_refused_and_kept(small, monkeypatch):
    """The line with which checkpoint.pt is refused. All files stay, and none is to be deleted."""
    before = {name: (output(small) / name).read_bytes() for name in files(small)}
    monkeypatch.setattr(small, "RESUME", True)
    message = refusal(small)
    assert str(output(small) / "checkpoint.pt") in message and "elete" not in message
    assert before == {name: (output(small) / name).read_bytes() for name in files(small)}
    return message


@pytest.mark.parametrize("fault", ["cut short", "empty", "text", "a list", "other script"])
def test_a_checkpoint_that_cannot_be_used_is_refused_in_one_line(small, monkeypatch, fault):
    small.main()
    path = output(small) / "checkpoint.pt"
    content = path.read_bytes()
    if fault in ("a list", "other script"):
        torch.save({"other script": {"made_with": {"SEED": 0}}, "a list": [1, 2]}[fault], path)
    else:
        damaged = {"cut short": content[: len(content) // 2], "empty": b"", "text": b"hello"}
        path.write_bytes(damaged[fault])
    is_refused_and_kept(small, monkeypatch)


def test_a_checkpoint_that_lacks_an_entry_is_refused_by_its_name(small, monkeypatch):
    small.main()
    whole = checkpoint(small)
    for name in set(whole) - {"fixed_latents"}:  # They come from the seed.
        state = {key: value for key, value in whole.items() if key != name}
        torch.save(state, output(small) / "checkpoint.pt")
        assert name in is_refused_and_kept(small, monkeypatch)


@pytest.mark.parametrize("part", ["Discriminator", "Generator"])
def test_a_checkpoint_of_other_networks_is_refused(small, monkeypatch, part):
    small.main()

    class Other(getattr(small, part)):
        def __init__(self):
            super().__init__()
            self.more = torch.nn.Linear(2, 2)

    Other.__name__ = part
    monkeypatch.setattr(small, part, Other)
    assert part in is_refused_and_kept(small, monkeypatch)


def test_a_checkpoint_of_another_optimizer_is_refused_by_name(small, monkeypatch):
    small.main()
    build_gan = small.build_gan

    def edited(device):
        gan = build_gan(device)
        gan.optimizer_d = torch.optim.SGD(gan.discriminator.parameters(), lr=0.1, momentum=0.9)
        return gan

    monkeypatch.setattr(small, "build_gan", edited)
    message = is_refused_and_kept(small, monkeypatch)
    assert "optimizer_d = 'Adam'" in message and "'SGD'" in message


def test_a_checkpoint_that_may_not_be_read_is_refused(small, monkeypatch):
    small.main()

    def forbidden(*arguments, **options):
        raise PermissionError(13, "Permission denied", "checkpoint.pt")

    monkeypatch.setattr(torch, "load", forbidden)
    assert "Permission denied" in is_refused_and_kept(small, monkeypatch)


def test_a_checkpoint_never_runs_code(small, monkeypatch, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trapped",))

    small.main()
    torch.save({"made_with": Trap()}, output(small) / "checkpoint.pt")
    is_refused_and_kept(small, monkeypatch)
    assert not (tmp_path / "trapped").exists()


# Constants


def wrong_values(name, value):
    """Values of a wrong type, or out of range, for a constant that now has this value."""
    if name == "SEEDS":
        return [5, "abc", (), (-1,), (1.5,), (2**32,), (1, 1), None]
    if name == "BETAS":
        return [0.5, (0.5,), (0.5, 0.9, 0.9), (0.5, 1.0), (-0.1, 0.9), (0.5, math.nan), [0.5, 0.9],
                ("0.5", 0.9), (True, 0.9), None]  # fmt: skip
    if isinstance(value, bool):
        return ["yes", None, 2]
    if isinstance(value, int) and name not in ("R1", "AVERAGE"):
        return [-1, 10**12, 2.5, "3", None, True]
    if isinstance(value, (int, float)):
        return [-0.1, 1000.5, math.nan, math.inf, "0.1", None, True]
    if isinstance(value, tuple):
        return [5, "abc", (0,), (1.5,), (10_001,), (8,) * 5, ("nothing like it",), None]
    strings = name.endswith("_DIR") or name == "DEVICE"
    return [3, None, ["MNIST"], *([] if strings else ["nothing like it"])]


def test_every_constant_is_checked_before_anything_is_done(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    constants = script.check_constants()
    in_module = {name for name in vars(script) if name.isupper() and name not in ("F",)}
    assert set(constants) == in_module
    for name, good in constants.items():
        for bad in wrong_values(name, good):
            with monkeypatch.context() as patch:
                patch.setattr(script, name, bad)
                message = refusal(script)
                assert message.startswith(f"{name} = {bad!r}"), f"{name} = {bad!r}: {message}"
                assert "must be" in message
        with monkeypatch.context() as patch:
            patch.delattr(script, name)
            assert refusal(script).startswith(f"{name} = None cannot"), "a line was commented out"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train_gan", "train_dcgan_variant"])
def test_the_edges_of_the_ranges_are_allowed_and_what_is_beyond_is_not(name, monkeypatch):
    script = importlib.import_module(name)
    smallest = {"train_gan": 1, "train_dcgan_variant": 2}[name]  # BatchNorm needs two images.
    edges = {"EPOCHS": (1, 999), "BATCH_SIZE": (smallest, 60_000), "LATENT_DIM": (1, 10_000),
             "SEED": (0, 2**32 - 1), "SAMPLE_EVERY": (1, 10_000), "LEARNING_RATE": (1e-7, 1),
             "R1": (0, 1000), "AVERAGE": (0, 1000),
             "BETAS": ((0, 0), (0.9999, 0.9999))}  # fmt: skip
    beyond = {"LEARNING_RATE": (0.9e-7, 1.01), "BETAS": ((0, -0.1), (0.99995, 0))}
    if name == "train_gan":
        hidden = ("GENERATOR_HIDDEN", "DISCRIMINATOR_HIDDEN")
        edges |= dict.fromkeys(hidden, ((1,), (10_000,) * 4))
        beyond |= dict.fromkeys(hidden, ((), (1,) * 5))
    choices = {"DATASET": ("MNIST", "FashionMNIST", "KMNIST", "drawn"), "RESUME": (True, False),
               "DEVICE": ("auto", "cpu", "cuda", "cuda:1", "mps"), "DATA_DIR": ("~/data", ".")}
    for constant, values in {**edges, **choices}.items():
        for value in values:
            with monkeypatch.context() as patch:
                patch.setattr(script, constant, value)
                assert script.check_constants()[constant] == value
    for constant, (low, high) in edges.items():
        for value in beyond.get(constant) or (low - 1, high + 1):
            with monkeypatch.context() as patch:
                patch.setattr(script, constant, value)
                with pytest.raises(SystemExit, match=f"{constant} = "):
                    script.check_constants()


def test_unknown_dataset_lists_the_known_ones(script, monkeypatch):
    monkeypatch.setattr(script, "DATASET", "CIFAR10")
    message = refusal(script)
    assert all(name in message for name in ("CIFAR10", "MNIST", "FashionMNIST", "drawn"))
