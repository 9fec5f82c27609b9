"""A run and its files: folders, resuming, kills, Ctrl-C, errors, and what each file holds.

The scripts promise that the disk is right whatever ends a run. So these tests end runs in many ways
and compare what a resumed run leaves with what an unbroken one leaves, bit for bit.
"""

import csv
import errno
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

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SCRIPTS, USUAL, edited, same, set_constants, start
from matplotlib.figure import Figure
from PIL import Image

# In the scripts that train one GAN, what is tested on train_gan alone is one text.
KINDS = ["compare_losses", "train_gan"]
STEPS = {"compare_losses": 2, "train_gan": 3}  # In an epoch of 48 images.


@pytest.fixture
def quick(tiny, monkeypatch):
    """quick(name) is a script that runs within a second: tiny, and with dots in place of curves."""

    def prepare(name):
        script = tiny(importlib.import_module(name))
        for drawing in ("draw_curves", "draw_comparison"):
            monkeypatch.setattr(script, drawing, lambda *_: Figure((1, 1)), raising=False)
        return script

    return prepare


@pytest.fixture
def run(monkeypatch):
    """run(script, EPOCHS=1, ...) starts it with these constants. Returns the folder that it made."""

    def begin(script, **constants):
        set_constants(monkeypatch, script, {"RESUME": False, **constants})
        before = set(runs(script))
        script.main()
        (folder,) = set(runs(script)) - before
        return folder

    return begin


def runs(script):
    """The folders of all runs, in the order of their numbers."""
    return sorted(Path(script.OUTPUT_DIR).glob("run_*"), key=lambda path: (len(path.name), path))


def names(folder):
    return {path.name for path in folder.iterdir()}


def load(folder, name="checkpoint.pt"):
    return torch.load(folder / name, weights_only=True)


def rows(folder):
    """The rows of history.csv, without the seconds."""
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def plain(value):
    """A checkpoint as something that == compares bit for bit, without the seconds."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key != "seconds"}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value.numpy().tobytes() if torch.is_tensor(value) else value


def content(path):
    """What a file holds, in a form that == compares, without the seconds."""
    if path.name.startswith("checkpoint"):
        return plain(load(path.parent, path.name))
    if path.name == "history.csv":
        return rows(path.parent)
    if path.name == "comparison.md":  # The seconds are its last column but two.
        return [line.split("|")[:-4] for line in path.read_text(encoding="utf-8").splitlines()]
    return path.read_bytes()


def assert_ends_like(folder, whole, apart=("run.txt",)):
    """A resumed run leaves the files of an unbroken one, except for what was whole before it."""
    assert all(name.startswith(("samples", "checkpoint")) for name in names(whole) - names(folder))
    for name in names(folder) - set(apart):
        assert content(folder / name) == content(whole / name), f"{folder}: {name}"


def refusal(script):
    """The line with which a run ends that does not begin."""
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert "\n" not in str(stop.value)
    return str(stop.value)


def stopping(monkeypatch, script, error, calls):
    """Make the script raise an error in its train_step, after so many calls of it."""
    step, done = script.train_step, []

    def train_step(*arguments):
        done.append(1)
        if len(done) > calls:
            raise error
        return step(*arguments)

    monkeypatch.setattr(script, "train_step", train_step)


# A folder for each start


def snapshot(folder):
    """All files below a folder, with their content and the time of their last change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("name", KINDS)
def test_each_start_has_a_folder_of_its_own_and_touches_no_other_file(
    name, quick, run, tmp_path, monkeypatch
):
    script = quick(name)
    for folder in ("run_7", "run_12 copy", "run_", "run_2²", "earlier_1"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    for file in ("run.txt", "history.csv", "report.py", "checkpoint.pt", "run_3", "run_7/run.txt"):
        Path(file).write_text("mine")
    usual = {"OUTPUT_DIR": ".", "EPOCHS": 1, "LOSSES": ["BCE"]}
    made = []
    for constants in ({}, {"SEED": 1, "SEEDS": [1]}, {"RESUME": True, "EPOCHS": 2}):
        before = snapshot(Path())
        folder = run(script, **{**usual, **constants})
        after = snapshot(Path())
        assert before.items() <= after.items(), "what was there is as it was"
        others = {path for path in set(after) - set(before) if folder not in path.parents}
        assert others <= {Path("judge.pt")}, "the judge is kept for all runs"
        made.append(folder.name)
    assert made == ["run_8", "run_9", "run_10"]


@pytest.mark.parametrize("name", KINDS)
def test_a_start_that_finds_its_folder_taken_at_that_moment_takes_the_next(
    name, quick, monkeypatch
):
    script, mkdir = quick(name), Path.mkdir

    def late(path, *arguments, **options):
        if path.name in ("run_1", "run_2"):
            mkdir(path)  # Another start was faster.
        mkdir(path, *arguments, **options)

    set_constants(monkeypatch, script, {"EPOCHS": 1, "LOSSES": ["BCE"]})
    monkeypatch.setattr(Path, "mkdir", late)
    script.main()
    first, second, third = runs(script)
    assert names(first) == names(second) == set() and "history.csv" in names(third)


def test_a_tilde_in_output_dir_is_the_home_folder(quick, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):  # The second is for Windows.
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    for name in KINDS:
        script = quick(name)
        set_constants(monkeypatch, script, {"OUTPUT_DIR": "~/out", "EPOCHS": 1, "LOSSES": ["BCE"]})
        script.main()
    for number in (1, 2):
        assert (tmp_path / "home" / "out" / f"run_{number}" / "history.csv").exists()


# Resuming


def test_resuming_reads_the_latest_run_that_has_a_checkpoint_or_the_named_one(quick, run, capsys):
    script = quick("train_gan")
    first = run(script, EPOCHS=1)
    (first.parent / "run_9").mkdir()  # Killed before its first epoch ended.
    assert run(script, RESUME=True, EPOCHS=3).name == "run_10"
    (first.parent / "run_11").mkdir()
    capsys.readouterr()
    for resume, source, epochs in ((True, "run_10", 3), ("run_1", "run_1", 1)):
        folder = run(script, RESUME=resume, EPOCHS=4)
        assert f"after epoch {epochs} of 4, from {first.parent / source}\n" in (
            capsys.readouterr().out)
        assert f"from {first.parent / source}\n" in (folder / "run.txt").read_text()
        assert [row["epoch"] for row in load(folder)["history"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("resume", [True, "run_2", "False"])
def test_nothing_to_resume_is_an_error_and_makes_no_folder(name, resume, quick, run, monkeypatch):
    script = quick(name)
    if resume is not True:
        run(script, EPOCHS=1, LOSSES=["BCE"])
    before = runs(script)
    monkeypatch.setattr(script, "RESUME", resume)
    assert f"RESUME = {resume!r}" in refusal(script)
    assert runs(script) == before


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_ends(
    name, quick, run, tmp_path, monkeypatch
):
    """With the penalty of every 8th step, WGAN-GP's random mixes, and Dropout in D."""
    script = quick(name)

    class Forgetful(script.Discriminator):
        def forward(self, images):
            return super().forward(F.dropout(images, 0.3))

    monkeypatch.setattr(script, "Discriminator", Forgetful)
    usual = {"LOSSES": ["WGAN-GP", "BCE-R1"], "EPOCHS": 4}
    (tmp_path / "whole" / "run_1").mkdir(parents=True)  # So that the titles agree.
    whole = run(script, OUTPUT_DIR=str(tmp_path / "whole"), **usual)
    run(script, OUTPUT_DIR=str(tmp_path / "parts"), **{**usual, "EPOCHS": 2})
    assert_ends_like(run(script, RESUME=True, **usual), whole)


@pytest.mark.parametrize("name", KINDS)
def test_resuming_with_nothing_left_to_train_writes_the_results(
    name, quick, run, tmp_path, monkeypatch
):
    """They are older than the checkpoint after a Ctrl-C between two pictures."""
    script, usual = quick(name), {"LOSSES": ["BCE"], "SAMPLE_EVERY": 100}
    (tmp_path / "whole" / "run_1").mkdir(parents=True)  # So that the titles agree.
    whole = run(script, OUTPUT_DIR=str(tmp_path / "whole"), EPOCHS=3, **usual)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopping(patch, script, KeyboardInterrupt, calls=3 * STEPS[name])
        run(script, OUTPUT_DIR=str(tmp_path / "parts"), EPOCHS=4, **usual)
    folder = run(script, RESUME=True, EPOCHS=3, **usual)
    assert "history.csv" in names(folder) and len(rows(folder)) == 3
    assert not any(name.startswith("checkpoint") for name in names(folder))
    assert_ends_like(folder, whole)


CHANGES = {"SEED": 9, "BATCH_SIZE": 10, "LEARNING_RATE": 2e-3, "BETAS": (0.5, 0.9), "R1": 0,
           "AVERAGE": 4, "LATENT_DIM": 9, "GENERATOR_HIDDEN": [17], "DISCRIMINATOR_HIDDEN": [17],
           "DATASET": "drawn", "GENERATOR": "conv", "DISCRIMINATOR": "pool", "TRICKS": ["ttur"]}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_checkpoint_of_other_constants_or_other_data_is_refused_by_name(
    name, quick, run, monkeypatch
):
    script = quick(name)
    folder = run(script, EPOCHS=1, LOSSES=["BCE"])
    before = snapshot(folder)
    for constant in CHANGES.keys() & vars(script).keys():
        monkeypatch.setattr(script, "RESUME", True)
        old, new = getattr(script, constant), CHANGES[constant]
        with monkeypatch.context() as patch:
            patch.setattr(script, constant, new)
            message = refusal(script)
        assert f"{constant} = {old!r}" in message and repr(new) in message, message
        assert str(folder / "checkpoint") in message
    images, labels, _ = script.load_images()
    monkeypatch.setattr(script, "load_images", lambda train=True: (images, labels, "circles"))
    assert re.search("data = 'squares'.*'circles'", refusal(script))
    assert snapshot(folder) == before and runs(script) == [folder], "refused before a folder is made"


def test_a_checkpoint_of_another_entry_in_the_table_of_losses_is_refused(quick, run, monkeypatch):
    script = quick("compare_losses")
    run(script, EPOCHS=1, LOSSES=["BCE"])
    monkeypatch.setattr(script, "RESUME", True)
    for field, value in {"critic_lr": 2e-3, "r1": 2.0, "betas": (0.5, 0.9), "clip": 0.1,
                         "optimizer": torch.optim.RMSprop, "penalty_every": 2}.items():
        with monkeypatch.context() as patch:
            entry = SimpleNamespace(**{**vars(script.BCE), field: value})
            patch.setitem(script.LOSS_TABLE, "BCE", entry)
            patch.setattr(script, "build_gan", lambda *_, gan=script.build_gan(
                torch.device("cpu"), "LSGAN", 0): SimpleNamespace(**{**vars(gan), "loss": "BCE"}))
            assert field in refusal(script)


def test_constants_that_do_not_touch_the_training_may_change(quick, run, tmp_path):
    script = quick("train_gan")
    run(script, EPOCHS=1).parent.rename(tmp_path / "moved")
    others = {"SAMPLE_EVERY": 1, "DATA_DIR": "x", "OUTPUT_DIR": str(tmp_path / "moved")}
    assert len(rows(run(script, RESUME=True, EPOCHS=2, **others))) == 2


@pytest.mark.parametrize("fault", ["cut", "empty", "text", "list", "of another script", "lacking",
                                   "other networks", "code"])
def test_a_checkpoint_that_cannot_be_used_is_refused_in_one_line(
    fault, quick, run, tmp_path, monkeypatch
):
    script = quick("train_gan")
    path = run(script, EPOCHS=1) / "checkpoint.pt"
    state, content = load(path.parent), path.read_bytes()

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trapped",))

    if fault == "other networks":
        monkeypatch.setattr(script, "Discriminator", lambda: torch.nn.Linear(784, 1))
    elif fault in ("cut", "empty", "text"):
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"Hi"}[fault])
    else:
        others = {"list": [1, 2], "of another script": {"made_with": {"SEED": 0}},
                  "lacking": {key: value for key, value in state.items() if key != "average"},
                  "code": {**state, "frames": Trap()}}
        torch.save(others[fault], path)
    before = path.read_bytes()
    monkeypatch.setattr(script, "RESUME", True)
    assert str(path) in refusal(script)
    assert path.read_bytes() == before and not (tmp_path / "trapped").exists()


# Kills, Ctrl-C, and errors


@pytest.mark.parametrize("name, every", [
    ("train_gan", 5), ("compare_losses", 7),
    *[pytest.param(name, 1, marks=pytest.mark.slow) for name in SCRIPTS]])
def test_killed_before_any_file_has_its_name_and_resumed_the_end_is_the_same(
    name, every, quick, run, tmp_path, monkeypatch
):
    script, replace, killed = quick(name), Path.replace, []
    usual = {"EPOCHS": 2, "SAMPLE_EVERY": 1, "LOSSES": ["LSGAN", "BCE"]}
    (tmp_path / "whole" / "run_1").mkdir(parents=True)  # So that the titles agree.
    whole = run(script, OUTPUT_DIR=str(tmp_path / "whole"), **usual)

    def remember(part, path):
        """Copy what a kill at this moment would leave, with half of the file that is written."""
        folder = tmp_path / f"killed_{len(killed)}"
        killed.append(shutil.copytree(tmp_path / "out", folder))
        half = folder / part.relative_to(tmp_path / "out")
        half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
        replace(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", remember)
        run(script, OUTPUT_DIR=str(tmp_path / "out"), **usual)
    saved = [sorted(folder.glob("run_1/checkpoint*.pt")) for folder in killed]
    epochs = [sum(len(torch.load(path)["history"]) for path in paths) for paths in saved]
    assert epochs == sorted(epochs) and set(epochs) == set(range(max(epochs) + 1)), epochs
    assert max(epochs) == (2 if len(saved[-1]) == 1 else 4)
    for folder, paths in list(zip(killed, saved))[::-every]:
        assert_ends_like(
            run(script, OUTPUT_DIR=str(folder), RESUME=bool(paths), **usual), whole)


@pytest.mark.parametrize("name", ["checkpoint.pt", "generated.npy", "training.gif"])
def test_ctrl_c_while_a_file_is_written_stops_the_run(name, quick, run, monkeypatch, capsys):
    """torch.save makes a RuntimeError of it, as if the disk were full."""
    script = quick("train_gan")

    class Interrupted(io.BytesIO):
        def write(self, data):
            if self.tell() > 64:
                raise KeyboardInterrupt
            return super().write(data)

    def opened(path, mode):
        return Interrupted() if path.name.endswith(f".{name}") else open(path, mode)

    monkeypatch.setattr(script, "open", opened, raising=False)
    with pytest.raises(KeyboardInterrupt):
        run(script)
    assert "Cannot write" not in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["open", "write", "replace", "torch"])
def test_a_file_that_cannot_be_written_does_not_end_the_run(fault, quick, run, monkeypatch, capsys):
    """It is the picture of the curves each time, and the checkpoint in epoch 2."""
    script, replace, save, tries = quick("train_gan"), Path.replace, torch.save, []

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left")

    def fails(path, now):
        if fault == now:
            tries.append(path.name)
        epoch_2 = "checkpoint" in path.name and tries.count(path.name) == 2
        return fault == now and (epoch_2 or path.name.endswith(".losses.png"))

    def opened(path, mode):
        if fails(path, "open"):
            raise PermissionError(errno.EACCES, "held by a viewer")
        if fails(path, "write"):
            path.touch()
            return Full()
        return open(path, mode)

    def replaced(part, path):
        if fails(part, "replace"):
            raise PermissionError(errno.EACCES, "held by a viewer")
        replace(part, path)

    def saved(state, file):
        if fault == "torch" and len(state.get("history", [])) == 2:
            raise RuntimeError("PytorchStreamWriter failed writing file")
        save(state, file)

    monkeypatch.setattr(script, "open", opened, raising=False)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(torch, "save", saved)
    folder = run(script, SAMPLE_EVERY=1)
    printed = capsys.readouterr().out
    reasons = {"torch": "PytorchStreamWriter failed", "write": "No space left"}
    assert reasons.get(fault, "held by a viewer") in printed
    assert printed.count(f"Cannot write {folder / 'checkpoint.pt'}: ") == 1
    assert printed.count(f"Cannot write {folder / 'losses.png'}: ") == 3 * (fault != "torch")
    assert len(load(folder)["history"]) == len(rows(folder)) == 3
    assert not any(name.startswith("part") for name in names(folder)), "they would take the space"


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_error_in_training_is_shown_as_it_is_and_the_epochs_before_it_are_on_disk(
    name, quick, run, monkeypatch, capsys
):
    """After an error of CUDA, nothing can be loaded any more. So nothing may try to."""
    script = quick(name)
    one, two = (run(script, EPOCHS=epochs, LOSSES=["BCE"]) for epochs in (1, 2))
    checkpoint = "checkpoint_bce_0.pt" if name == "compare_losses" else "checkpoint.pt"
    capsys.readouterr()
    stopping(monkeypatch, script, RuntimeError("my mistake"), calls=2 * STEPS[name])
    monkeypatch.setattr(torch, "load", broken := lambda *_, **__: (_ for _ in ()).throw(
        RuntimeError("CUDA error: device-side assert triggered")))
    monkeypatch.setattr(script, "prepare_judge", lambda *_, real=vars(script).get(
        "prepare_judge"): with_load(monkeypatch, broken, real, *_), raising=False)
    with pytest.raises(RuntimeError, match="my mistake") as error:
        run(script, EPOCHS=5, LOSSES=["BCE"])
    assert error.value.__context__ is None, "its traceback is all that is shown"
    assert re.match(r"(BCE +0)? +2 ", capsys.readouterr().out.splitlines()[-1])
