"""A run and its files: folders, resuming, kills, Ctrl-C, errors, and what each file holds.

The scripts promise that the disk is right whatever ends a run. So these tests end runs in many ways
and compare what a resumed run leaves with what an unbroken one leaves, bit for bit.
"""

import functools
import importlib
import io
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from conftest import SCRIPTS, edited, same, set_constants, start
from matplotlib.figure import Figure
from PIL import Image

# The two that train one GAN share the text of what is tested with train_gan.py alone.
KINDS = ["compare_losses", "train_gan"]
STEPS = {"compare_losses": 2, "train_dcgan_variant": 3, "train_gan": 3}  # In each epoch.


@pytest.fixture
def quick(tiny, monkeypatch):
    """quick(name) is a tiny script whose curves are dots and whose clock stands still. Its
    run(EPOCHS=1, ...) starts it with these constants and returns the folder that it has made."""

    def prepare(name):
        script = tiny(importlib.import_module(name))

        def run(**constants):
            set_constants(monkeypatch, script, {"RESUME": False, **constants})
            before = set(runs(script))
            script.main()
            (folder,) = set(runs(script)) - before
            return folder

        patches = {"time": SimpleNamespace(perf_counter=float), "run": run}
        patches |= dict.fromkeys(("draw_curves", "draw_comparison"), lambda *_: Figure((1, 1)))
        for key, value in patches.items():
            monkeypatch.setattr(script, key, value, raising=False)
        return script

    return prepare


@pytest.fixture(params=KINDS)
def either(request, quick, monkeypatch):
    """A script of each kind, quick, with the loss BCE alone."""
    script = quick(request.param)
    set_constants(monkeypatch, script, {"LOSSES": ["BCE"]})
    return script


def runs(script):
    """The folders of all runs, in the order of their numbers."""
    folders = Path(script.OUTPUT_DIR).expanduser().glob("run_*")
    return sorted(folders, key=lambda path: (len(path.name), path))


def names(folder):
    return {path.name for path in folder.iterdir()}


def load(folder, pattern="checkpoint*.pt"):
    """What the first file of this kind in a folder holds."""
    path = min(folder.glob(pattern))
    return np.load(path) if path.suffix == ".npy" else torch.load(path, weights_only=True)


def rows(folder):
    header, *lines = (folder / "history.csv").read_text("utf-8").splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def plain(value):
    """A checkpoint as something that == compares bit for bit."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value.numpy().tobytes() if torch.is_tensor(value) else value


def assert_ends_like(folder, whole):
    """A run and those that it resumes leave the files of an unbroken one."""
    assert names(whole) <= {path.name for path in folder.parent.glob("run_*/*")}
    for name in names(folder) - {"run.txt"}:
        if name.startswith("checkpoint"):
            assert plain(load(folder, name)) == plain(load(whole, name)), f"{folder}: {name}"
        else:
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), f"{folder}: {name}"


def refusal(script):
    """The line with which a run ends that does not begin."""
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert "\n" not in str(stop.value)
    return str(stop.value)


def stop_after(steps, error, script, monkeypatch):
    """Make the script's train_step raise an error after so many steps."""
    outcomes = [script.train_step] * steps + [MagicMock(side_effect=error)]
    monkeypatch.setattr(script, "train_step", lambda *arguments: outcomes.pop(0)(*arguments))


def snapshot(folder):
    """All files below a folder, with their content and the time of their last change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_each_start_makes_a_folder_and_touches_no_other_file(either, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):  # The second is for Windows.
        monkeypatch.setenv(variable, str(tmp_path))
    for folder in ("run_7", "run_12 copy", "run_", "run_2²", "earlier_1"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    for file in ("run.txt", "history.csv", "report.py", "checkpoint.pt", "run_3", "run_7/run.txt"):
        Path(file).write_text("mine")
    set_constants(monkeypatch, either, {"OUTPUT_DIR": ".", "RESUME": True, "EPOCHS": 1})
    assert "RESUME = True" in refusal(either), "there is nothing to resume"
    for number, constants in {8: {}, 9: {"SEED": 1, "SEEDS": [1]}, 10: {
            "RESUME": True, "OUTPUT_DIR": "~/mine", "EPOCHS": 2}}.items():
        before = snapshot(tmp_path / "mine")
        folder = either.run(**constants).resolve()
        after = snapshot(tmp_path / "mine")
        assert before.items() <= after.items(), "what was there is as it was"
        others = {path.name for path in set(after) - set(before) if folder not in path.parents}
        assert folder.name == f"run_{number}" and others <= {"judge.pt"}, "which all runs share"
    monkeypatch.setattr(either, "RESUME", "run_3")
    assert "RESUME = 'run_3'" in refusal(either) and not Path("run_11").exists()


def test_a_start_that_finds_its_folder_taken_at_that_moment_takes_the_next(either, monkeypatch):
    mkdir = Path.mkdir

    def late(path, *arguments, **options):
        if path.name in ("run_1", "run_2"):
            mkdir(path)  # Another start was faster.
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", late)
    either.main()
    first, second, third = runs(either)
    assert names(first) == names(second) == set() and "history.csv" in names(third)


def test_resuming_reads_the_latest_checkpoint_or_that_of_the_named_run(quick, capsys):
    script = quick("train_gan")
    first, _ = script.run(EPOCHS=1), script.run(EPOCHS=1)
    (first.parent / "run_9").mkdir()  # Killed before its first epoch ended.
    assert script.run(RESUME=True, EPOCHS=3).name == "run_10"
    (first.parent / "run_11").mkdir()
    moved = first.parent.rename(first.parent.with_name("moved"))
    others = {"EPOCHS": 4, "OUTPUT_DIR": str(moved), "SAMPLE_EVERY": 3, "DATA_DIR": "elsewhere"}
    for resume, source, epochs in ((True, "run_10", 3), ("run_1", "run_1", 1)):
        folder = script.run(RESUME=resume, **others)
        line = f"after epoch {epochs} of 4, from {moved / source}\n"
        assert line in capsys.readouterr().out and line in (folder / "run.txt").read_text("utf-8")
        assert [row["epoch"] for row in load(folder)["history"]] == [1, 2, 3, 4]


def test_resuming_with_nothing_left_writes_the_results(either, tmp_path, monkeypatch):
    """They are older than the checkpoint after a Ctrl-C between two pictures."""
    (tmp_path / "whole" / "run_1").mkdir(parents=True)
    whole = either.run(OUTPUT_DIR=str(tmp_path / "whole"), EPOCHS=3, SAMPLE_EVERY=100)
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        stop_after(3 * STEPS[either.__name__], KeyboardInterrupt, either, patch)
        either.run(OUTPUT_DIR=str(tmp_path / "parts"), EPOCHS=4)
    folder = either.run(RESUME=True, EPOCHS=3)
    assert len(rows(folder)) == 3
    assert_ends_like(folder, whole)


CHANGES = {"SEED": 9, "BATCH_SIZE": 10, "LEARNING_RATE": 2e-3, "BETAS": (0.5, 0.9), "R1": 0,
           "AVERAGE": 4, "LATENT_DIM": 9, "GENERATOR_HIDDEN": [17], "DISCRIMINATOR_HIDDEN": [17],
           "DATASET": "drawn", "GENERATOR": "conv", "DISCRIMINATOR": "pool", "TRICKS": ["ttur"]}
FIELDS = {"critic_lr": 2e-3, "r1": 2.0, "betas": (0.5, 0.9), "clip": 0.1, "penalty_every": 2}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_checkpoint_of_other_constants_or_data_is_refused_by_name(name, quick, monkeypatch):
    script = quick(name)
    folder = script.run(EPOCHS=1, LOSSES=["BCE"])
    before, (images, labels, _) = snapshot(folder), script.load_images()
    monkeypatch.setattr(script, "RESUME", True)
    changes = [(script, key, value) for key, value in CHANGES.items() if hasattr(script, key)]
    if name == "compare_losses":  # The settings of an entry count as well.
        changes += [(script.LOSS_TABLE["BCE"], key, value) for key, value in FIELDS.items()]
    for owner, key, value in changes:
        old = f"{key} = {getattr(owner, key)!r}"
        with monkeypatch.context() as patch:
            patch.setattr(owner, key, value)
            message = refusal(script)
        assert str(folder / "checkpoint") in message
        assert old.replace("'", "") in message.replace("'", "") and repr(value) in message, message
    monkeypatch.setattr(script, "load_images", lambda train=True: (images, labels, "circles"))
    assert re.search("data = 'squares'.*'circles'", refusal(script))
    assert snapshot(folder) == before and runs(script) == [folder], "no new folder is made"


def test_a_checkpoint_that_cannot_be_used_or_holds_code_is_refused(quick, monkeypatch):
    script = quick("train_gan")
    path = script.run(EPOCHS=1) / "checkpoint.pt"
    state, whole = load(path.parent), path.read_bytes()
    monkeypatch.setattr(script, "RESUME", True)
    lacking = {key: value for key, value in state.items() if key != "average"}
    code = {**state, "frames": functools.partial(print, "this runs")}
    other_script = {"made_with": {"SEED": 0}}
    for content in (b"", whole[: len(whole) // 2], b"text", [1], lacking, other_script, code):
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        before = path.read_bytes()
        assert str(path) in refusal(script) and path.read_bytes() == before
    path.write_bytes(whole)
    monkeypatch.setattr(script, "Discriminator", lambda: torch.nn.Linear(784, 1))
    assert str(path) in refusal(script), "other networks"


@pytest.mark.parametrize("name, every", [("train_gan", 5), ("compare_losses", 7), *[
    pytest.param(name, 1, marks=pytest.mark.slow) for name in SCRIPTS]])
def test_killed_and_resumed_it_ends_bit_for_bit(name, every, quick, tmp_path, monkeypatch):
    """Killed before a file gets its name, and compared with an unbroken run."""
    script, replace, killed = quick(name), Path.replace, []
    usual = {"EPOCHS": 3, "LOSSES": ["WGAN-GP", "BCE-R1"]}
    (tmp_path / "whole" / "run_1").mkdir(parents=True)  # So that the titles agree.
    whole = script.run(OUTPUT_DIR=str(tmp_path / "whole"), **usual)

    def remember(part, path):
        """Copy what a kill at this moment leaves, with half of the file that is written."""
        killed.append(shutil.copytree(tmp_path / "out", tmp_path / f"killed_{len(killed)}"))
        half = killed[-1] / part.relative_to(tmp_path / "out")
        half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
        replace(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", remember)
        script.run(OUTPUT_DIR=str(tmp_path / "out"), **usual)
    saved = [sorted(folder.glob("run_1/checkpoint*.pt")) for folder in killed]
    epochs = [sum(len(torch.load(path)["history"]) for path in paths) for paths in saved]
    assert epochs == sorted(epochs), "none is ever lost"
    assert set(epochs) == set(range(7 if name == "compare_losses" else 4)), epochs
    for folder, paths in list(zip(killed, saved))[::-every]:
        assert_ends_like(script.run(OUTPUT_DIR=str(folder), RESUME=bool(paths), **usual), whole)


@pytest.mark.parametrize("name", ["checkpoint.pt", "generated.npy", "training.gif"])
def test_ctrl_c_while_a_file_is_written_stops_the_run(name, quick, monkeypatch, capsys):
    """torch.save makes a RuntimeError of it, as if the disk were full."""

    class Interrupted(io.BytesIO):
        def write(self, data):
            if self.tell() > 64:
                raise KeyboardInterrupt
            return super().write(data)

    script = quick("train_gan")
    monkeypatch.setattr(script, "open", raising=False, value=lambda path, mode: (
        Interrupted() if path.name.endswith(f".{name}") else open(path, mode)))
    with pytest.raises(KeyboardInterrupt):
        script.run()
    assert "Cannot write" not in capsys.readouterr().out


@pytest.mark.parametrize("place, error", [
    ("open", OSError), ("save", OSError), ("save", RuntimeError), ("replace", PermissionError)])
def test_a_full_disk_or_a_held_file_does_not_end_it(place, error, quick, monkeypatch, capsys):
    """The checkpoint of epoch 2 cannot be written."""
    script, tries = quick("train_gan"), []
    write, owner = script.write, {"open": script, "save": torch, "replace": Path}[place]

    def written(path, save):
        tries.append(path.name)
        with monkeypatch.context() as patch:
            if path.name == "checkpoint.pt" and tries.count(path.name) == 2:
                patch.setattr(owner, place, MagicMock(side_effect=error("full")), raising=False)
                if place == "open":  # Nor can what is there be removed.
                    patch.setattr(Path, "unlink", MagicMock(side_effect=OSError("lost")))
            write(path, save)
        assert not list(path.parent.glob("part*")), "a part would take the last space"

    monkeypatch.setattr(script, "write", written)
    folder = script.run()
    assert capsys.readouterr().out.count(f"Cannot write {folder / 'checkpoint.pt'}: full") == 1
    assert len(load(folder)["history"]) == len(rows(folder)) == 3


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_error_in_training_is_the_last_thing_shown(name, quick, monkeypatch, capsys):
    """After an error of CUDA, nothing can be loaded any more. So nothing may try to."""
    script, epochs = quick(name), 1 if name == "compare_losses" else 2
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="my own") as error:
        stop_after(epochs * STEPS[name], RuntimeError("my own mistake"), script, patch)
        patch.setattr(torch, "load", MagicMock(side_effect=RuntimeError("CUDA error: assert")))
        script.run(EPOCHS=epochs**9, LOSSES=["BCE", "LSGAN"], SAMPLE_EVERY=1)
    assert error.value.__context__ is None, "its traceback is the only one"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("    2 ") or name == "compare_losses", "nothing is printed after it"
    (folder,) = runs(script)
    assert len(load(folder)["history"]) == len(rows(folder)) == epochs, "whole epochs are on disk"
    assert same(load(folder, "generator*.pt"), load(folder)["average"])


@pytest.mark.parametrize("column, value", [(0, math.inf), (1, math.nan)])
def test_a_loss_that_is_not_finite_stops_the_run(column, value, either, monkeypatch):
    good, steps = torch.ones(4), STEPS[either.__name__]
    numbers = iter([good] * steps + [good.index_fill(0, torch.tensor(column), value)] + [good] * 9)
    monkeypatch.setattr(either, "train_step", lambda *_: next(numbers))
    assert "epoch 2 is not a finite number" in refusal(either)
    assert len(list(numbers)) == 10 - steps, "it stops at once"
    assert len(load(runs(either)[0])["history"]) == 1, "the epochs before it are on disk"


def test_a_warning_is_printed_once_also_after_resuming(quick, monkeypatch, capsys):
    script, found = quick("train_gan"), iter([[], ["won"], ["alike", "won"], ["won"], ["alike"]])
    monkeypatch.setattr(script, "diagnose", lambda gan, images: next(found))
    script.run()
    script.run(RESUME=True, EPOCHS=5)
    printed = capsys.readouterr().out
    assert printed.count("Warning: won") == printed.count("Warning: alike") == 1


@pytest.mark.parametrize("console", ["file", "none", "terminal", "notebook"])
def test_steps_are_shown_on_terminals_and_in_notebooks_only(console, quick, monkeypatch):
    """A notebook shows the pictures as well."""
    script, shown, stdout = quick("train_gan"), [], None if console == "none" else io.StringIO()
    if console == "terminal":
        stdout.isatty = lambda: True
    if console == "notebook":
        show = SimpleNamespace(display=lambda *pictures: shown.append([p.load() for p in pictures]))
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=show))
        monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setattr(sys, "stdout", stdout)
    script.run(BATCH_SIZE=2)
    moves = console in ("terminal", "notebook")
    assert stdout is None or ("step 20 of 24\r" in stdout.getvalue()) == moves
    assert [len(pictures) for pictures in shown] == ([2, 2, 2] if console == "notebook" else [])


@pytest.mark.parametrize("name", KINDS)
def test_history_holds_the_numbers_of_the_printed_table(name, quick, capsys):
    table = rows(quick(name).run(LOSSES=["BCE", "WGAN"], SEEDS=[3]))
    printed = [re.split("  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    header = next(line for line in printed if "loss D" in line)
    lines = [line for line in printed if len(line) == len(header) and line != header]
    assert len(lines) == len(table) and {row["data"] for row in table} == {"squares"}
    for line, row in zip(lines, table):
        for key, text in zip(header[:-1], line):  # The last is "minutes left".
            assert text == row[key] or float(text) == pytest.approx(float(row[key]), abs=6e-3), key
    if name == "compare_losses":
        steps = [(row["G steps"], row["D steps"]) for row in table]
        assert steps == [("2", "2"), ("4", "4"), ("6", "6"), ("2", "10"), ("4", "20"), ("6", "30")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_writes_the_files_of_its_docstring(name, quick, monkeypatch, capsys):
    """Pictures come after epoch 1, at multiples of SAMPLE_EVERY, and after the last epoch."""
    script, titles, epochs = quick(name), [], 7 if name == "train_gan" else 1
    grid = getattr(script, "draw_grid", None)
    latents = lambda count, rng, device="cpu": torch.randn(count, 8, generator=rng)  # noqa: E731
    monkeypatch.setattr(script, "sample_latents", latents)  # tiny() makes it draw only a few.
    monkeypatch.setattr(script, "measure", lambda *_: {"distance": 1.0}, raising=False)
    monkeypatch.setattr(script, "draw_grid", raising=False, value=lambda images, title, *etc: (
        titles.append(title) or grid(images, title, *etc)))
    folder = script.run(LOSSES=["BCE"], SEED=0, TRICKS=["ttur"], EPOCHS=epochs, SAMPLE_EVERY=3)
    listed = script.__doc__.split("Each start makes")[1].split("run.txt")[0] + "run.txt"
    promised = set(re.findall(r"\w+\.(?:png|gif|csv|npy|pt|txt|md)\b", listed))
    later = [f"samples_epoch_00{number}.png" for number in (3, 6, 7) if number <= epochs]
    assert names(folder) == promised | set(later)
    words = ("run_1", "squares", *["ttur"] * (name == "train_dcgan_variant"))
    assert all(word in title for word in words for title in titles)
    last = capsys.readouterr().out.strip().splitlines()[-2]
    assert "squares" in last and str(folder) in last
    lines = (folder / "run.txt").read_text("utf-8").splitlines()
    assert "squares, 48 images" in lines[0] and f"torch {torch.__version__}" in lines[2]
    for constant, value in {**script.settings(), "EPOCHS": epochs}.items():
        assert f"{constant} = {value!r}" in lines
    state, generator = load(folder), script.Generator()  # They show the average of G.
    generator.load_state_dict(load(folder, "generator*.pt"))
    assert same(generator.state_dict(), state["average"])
    assert not same(state["generator"], state["average"])
    pictures = script.generate(generator, latents(64, script.random_stream("pictures", 0)))
    assert "frames" not in state or pictures.equal(state["frames"][-1])
    expected = script.generate(generator, latents(10_000, script.random_stream("10,000 images", 0)))
    assert np.array_equal(load(folder, "generated*.npy"), expected.numpy())


@pytest.mark.parametrize("count, kept", [
    (1, [1]), (50, range(1, 51)), (51, range(1, 52, 2)), (120, range(3, 121, 3))])
def test_the_gif_stops_on_the_last_of_50_frames(count, kept, quick, tmp_path, monkeypatch):
    script = quick("train_gan")
    monkeypatch.setattr(script, "draw_grid", lambda frame, title: Image.new("L", (8, 8), int(
        title.split("epoch ")[1])))
    gan = script.build_gan(torch.device("cpu"))
    gan.frames, gan.history, gan.made_with = [None] * count, [{"epoch": 1}], {"data": "squares"}
    script.save_results(gan, torch.zeros(1), tmp_path)
    with Image.open(tmp_path / f"samples_epoch_{count:03d}.png") as picture:
        assert picture.getpixel((2, 2)) == count
    with Image.open(tmp_path / "training.gif") as gif:
        assert gif.n_frames == len(kept) and gif.size == (4, 4), "half as wide and high"
        for place, epoch in enumerate(kept):
            gif.seek(place)
            assert gif.convert("L").getpixel((2, 2)) == epoch, "time runs forwards"
            milliseconds = 2000 if epoch == count else max(120, 5000 / len(kept))
            assert gif.info["duration"] == pytest.approx(milliseconds, abs=10)


def test_a_grid_has_one_grey_scale_and_curves_show_each_column_of_the_table():
    script = importlib.import_module("train_gan")
    images = (torch.arange(64) * 4).byte().view(64, 1, 1).expand(64, 28, 28)
    picture = script.draw_grid(images, "a title")
    for place, (row, column) in {0: (0, 0), 1: (0, 1), 8: (1, 0), 63: (7, 7)}.items():
        x, y = 4 * (30 * column + 2), picture.height - 4 * 242 + 4 * (30 * row + 2)
        cell = picture.crop((x, y, x + 112, y + 112))
        assert cell.getextrema() == (4 * place, 4 * place), "never stretched to its own range"
    assert picture.tobytes() != script.draw_grid(images, "").tobytes(), "it has a title"
    columns = {"loss D": (11, 12), "loss G": (-1, 0), "D(x)": (0.6, 0.7), "D(G(z))": (0.1, 0.2)}
    table = [{"epoch": n + 1} | {name: pair[n] for name, pair in columns.items()} for n in (0, 1)]
    figure = script.draw_curves(table, "on squares")
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    for name, pair in columns.items():
        assert lines[name].get_xydata().tolist() == [[1, pair[0]], [2, pair[1]]]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines.values()}) == 4
    assert figure.get_suptitle() == "on squares" and figure.axes[0].get_ylim()[0] < -1


@pytest.fixture
def watched(quick, monkeypatch):
    """The script; its trainings, each with the files that are there at its start; its measuring."""
    script, trained, measured = quick("compare_losses"), [], []
    measure, train_epoch = script.measure, script.train_epoch

    def training(gan, images, epoch):
        trained.append((gan.loss, gan.seed, epoch, names(runs(script)[-1])))
        return train_epoch(gan, images, epoch)

    def measuring(judge, images):
        measured.extend([images] if images is not judge.other_images else [])
        return measure(judge, images)

    monkeypatch.setattr(script, "train_epoch", training)
    monkeypatch.setattr(script, "measure", measuring)
    return script, trained, measured


def test_results_come_after_each_training_and_only_the_new_one_is_measured(watched):
    script, trained, measured = watched
    folder = script.run(EPOCHS=2, LOSSES=["LSGAN", "BCE", "WGAN"])
    for loss, _, _, there in trained:
        finished = {"LSGAN": set(), "BCE": {"lsgan"}, "WGAN": {"lsgan", "bce"}}[loss]
        assert {name[10:-4] for name in there if name.startswith("generated")} == finished
        for name in ("comparison.md", "comparison.png", "history.csv"):
            assert (name in there) == bool(finished)
    assert len(measured) == 3, "one measurement of each, however often tables are written"
    text = (folder / "comparison.md").read_text("utf-8")
    assert re.findall(r"^\| (\w+)", text, re.M) == ["real", "LSGAN", "BCE", "WGAN"]
    assert "squares" in text
    for line in text.splitlines()[3:6]:
        distance, of_g_itself = line.split("|")[2:4]
        assert float(of_g_itself) > 1 and of_g_itself != distance


def test_resuming_takes_the_newest_checkpoint_of_each_loss_and_seed(watched):
    script, trained, _ = watched

    def trains(**constants):
        trained.clear()
        folder = script.run(**constants)
        assert {(row["loss"], int(row["seed"])) for row in rows(folder)} == {
            (loss, seed) for loss in script.LOSSES for seed in script.SEEDS}
        assert len(list(folder.glob("generated*"))) == len(script.LOSSES), "of the first seed"
        return " ".join(f"{loss} {seed}-{epoch}" for loss, seed, epoch, _ in trained)

    assert trains(EPOCHS=1, LOSSES=["BCE"]) == "BCE 0-1"
    assert trains(EPOCHS=1, LOSSES=["hinge"]) == "hinge 0-1"
    assert trains(EPOCHS=2, LOSSES=["BCE"], RESUME=True) == "BCE 0-2"
    both = {"LOSSES": ["BCE", "hinge"], "RESUME": True}
    assert trains(**both, EPOCHS=3, SEEDS=[0, 7]) == (
        "BCE 0-3 hinge 0-2 hinge 0-3 BCE 7-1 BCE 7-2 BCE 7-3 hinge 7-1 hinge 7-2 hinge 7-3")
    last = runs(script)[-1]
    assert same(load(last, "generator_hinge.pt"), load(last, "checkpoint_hinge_0.pt")["average"])
    assert trains(RESUME="run_1", EPOCHS=2, SEEDS=[0]) == "BCE 0-2 hinge 0-1 hinge 0-2"
    assert trains(**both) == ""


@pytest.fixture
def program(tmp_path):
    """program(name, EPOCHS=9, ...) starts a script alone in a folder, as a student does."""
    processes = []

    def begin(name, folder=tmp_path, environment={}, **constants):
        usual = {"EPOCHS": 12, "SAMPLE_EVERY": 1, "LOSSES": ["BCE"], "OUTPUT_DIR": "out"}
        body, guard = edited(name, **{**usual, **constants}).split("\nif __name__")
        clock = "time = SimpleNamespace(perf_counter=float)"  # On it, no time passes.
        text, path = f"{body}\n{clock}\nif __name__{guard}", folder / f"{name}.py"
        if not path.exists() or path.read_text("utf-8") != text:  # Others may be reading it.
            path.write_text(text, "utf-8")
        env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        processes.append(start(f"{name}.py", cwd=folder, env=env))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def wait_for_row(process):
    """Read the lines of a process until the first row of its table comes."""
    while not re.match(r"([\w-]+ +0)? +\d+ +-?\d", line := process.stdout.readline()):
        assert line, process.communicate()


def test_a_script_alone_in_a_folder_of_any_letters_and_a_real_ctrl_c(program, tmp_path):
    """The console has no letter of OUTPUT_DIR. Windows sends no SIGINT to a single process."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")  # This is not UTF-8.
    try:
        folder.mkdir()
    except OSError:  # There are systems without such names.
        folder = tmp_path
    process = program("train_gan", folder, {"PYTHONIOENCODING": "ascii"}, OUTPUT_DIR="Zoë",
                      EPOCHS=1 if os.name == "nt" else 999)
    wait_for_row(process)
    if os.name != "nt":
        process.send_signal(signal.SIGINT)
    printed, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert os.name == "nt" or "Stopped" in printed.splitlines()[-1]
    assert names(folder) == {"train_gan.py", "Zoë"} and names(folder / "Zoë" / "run_1")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_killed_at_random_moments_and_resumed_the_end_is_the_same(name, program, tmp_path):
    usual = {"LOSSES": ["BCE-R1", "WGAN-GP"], "EPOCHS": 3 if name == "compare_losses" else 12}
    for kill in (True, True, True, False):
        process = program(name, RESUME=bool(list(tmp_path.glob("out/run_*/checkpoint*"))), **usual)
        if kill:
            wait_for_row(process)
            time.sleep(random.uniform(0, 1.5))
            process.kill()
        assert process.communicate()[1] == ""
    (tmp_path / "whole" / "run_3").mkdir(parents=True)
    assert program(name, OUTPUT_DIR="whole", **usual).communicate()[1] == ""
    assert_ends_like(tmp_path / "out" / "run_4", tmp_path / "whole" / "run_4")


@pytest.mark.slow
def test_five_starts_at_once_do_not_meet_also_on_a_drive_without_locks(program, tmp_path):
    """Many network drives, on which the homes of universities lie, have none."""
    environment = {}
    if sys.platform == "linux" and shutil.which("gcc"):
        code = """#include <errno.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n
        int fcntl64(int f, int c, long m) {  // 5 to 7 are about locks.
            return c > 4 && c < 8 ? (errno = ENOLCK, -1) : syscall(SYS_fcntl, f, c, m);
        }
        int fcntl(int f, int c, long m) { return fcntl64(f, c, m); }"""
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-o", "nolocks.so", "-"]
        subprocess.run(command, input=code, cwd=tmp_path, check=True, text=True)
        environment = {"LD_PRELOAD": str(tmp_path / "nolocks.so")}
    starts = [program(name, environment=environment, EPOCHS=3)
              for name in ["train_gan"] * 4 + ["compare_losses"]]
    assert [process.communicate()[1] for process in starts] == [""] * 5
    assert names(tmp_path / "out") == {"judge.pt", *[f"run_{number}" for number in range(1, 6)]}
    folders = [path.parent for path in (tmp_path / "out").glob("run_?/checkpoint.pt")]
    assert [plain(load(folder)) == plain(load(folders[0])) for folder in folders] == [True] * 4
