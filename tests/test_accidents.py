"""What can happen to a run: Ctrl-C, a kill, a full disk, a locked file, a second run beside it."""

import builtins
import errno
import importlib
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SCRIPTS, edited, make_dots, make_small, start
from test_files import checkpoint, differences, files, output, refusal


@pytest.fixture
def gan_script():
    """One script is enough here, too, where a test does not name them all."""
    return importlib.import_module("train_gan")


def interrupted(gan, images):
    """Stands in for train_epoch(): Ctrl-C amid the epoch."""
    raise KeyboardInterrupt


# Ctrl-C, and what goes wrong in the training


def test_ctrl_c_keeps_the_last_epoch_and_its_pictures(small, monkeypatch, capsys):
    train_epoch, calls = small.train_epoch, []

    def interrupted_later(gan, images):
        calls.append(1)
        result = train_epoch(gan, images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(small, "train_epoch", interrupted_later)
    monkeypatch.setattr(small, "EPOCHS", 5)
    small.main()
    printed = capsys.readouterr().out
    assert "Stopped." in printed and "RESUME = True" in printed
    assert len(checkpoint(small)["history"]) == 2
    assert {"samples_epoch_002.png", "losses.png", "training.gif", "generator.pt"} <= set(
        files(small)
    )
    state = torch.load(output(small) / "generator.pt", weights_only=True)
    assert differences(dict(state), dict(checkpoint(small)["average"])) == []
    monkeypatch.setattr(small, "train_epoch", train_epoch)
    monkeypatch.setattr(small, "RESUME", True)
    small.main()
    resumed = checkpoint(small)
    monkeypatch.setattr(small, "RESUME", False)
    small.main()
    assert differences(checkpoint(small), resumed) == []


def test_ctrl_c_before_the_first_epoch_ends_does_not_speak_of_resuming(small, monkeypatch, capsys):
    monkeypatch.setattr(small, "train_epoch", interrupted)
    small.main()
    printed = capsys.readouterr().out
    assert "Stopped" in printed and "no checkpoint" in printed and "RESUME" not in printed
    assert files(small) == ["run.txt"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    small, monkeypatch, number
):
    train_epoch, calls = small.train_epoch, []

    def broken(gan, images):
        row = train_epoch(gan, images)
        calls.append(1)
        if len(calls) == 3:
            row[number] = (math.nan, math.inf)[number]
            with torch.no_grad():
                next(gan.generator.parameters()).fill_(math.nan)
                next(gan.average.parameters()).fill_(math.nan)
        return row

    monkeypatch.setattr(small, "train_epoch", broken)
    monkeypatch.setattr(small, "EPOCHS", 9)
    with pytest.raises(SystemExit, match="epoch 3 is not a finite number.*LEARNING_RATE"):
        small.main()
    assert len(calls) == 3 and len(checkpoint(small)["history"]) == 2
    state = torch.load(output(small) / "generator.pt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert {"losses.png", "samples_epoch_002.png"} <= set(files(small))


def rows(d_real, d_fake, count=3):
    return [{"D(x)": d_real, "D(G(z))": d_fake}] * count


def test_diagnosis_names_a_discriminator_that_has_won(gan_script, images, monkeypatch):
    varied = torch.randint(0, 256, (64, 28, 28), generator=torch.Generator().manual_seed(0)).byte()

    def found(history):
        return list(
            gan_script.diagnose(SimpleNamespace(history=history, frames=[varied]), images)
        )

    (warning,) = found(rows(0.99, 0.01))
    assert "D has won" in warning and "LEARNING_RATE" in warning
    assert found(rows(0.9, 0.01)) == found(rows(0.99, 0.1)) == []
    assert found(rows(0.99, 0.01, 2)) == [], "a few epochs prove nothing"
    assert found(rows(0.5, 0.5, 1) + rows(0.99, 0.01)) != [], "only the last epochs count"
    assert "R1" not in warning, "no advice to do what is done"
    monkeypatch.setattr(gan_script, "R1", 0)
    assert "R1 = " in found(rows(0.99, 0.01))[0]


def test_diagnosis_names_pictures_that_are_all_alike(gan_script, images, monkeypatch):
    real = images[:, 0].add(1).mul(127.5).round().byte()

    def found(frame, count=3):
        gan = SimpleNamespace(history=rows(0.6, 0.4, count), frames=[frame])
        return list(gan_script.diagnose(gan, images))

    (warning,) = found(real[:1].expand(48, 28, 28))
    assert "alike" in warning and "R1" not in warning
    assert found(real) == [] and found(real[:1].expand(48, 28, 28), 2) == []
    monkeypatch.setattr(gan_script, "R1", 0)
    assert "R1 = " in found(real[:1].expand(48, 28, 28))[0]


def test_a_warning_is_printed_once_also_after_resuming(small, monkeypatch, capsys):
    monkeypatch.setattr(small, "diagnose", lambda gan, images: ["something is wrong"])
    small.main()
    monkeypatch.setattr(small, "RESUME", True)
    monkeypatch.setattr(small, "EPOCHS", 5)
    small.main()
    assert capsys.readouterr().out.count("Warning: something is wrong") == 1


# Files that cannot be written or moved


@pytest.mark.parametrize("fault", ["replace", "open and unlink"])
def test_a_file_that_stays_locked_does_not_end_the_training(
    small, monkeypatch, capsys, fault
):
    """The picture is open in a viewer, or its copy in a program for backups, as on Windows."""
    for owner, name in ((Path, "replace"), (Path, "unlink"), (builtins, "open")):

        def locked(path, *arguments, real=getattr(owner, name), **options):
            if Path(path).name == "part.losses.png":
                raise PermissionError(errno.EACCES, "open elsewhere")
            return real(path, *arguments, **options)

        if name in fault:
            monkeypatch.setattr(owner, name, locked)
    small.main()
    printed = capsys.readouterr().out
    assert f"Cannot write {output(small) / 'losses.png'}" in printed and "elsewhere" in printed
    assert len(checkpoint(small)["history"]) == 3
    assert "training.gif" in files(small) and "losses.png" not in files(small)
    assert not [name for name in files(small) if "part" in name]


@pytest.mark.parametrize("fault", ["replace", "open"])
def test_a_checkpoint_that_is_locked_for_a_moment_is_written_after_the_next_epoch(
    small, monkeypatch, capsys, fault
):
    """As by a virus scanner. It comes once, in epoch 2."""
    faults, saved = [], []
    owner = {"replace": Path, "open": builtins}[fault]
    real = getattr(owner, fault)

    def locked(path, *arguments, **options):
        if Path(path).name == "part.checkpoint.pt":
            faults.append(1)
            if len(faults) > 1:
                saved.append(len(checkpoint(small)["history"]))
            if len(faults) == 2:
                raise PermissionError(errno.EACCES, "locked for a moment")
        return real(path, *arguments, **options)

    monkeypatch.setattr(owner, fault, locked)
    small.main()
    assert len(checkpoint(small)["history"]) == 3 and saved == [1, 1]
    printed = capsys.readouterr().out
    assert printed.count("Cannot write") == 1 and "checkpoint.pt: [Errno 13] locked" in printed


@pytest.mark.slow
@pytest.mark.parametrize("room", range(1, 18, 3))
def test_a_full_disk_leaves_the_last_good_files_and_the_run_can_be_resumed(
    small, monkeypatch, capsys, room
):
    """Of the files that a run writes, the disk holds the first few."""
    opened = []

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def disk(path, mode):
        opened.append(path)
        if len(opened) <= room:
            return open(path, mode)
        path.write_bytes(b"half")
        return Full()

    monkeypatch.setattr(small, "open", disk, raising=False)
    small.main()
    assert "No space left" in capsys.readouterr().out
    assert not [name for name in files(small) if "part" in name]
    assert b"half" not in [(output(small) / name).read_bytes() for name in files(small)]
    monkeypatch.setattr(small, "open", open)
    monkeypatch.setattr(small, "RESUME", True)
    small.main()
    resumed = checkpoint(small)
    monkeypatch.setattr(small, "RESUME", False)
    small.main()
    assert differences(checkpoint(small), resumed) == []


def test_a_checkpoint_that_torch_fails_to_write_does_not_end_the_training(
    small, monkeypatch, capsys
):
    """PyTorch makes a RuntimeError of some of the system's errors."""
    save = torch.save

    def broken(state, file):
        if "history" in state and len(state["history"]) == 2:
            raise RuntimeError("PytorchStreamWriter failed writing file")
        save(state, file)

    monkeypatch.setattr(torch, "save", broken)
    small.main()
    assert "checkpoint.pt: PytorchStreamWriter failed" in capsys.readouterr().out
    assert len(checkpoint(small)["history"]) == 3


@pytest.mark.parametrize("number", [1, 3])
def test_a_file_that_is_open_elsewhere_stops_a_new_run_before_anything_is_moved(
    small, monkeypatch, number
):
    """On Windows, a spreadsheet program locks history.csv."""
    small.main()
    before = {name: (output(small) / name).read_bytes() for name in files(small)}
    rename, calls = Path.rename, []

    def locked(path, target):
        calls.append(path)
        if len(calls) == number:
            raise PermissionError(errno.EACCES, "open in a spreadsheet")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", locked)
        message = refusal(small)
    assert "earlier run" in message and "open in a spreadsheet" in message
    assert files(small) == list(before), "also no empty folder is left"
    assert before == {name: (output(small) / name).read_bytes() for name in files(small)}
    small.main()
    kept = output(small) / "earlier_1"
    assert before == {path.name: path.read_bytes() for path in kept.iterdir()}


def test_an_output_folder_that_cannot_be_written_is_one_line(script, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(script, "OUTPUT_DIR", str(tmp_path / "file" / "out"))
    monkeypatch.setattr(script, "load_images", lambda train=True: pytest.fail("too late"))
    assert refusal(script).startswith("OUTPUT_DIR = ")


def test_a_tilde_in_output_dir_is_the_home_folder(small, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):  # The second is for Windows.
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(small, "OUTPUT_DIR", "~/runs")
    small.main()
    assert (tmp_path / "home" / "runs" / "generator.pt").exists()
    assert not (tmp_path / "~").exists()


# A second run, and kills


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_one_runs(
    script, tmp_path, monkeypatch
):
    monkeypatch.setattr(script, "load_images", lambda train=True: pytest.fail("too late"))
    with script.open_output():
        (tmp_path / "out" / "part.checkpoint.pt").touch()  # Of the first run, which is amid it.
        assert "another run" in refusal(script)
        assert (tmp_path / "out" / "part.checkpoint.pt").exists()
        monkeypatch.setattr(script, "OUTPUT_DIR", str(tmp_path / "elsewhere"))
        with script.open_output():
            pass
    monkeypatch.setattr(script, "OUTPUT_DIR", str(tmp_path / "out"))
    with script.open_output():
        assert not (tmp_path / "out" / "part.checkpoint.pt").exists(), "a kill left it behind"


class Moments:
    """Copies a folder before each change in it: what a kill at this moment would leave there.

    Before a file that is whole gets its name there is one more: a kill that leaves half of it.
    """

    def __init__(self):
        self.folder, self.copies = None, None
        sys.addaudithook(self.hook)  # It stays, but it does nothing without a folder.

    def hook(self, event, arguments):
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        writes = event == "open" and set("wax+") & set(arguments[1] or "")
        if not self.folder or not (changes or writes) or isinstance(arguments[0], int):
            return
        path, folder = Path(arguments[0]), self.folder
        if folder in path.parents:
            self.folder = None  # For the changes that it makes itself.
            self.copy(folder)
            if event == "os.rename" and path.is_file():
                half = self.copy(folder) / path.relative_to(folder)
                if half.name.startswith("part."):
                    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            self.folder = folder

    def copy(self, folder):
        number = len(list(self.copies.iterdir()))
        return Path(shutil.copytree(folder, self.copies / f"moment_{number:03d}"))


@pytest.fixture(scope="session")
def moments():
    return Moments()


def moments_of_a_run(script, moments, tmp_path):
    """The folder that a run of the script leaves if it is killed, for each moment."""
    moments.copies = tmp_path / "moments"
    moments.copies.mkdir()
    moments.folder = output(script)
    script.main()
    moments.folder = None
    return sorted(moments.copies.iterdir())


def checkpoints(folder):
    """What all checkpoints in a folder hold."""
    paths = sorted(folder.glob("checkpoint*.pt"))
    return {path.name: torch.load(path, weights_only=True) for path in paths}


def small_for_kills(name, images, monkeypatch):
    script = make_dots(make_small(importlib.import_module(name), images, monkeypatch), monkeypatch)
    settings = {"EPOCHS": 2, "SAMPLE_EVERY": 1, "LOSSES": ("LSGAN", "WGAN")}
    for constant, value in settings.items():
        if hasattr(script, constant):
            monkeypatch.setattr(script, constant, value)
    return script


@pytest.mark.parametrize(
    "name, every",
    [*[pytest.param(name, 1, marks=pytest.mark.slow) for name in SCRIPTS], ("train_gan", 9)],
)
def test_killed_between_any_two_writes_and_resumed_it_gives_the_same_files(
    name, every, images, moments, tmp_path, monkeypatch
):
    script = small_for_kills(name, images, monkeypatch)
    folders = moments_of_a_run(script, moments, tmp_path)
    whole = {name: (output(script) / name).read_bytes() for name in files(script)}
    states = checkpoints(output(script))
    assert len(folders) > 3 * len(whole), "each file has three moments at least"
    monkeypatch.setattr(script, "RESUME", True)
    for folder in folders[1::every]:
        monkeypatch.setattr(script, "OUTPUT_DIR", str(folder))
        checkpoints(folder)  # They can be read.
        script.main()
        left = {name for name in files(script) if not name.startswith("earlier")}
        assert left == set(whole), folder.name
        assert differences(states, checkpoints(folder)) == [], folder.name
        for file in whole.keys() - states.keys() - {"run.txt"}:
            if not file.endswith((".csv", ".md")):  # There, seconds differ.
                assert (folder / file).read_bytes() == whole[file], f"{folder.name}: {file}"


@pytest.mark.parametrize(
    "name, every",
    [*[pytest.param(name, 1, marks=pytest.mark.slow) for name in SCRIPTS], ("train_gan", 5)],
)
def test_killed_while_a_new_run_begins_nothing_of_the_earlier_one_is_lost(
    name, every, images, moments, tmp_path, monkeypatch
):
    script = small_for_kills(name, images, monkeypatch)
    script.main()
    earlier = [(output(script) / name).read_bytes() for name in files(script)]
    seed = {"SEED": 1} if hasattr(script, "SEED") else {"SEEDS": (1,)}
    for constant, value in seed.items():
        monkeypatch.setattr(script, constant, value)
    with monkeypatch.context() as patch:
        patch.setattr(script, "train_epoch", interrupted)
        folders = moments_of_a_run(script, moments, tmp_path)
    assert len(folders) > 2 * len(earlier), "each file has two moments at least"
    for folder in folders[::every]:
        monkeypatch.setattr(script, "OUTPUT_DIR", str(folder))
        for resume in (True, False) if hasattr(script, "SEED") else (False,):
            monkeypatch.setattr(script, "RESUME", resume)
            try:
                script.main()
            except SystemExit as stop:  # Before its checkpoint has moved, it is of another seed.
                assert resume and "SEED" in str(stop)
            kept = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
            assert all(content in kept for content in earlier), f"{folder.name}, {resume}"


# The console


class Deaf(io.StringIO):
    """A pipe of which nobody reads, as after `python train_gan.py | head -1`."""

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("stdout", ["none", "deaf", "ascii"])
def test_a_run_needs_nobody_to_read_what_it_prints(small, monkeypatch, tmp_path, stdout):
    raw = io.BytesIO()
    consoles = {"none": None, "deaf": Deaf(), "ascii": io.TextIOWrapper(raw, encoding="ascii")}
    monkeypatch.setattr(small, "OUTPUT_DIR", str(tmp_path / "für — dich"))
    monkeypatch.setattr(sys, "stdout", consoles[stdout])
    small.main()
    if stdout == "deaf":
        sys.stdout.close()  # The one that say() has put in its place.
    assert len(checkpoint(small)["history"]) == 3 and "generator.pt" in files(small)
    if stdout == "ascii":
        assert b"f?r ? dich" in raw.getvalue() and b"    3 " in raw.getvalue()


def run_guard(name, monkeypatch, file, *argv, settings=None):
    """Run the text of a script as Python does if it is started with `argv`, from this file."""
    monkeypatch.setattr(sys, "argv", list(argv))
    names = {"__name__": "__main__", **({"__file__": file} if file else {})}
    exec(compile(edited(name, **settings or {}), file or "<cell>", "exec"), names)


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_argument_is_an_error_of_one_line_where_python_was_started_with_the_script(
    name, monkeypatch, tmp_path
):
    settings = {"OUTPUT_DIR": str(tmp_path / "out")}
    for argv0 in (f"{name}.py", f"/home/me/{name}.py"):
        with pytest.raises(SystemExit) as stop:
            run_guard(name, monkeypatch, f"/home/me/{name}.py", argv0, "--epochs", "3",
                      settings=settings)  # fmt: skip
        message = str(stop.value)
        assert "edit the constants" in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("file", ["", "SCRIPT"], ids=["pasted", "cell of the file"])
def test_arguments_of_a_notebook_are_none_of_the_script(name, file, monkeypatch, tmp_path, capsys):
    file = file and str(tmp_path / f"{name}.py")
    called = {"EPOCHS": 0, "OUTPUT_DIR": str(tmp_path / "out")}  # It comes as far as this check.
    with pytest.raises(SystemExit, match="^EPOCHS = 0"):
        run_guard(name, monkeypatch, file, "/x/ipykernel_launcher.py", "-f", "kernel.json",
                  settings=called)  # fmt: skip


# Real processes. Nothing stands in for anything here, so they take their time.


@pytest.fixture
def program(tmp_path):
    """A function that writes a script with other constants and starts it as a student would."""

    def run(name="train_gan", **settings):
        path = tmp_path / f"{name}_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(edited(name, **settings), encoding="utf-8")
        return start(str(path), cwd=tmp_path)

    return run


def wait_for(process, epoch):
    """Read the lines of a process until the row of an epoch comes."""
    for line in process.stdout:
        if re.match(rf"(?:BCE +0)? +{epoch} ", line):
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_second_process_stops_and_the_first_is_unharmed_and_can_be_killed(
    name, program, tmp_path
):
    with program(name, EPOCHS=999, OUTPUT_DIR="shared") as first:
        wait_for(first, 2)
        with program(name, EPOCHS=999, OUTPUT_DIR="shared", SEED=7, SEEDS=(7,)) as second:
            printed, errors = second.communicate()
        assert second.returncode == 1 and len(errors.splitlines()) == 1, errors
        assert "another run" in errors and printed == ""
        wait_for(first, 4)
        first.kill()
    with program(name, EPOCHS=999, OUTPUT_DIR="shared", RESUME=True) as third:
        wait_for(third, r"\d+")
        third.kill()
    with program(name, EPOCHS=3, OUTPUT_DIR="alone") as alone:
        assert alone.communicate()[1] == ""
    shared, right = (checkpoints(tmp_path / folder) for folder in ("shared", "alone"))
    (first, *_), (same, *_) = shared.values(), right.values()
    assert len(first["history"]) > 4
    assert differences(same["history"], first["history"][:3]) == []
    assert name == "compare_losses" or differences(same["frames"], first["frames"][:3]) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a shell of Unix")
@pytest.mark.parametrize(
    "name, end",
    [*[(name, "| head -1") for name in SCRIPTS], ("train_gan", ">&-"), ("train_gan", ">&- 2>&-")],
)
def test_where_nobody_listens_a_run_goes_on_and_ends_well(name, end, tmp_path):
    path = tmp_path / f"{name}.py"
    path.write_text(edited(name, OUTPUT_DIR="out", LOSSES=("LSGAN",)), encoding="utf-8")
    command = f"set -o pipefail; '{sys.executable}' {path.name} {end}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert checkpoints(tmp_path / "out") and list((tmp_path / "out").glob("generated*.npy"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_a_real_ctrl_c_ends_in_one_line_and_leaves_all_files(program, tmp_path):
    with program(EPOCHS=999, OUTPUT_DIR="out") as process:
        wait_for(process, 2)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "Stopped." in printed and "RESUME = True" in printed
    assert (tmp_path / "out" / "generator.pt").exists()
