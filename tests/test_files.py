"""What a run prints and writes, how it resumes, and what faults leave behind."""

import csv
import errno
import importlib
import io
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, SCRIPTS, SMALL, needed_scripts, same
from PIL import Image


@pytest.fixture
def gan_script():
    """One script is enough here: most of these functions are one text in all scripts, which another
    test holds them to. The others have tests of their own for what differs."""
    return importlib.import_module("train_gan")


def output(script):
    return Path(script.OUTPUT_DIR)


def files(script):
    return sorted(path.name for path in output(script).iterdir())


def checkpoint(script):
    return torch.load(output(script) / "checkpoint.pt", weights_only=True)


def promised(script):
    """The files that the docstring names, as patterns."""
    text = script.__doc__.split("It writes to")[1].split("A new run")[0]
    names = re.findall(r"[\w/]+\.(?:png|gif|csv|pt|md)", text)
    return [name.replace("_010", r"_\d\d\d") for name in names]


class Terminal(io.StringIO):
    def isatty(self):
        return True


# What is printed and written


def test_a_run_writes_the_files_that_its_docstring_names_and_says_so(small_with_pictures, capsys):
    small = small_with_pictures
    small.main()
    printed = capsys.readouterr().out
    for name in files(small):
        assert any(re.fullmatch(pattern, name) for pattern in promised(small)), name
        assert str(output(small) / name) in printed
    for pattern in promised(small):
        assert any(re.fullmatch(pattern, name) for name in files(small)), pattern
    assert {"samples_epoch_002.png", "samples_epoch_003.png"} <= set(files(small))
    for word in ("squares", "48 images", "cpu", torch.__version__, "threads", "parameters"):
        assert word in printed, word
    assert str(output(small).resolve()) in printed
    for name in files(small):
        if name.endswith(("png", "gif")):
            with Image.open(output(small) / name) as picture:
                picture = picture.convert("L")
                assert min(picture.size) > 300 and len(picture.getcolors(256)) > 20, name


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
    assert "\r  step 20 of 24\r" in terminal.getvalue()
    lines = [line.rsplit("\r", 1)[-1] for line in terminal.getvalue().splitlines()]
    assert sum(line.startswith("    2 ") for line in lines) == 1, "the row replaces the moving line"


def test_history_holds_the_numbers_of_the_table(small, capsys):
    small.main()
    printed = capsys.readouterr().out
    with open(output(small) / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert {row["data"] for row in rows} == {"squares"}
    for row in rows:
        text = f"{float(row['loss_d']):8.4f} {float(row['loss_g']):8.4f} {float(row['d_real']):7.3f}"
        assert f"{row['epoch']:>5} {text} {float(row['d_fake']):8.3f}" in printed
        assert float(row["seconds"]) > 0


def test_the_generator_file_draws_the_last_frame(small):
    small.main()
    generator = small.Generator()
    state = torch.load(output(small) / "generator.pt", weights_only=True)
    generator.load_state_dict(state)
    saved = checkpoint(small)
    assert small.generate(generator, saved["fixed_latents"]).equal(saved["frames"][-1])
    assert len(saved["frames"]) == len(saved["history"]) == 3


def test_pictures_show_the_fixed_latents_on_one_grey_scale(gan_script):
    frame = (torch.arange(64) * 4).byte().view(64, 1, 1).expand(64, 28, 28)
    figure = gan_script.draw_grid(frame, "a title")
    (axes,) = figure.axes
    (shown,) = axes.images
    assert axes.get_title() == "a title" and axes.get_xlabel() and axes.get_ylabel()
    assert shown.get_clim() == (0, 255), "never stretched to the picture's own range"
    grid = shown.get_array()
    for place, (row, column) in {0: (0, 0), 1: (0, 1), 8: (1, 0), 63: (7, 7)}.items():
        cell = grid[28 * row : 28 * row + 28, 28 * column : 28 * column + 28]
        assert cell.min() == cell.max() == 4 * place
    assert list(axes.get_xticks()) == [28 * i + 14 for i in range(8)]


def test_generate_maps_the_range_to_bytes_and_goes_back_to_training(gan_script):
    class Fake(torch.nn.Module):
        def forward(self, latents):
            assert not self.training and not torch.is_grad_enabled()
            return latents.view(-1, 1, 1, 1).expand(-1, 1, 28, 28)

    fake = Fake().train()
    frame = gan_script.generate(fake, torch.tensor([-1.0, 0.0, 1.0]))
    assert frame.shape == (3, 28, 28) and frame.dtype == torch.uint8
    assert frame[:, 0, 0].tolist() == [0, 128, 255]
    assert fake.training


def test_curves_show_the_columns_and_what_theory_expects(gan_script):
    history = [
        {"epoch": n, "loss_d": 10 + n, "loss_g": 20 + n, "d_real": 0.5 + n / 10, "d_fake": n / 10}
        for n in (1, 2, 3)
    ]
    figure = gan_script.draw_curves(history, "GAN on squares")
    assert figure.get_suptitle() == "GAN on squares"
    left, right = figure.axes
    lines = {
        line.get_label(): list(line.get_ydata()) for axes in (left, right) for line in axes.lines
    }
    assert lines["loss D"] == [11, 12, 13] and lines["loss G"] == [21, 22, 23]
    assert lines["D(x)"] == [0.6, 0.7, 0.8] and lines["D(G(z))"] == [0.1, 0.2, 0.3]
    levels = [line.get_ydata()[0] for axes in (left, right) for line in axes.lines if line.get_ls() == "--"]
    assert levels == pytest.approx([2 * math.log(2), math.log(2), 0.5])
    assert left.get_xlabel() == right.get_xlabel() == "epoch"
    assert left.get_ylabel() and right.get_ylim() == (0, 1)


@pytest.mark.parametrize(
    "count, kept",
    [(1, [1]), (50, list(range(1, 51))), (51, list(range(1, 52, 2))), (120, list(range(3, 121, 3)))],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_the_gif_ends_with_the_last_epoch_and_has_at_most_50_frames(
    small_with_pictures, monkeypatch, count, kept
):
    small = small_with_pictures
    small.open_output()
    frames = [torch.full((64, 28, 28), n, dtype=torch.uint8) for n in range(1, count + 1)]
    drawn = []

    def draw(frame, title):
        drawn.append(frame[0, 0, 0].item())
        picture = io.BytesIO()
        Image.new("L", (9, 9), drawn[-1]).save(picture, "PNG")
        assert title.startswith("GAN on squares") and title.endswith(f" {drawn[-1]}")
        return SimpleNamespace(savefig=lambda file, **_: file.write(picture.getvalue()))

    monkeypatch.setattr(small, "draw_grid", draw)
    small.save_gif(SimpleNamespace(frames=frames), "squares")
    with Image.open(output(small) / "training.gif") as gif:
        assert sorted(drawn) == kept
        assert gif.n_frames == len(kept)
        assert gif.convert("L").getpixel((4, 4)) == kept[0], "time runs forwards"
        gif.seek(gif.n_frames - 1)
        assert gif.info["duration"] == 2000
        assert gif.convert("L").getpixel((4, 4)) == count


def test_windows_open_only_when_asked_for(small, monkeypatch, capsys):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(len(plt.get_fignums())))
    small.main()
    assert shown == []
    monkeypatch.setattr(small, "SHOW_WINDOWS", True)
    small.main()
    assert shown and shown[0] >= 2
    plt.close("all")


# Resuming


def test_two_parts_give_the_same_as_one_run(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(small, "EPOCHS", 4)
    small.main()
    whole, whole_files = checkpoint(small), files(small)
    monkeypatch.setattr(small, "OUTPUT_DIR", str(tmp_path / "parts"))
    monkeypatch.setattr(small, "EPOCHS", 1)
    small.main()
    monkeypatch.setattr(small, "EPOCHS", 4)
    monkeypatch.setattr(small, "RESUME", True)
    capsys.readouterr()
    small.main()
    assert "Resumed   after epoch 1 of 4" in capsys.readouterr().out
    parts = checkpoint(small)
    assert_same_state(whole, parts)
    assert set(whole_files) <= set(files(small))


def assert_same_state(first, second):
    assert same(first["generator"], second["generator"])
    assert same(first["discriminator"], second["discriminator"])
    assert first["rng"].equal(second["rng"]) and len(first["frames"]) == len(second["frames"])
    assert all(a.equal(b) for a, b in zip(first["frames"], second["frames"]))
    for a, b in zip(first["history"], second["history"]):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_resuming_a_finished_run_changes_nothing(small, monkeypatch):
    small.main()
    before = checkpoint(small)
    monkeypatch.setattr(small, "RESUME", True)
    small.main()
    assert_same_state(before, checkpoint(small))
    assert not any(name.startswith("earlier") for name in files(small))


def test_pictures_go_on_with_the_fixed_latents_of_the_checkpoint(small, monkeypatch):
    small.main()
    state = checkpoint(small)
    state["fixed_latents"].zero_()
    torch.save(state, output(small) / "checkpoint.pt")
    monkeypatch.setattr(small, "RESUME", True)
    monkeypatch.setattr(small, "EPOCHS", 4)
    small.main()
    last = checkpoint(small)["frames"][-1]
    assert last.equal(last[:1].expand(64, 28, 28)), "one latent, 64 equal images"


def test_pictures_and_numbers_appear_while_the_run_goes_on(small, monkeypatch):
    train_epoch, seen = small.train_epoch, []

    def look(gan, images):
        seen.append(files(small))
        return train_epoch(gan, images)

    monkeypatch.setattr(small, "train_epoch", look)
    small.main()
    assert seen[0] == [] and "checkpoint.pt" in seen[1] and "losses.png" not in seen[1]
    assert {"losses.png", "history.csv", "samples_epoch_002.png"} <= set(seen[2])


def test_resuming_where_nothing_was_saved_starts_anew(small, monkeypatch, capsys):
    monkeypatch.setattr(small, "RESUME", True)
    small.main()
    assert len(checkpoint(small)["history"]) == 3
    assert "Resumed   nothing" in capsys.readouterr().out


def test_a_picture_that_a_kill_prevented_is_drawn_on_resuming(small, monkeypatch):
    small.main()
    (output(small) / "samples_epoch_002.png").unlink()
    monkeypatch.setattr(small, "RESUME", True)
    small.main()
    assert "samples_epoch_002.png" in files(small)


def test_a_new_run_keeps_the_files_of_the_earlier_ones(small, monkeypatch, capsys):
    small.main()
    first = {name: (output(small) / name).read_bytes() for name in files(small)}
    (output(small) / "notes.txt").write_text("mine")
    for number in (1, 2):
        monkeypatch.setattr(small, "SEED", number)
        small.main()
    kept = output(small) / "earlier_1"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == first
    assert (output(small) / "earlier_2" / "generator.pt").exists()
    assert (output(small) / "notes.txt").read_text() == "mine"
    assert "earlier_2" in capsys.readouterr().out


CHANGES = {"SEED": 9, "BATCH_SIZE": 10, "LEARNING_RATE": 1e-3, "BETA1": 0.9, "PRECISION": "bfloat16"}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_other_constants_is_refused_by_name(small, monkeypatch, name):
    small.main()
    before = (output(small) / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(small, "RESUME", True)
    old = getattr(small, name)
    monkeypatch.setattr(small, name, CHANGES[name])
    with pytest.raises(SystemExit) as stop:
        small.main()
    assert f"{name} = {old!r}" in str(stop.value) and repr(CHANGES[name]) in str(stop.value)
    assert (output(small) / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_of_another_kind_of_device_is_refused(small, monkeypatch):
    small.main()
    path = output(small) / "checkpoint.pt"
    state = checkpoint(small)
    state["made with"]["device"] = "cuda"
    torch.save(state, path)
    monkeypatch.setattr(small, "RESUME", True)
    with pytest.raises(SystemExit, match="device = 'cuda'.*'cpu'"):
        small.main()


def test_a_checkpoint_of_other_data_is_refused(small, monkeypatch, images):
    small.main()
    monkeypatch.setattr(small, "RESUME", True)
    monkeypatch.setattr(small, "load_images", lambda train=True: (images, None, "circles"))
    with pytest.raises(SystemExit, match="data = 'squares'.*'circles'"):
        small.main()


def test_constants_that_do_not_touch_the_training_may_change(small, monkeypatch, tmp_path):
    small.main()
    for name, value in {"RESUME": True, "EPOCHS": 4, "SAMPLE_EVERY": 1}.items():
        monkeypatch.setattr(small, name, value)
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.setattr(small, "OUTPUT_DIR", str(tmp_path / "moved"))
    small.main()
    assert {f"samples_epoch_00{n}.png" for n in (1, 2, 3, 4)} <= set(files(small))


@pytest.mark.parametrize("fault", ["cut short", "empty", "text", "other script", "no constants"])
def test_a_checkpoint_that_cannot_be_used_is_refused_in_one_line(small, monkeypatch, fault):
    small.main()
    path = output(small) / "checkpoint.pt"
    content = path.read_bytes()
    if fault == "other script":
        torch.save({"made with": {"SEED": 0}}, path)
    elif fault == "no constants":
        torch.save([1, 2], path)
    else:
        path.write_bytes({"cut short": content[: len(content) // 2], "empty": b"", "text": b"hello"}[fault])
    before = path.read_bytes()
    monkeypatch.setattr(small, "RESUME", True)
    with pytest.raises(SystemExit) as stop:
        small.main()
    message = str(stop.value)
    assert str(path) in message and "\n" not in message
    assert ("other constants" if fault == "other script" else "damaged") in message
    assert path.read_bytes() == before


def test_a_checkpoint_of_other_networks_is_refused_in_one_line(small, monkeypatch):
    small.main()
    monkeypatch.setattr(small, "RESUME", True)
    monkeypatch.setattr(small, "Discriminator", lambda: small.nn.Linear(784, 1))
    with pytest.raises(SystemExit, match="is of other networks than section 5 has"):
        small.main()


def test_a_checkpoint_never_runs_code(small, monkeypatch, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trapped",))

    small.main()
    torch.save({"made with": Trap()}, output(small) / "checkpoint.pt")
    monkeypatch.setattr(small, "RESUME", True)
    with pytest.raises(SystemExit, match="damaged"):
        small.main()
    assert not (tmp_path / "trapped").exists()


# Faults


def test_ctrl_c_keeps_the_last_epoch_and_its_pictures(small, monkeypatch, capsys):
    train_epoch, calls = small.train_epoch, []

    def interrupted(gan, images):
        calls.append(1)
        result = train_epoch(gan, images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(small, "train_epoch", interrupted)
    monkeypatch.setattr(small, "EPOCHS", 5)
    small.main()
    assert "Stopped. RESUME = True" in capsys.readouterr().out
    assert len(checkpoint(small)["history"]) == 2
    assert {"samples_epoch_002.png", "losses.png", "training.gif", "generator.pt"} <= set(files(small))
    monkeypatch.setattr(small, "train_epoch", train_epoch)
    monkeypatch.setattr(small, "RESUME", True)
    small.main()
    resumed = checkpoint(small)
    monkeypatch.setattr(small, "RESUME", False)
    small.main()
    assert_same_state(checkpoint(small), resumed)


def test_ctrl_c_in_the_first_epoch_ends_cleanly(small, monkeypatch, capsys):
    def interrupted(gan, images):
        raise KeyboardInterrupt

    monkeypatch.setattr(small, "train_epoch", interrupted)
    small.main()
    assert "Stopped" in capsys.readouterr().out and files(small) == []


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
        return row

    monkeypatch.setattr(small, "train_epoch", broken)
    monkeypatch.setattr(small, "EPOCHS", 9)
    with pytest.raises(SystemExit, match="epoch 3 is not a finite number.*LEARNING_RATE"):
        small.main()
    assert len(calls) == 3 and len(checkpoint(small)["history"]) == 2
    state = torch.load(output(small) / "generator.pt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert "losses.png" in files(small)


def rows(d_real, d_fake, count=5):
    return [{"d_real": d_real, "d_fake": d_fake}] * count


def test_diagnosis_names_a_discriminator_that_has_won(gan_script, images):
    varied = torch.randint(0, 256, (64, 28, 28), generator=torch.Generator().manual_seed(0)).byte()

    def found(history):
        return gan_script.diagnose(SimpleNamespace(history=history, frames=[varied]), images)

    (warning,) = found(rows(0.99, 0.01))
    assert "D has won" in warning and "LEARNING_RATE" in warning
    assert found(rows(0.9, 0.01)) == found(rows(0.99, 0.1)) == set()
    assert found(rows(0.99, 0.01, 4)) == set(), "a few epochs prove nothing"
    assert found(rows(0.5, 0.5, 1) + rows(0.99, 0.01)) != set(), "only the last epochs count"


def test_diagnosis_names_pictures_that_are_all_alike(gan_script, images):
    real = images[:, 0].add(1).mul(127.5).round().byte()
    alike = real[:1].expand(48, 28, 28)

    def found(frame, count=5):
        gan = SimpleNamespace(history=rows(0.6, 0.4, count), frames=[frame])
        return gan_script.diagnose(gan, images)

    (warning,) = found(alike)
    assert "alike" in warning and "BETA1" in warning
    assert found(real) == set() and found(alike, 4) == set()


def test_a_warning_is_printed_once(small, monkeypatch, capsys):
    monkeypatch.setattr(small, "diagnose", lambda gan, images: {"something is wrong"})
    small.main()
    assert capsys.readouterr().out.count("Warning: something is wrong") == 1


def test_a_picture_that_cannot_be_replaced_does_not_end_the_training(small, monkeypatch, capsys):
    replace = Path.replace

    def locked(path, target):
        if target.name == "losses.png":
            raise PermissionError(errno.EACCES, "open in a viewer")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", locked)
    small.main()
    assert "Cannot write" in capsys.readouterr().out
    assert len(checkpoint(small)["history"]) == 3
    assert "training.gif" in files(small) and "losses.png.part" not in files(small)


def test_a_full_disk_leaves_the_last_good_checkpoint(small, monkeypatch, capsys):
    write_bytes, room = Path.write_bytes, [6]

    def write(path, data):
        room[0] -= 1
        if room[0] < 0:
            write_bytes(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(SystemExit, match="No space left"):
        small.main()
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert len(checkpoint(small)["history"]) >= 1
    assert not [name for name in files(small) if name.endswith(".part")]
    monkeypatch.setattr(small, "RESUME", True)
    small.main()
    assert len(checkpoint(small)["history"]) == 3


def test_an_output_folder_that_cannot_be_written_is_one_line(script, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(script, "OUTPUT_DIR", str(tmp_path / "file" / "out"))
    monkeypatch.setattr(script, "load_images", lambda train=True: pytest.fail("too late"))
    with pytest.raises(SystemExit, match="OUTPUT_DIR") as stop:
        script.main()
    assert "\n" not in str(stop.value)


KILLER = """
import functools, os, signal, sys
from pathlib import Path
sys.path[:0] = [str(Path(sys.argv[1], "tests")), sys.argv[1]]
import torch
torch.set_num_threads(1)
torch.cuda.is_available = torch.backends.mps.is_available = functools.cache(lambda: False)
import SCRIPT as script
from conftest import dot_png
from matplotlib.figure import Figure
rng = torch.Generator().manual_seed(0)
images = torch.rand(48, 1, 28, 28, generator=rng) * 2 - 1
script.load_images = lambda train=True: (images, torch.arange(48) % 10, "noise")
script.png = dot_png
script.draw_comparison = lambda *arguments: Figure((1, 1))
for name, value in SETTINGS.items():
    assert hasattr(script, name), name
    setattr(script, name, value)
write_bytes, replace = Path.write_bytes, Path.replace

def run(out, resume, deadly):
    # A child process of its own, so that SIGKILL is real and torch is imported only once.
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")
        script.OUTPUT_DIR, script.RESUME = out, resume
        count = 0
        def moment(action):
            nonlocal count
            count += 1
            if count == deadly:
                action()
                os.kill(os.getpid(), signal.SIGKILL)
        def write(path, data):
            moment(lambda: write_bytes(path, data[: len(data) // 2]))
            return write_bytes(path, data)
        def move(path, target):
            moment(lambda: None)
            result = replace(path, target)
            moment(lambda: None)
            return result
        Path.write_bytes, Path.replace = write, move
        script.main()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert run("whole", False, 0) == 0
for deadly in range(1, 200, STRIDE):
    out = f"killed_{deadly}"
    code = run(out, False, deadly)
    saved = Path(out, "checkpoint.pt")
    if saved.exists():
        torch.load(saved, weights_only=True)
    if code == 0:  # The run was over before that moment came.
        break
    assert code == -signal.SIGKILL, code
    assert run(out, True, 0) == 0
    print(out)
assert code == 0, "a run has more moments than were tried"
"""


@pytest.fixture(scope="session", autouse=hasattr(os, "fork"))
def killers(request, tmp_path_factory):
    """For each script a process that kills and resumes it, and its folder.

    They run beside the other tests, because they take the longest.
    """
    found = {}
    test = "test_killed_at_many_moments_and_resumed_gives_the_same_weights"
    for name in needed_scripts(request, test):
        settings = {"EPOCHS": 2, "BATCH_SIZE": 20, **SMALL[name]}
        if name == "compare_losses":
            settings["LOSSES"] = ("LSGAN", "WGAN")
        else:
            settings["SAMPLE_EVERY"] = 1
        code = KILLER.replace("SCRIPT", name).replace("SETTINGS", repr(settings))
        # No multiple of 3: a file that is written has three moments, and each shall come.
        code = code.replace("STRIDE", "5" if name == "train_gan" else "13")
        folder = tmp_path_factory.mktemp(name)
        found[name] = folder, subprocess.Popen(
            [sys.executable, "-c", code, str(ROOT)], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    yield found
    for _, process in found.values():
        with process:  # Waits for its end and closes its pipes.
            process.kill()  # Where the tests stop at the first failure, say.


@pytest.mark.waits
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which Windows does not have")
@pytest.mark.parametrize("name", SCRIPTS)
def test_killed_at_many_moments_and_resumed_gives_the_same_weights(name, killers):
    folder, process = killers[name]
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    killed = printed.split()
    assert len(killed) >= 3, killed

    def left(run):
        files = [path for path in (folder / run).iterdir() if path.is_file()]
        return sorted(path.name for path in files if path.suffix != ".part")

    def saved(run):
        return torch.load(folder / run / "checkpoint.pt", weights_only=True)

    for run in killed:
        assert differences(saved("whole"), saved(run)) == []
        assert left(run) == left("whole"), run


def differences(first, second, path=""):
    """The places where two checkpoints differ, but for the seconds, OUTPUT_DIR and RESUME."""
    if isinstance(first, dict) and first.keys() == second.keys():
        pairs = [(f"{path}/{key}", first[key], second[key]) for key in first
                 if key not in ("seconds", "OUTPUT_DIR", "RESUME")]
    elif isinstance(first, list) and len(first) == len(second):
        pairs = [(f"{path}/{number}", *both) for number, both in enumerate(zip(first, second))]
    else:
        equal = first.equal(second) if torch.is_tensor(first) else first == second
        return [] if equal else [path]
    return [place for name, *both in pairs for place in differences(*both, name)]


# Constants


def wrong_values(name, value):
    """Values of a wrong type, or out of range, for a constant that now has this value."""
    if name == "SEEDS":
        return [5, "abc", (), (-1,), (1.5,), (2**32,), (1, 1), None]
    if isinstance(value, bool):
        return ["yes", None, 2]
    if isinstance(value, int):
        return [-1, 10**12, 2.5, "3", None, True]
    if isinstance(value, float):
        return [-0.1, 1.5, math.nan, "0.1", None, True]
    if isinstance(value, tuple):
        return [5, "abc", (0,), (1.5,), (10_001,), (8,) * 5, ("nothing like it",), None]
    return ["" if name.endswith("_DIR") else "nothing like it", 3, None, ["MNIST"]]


def test_every_constant_is_checked_before_anything_is_done(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    constants = script.check_constants()
    in_module = {name for name in vars(script) if name.isupper() and name not in ("F",)}
    assert set(constants) == in_module
    for name, good in constants.items():
        for bad in wrong_values(name, good):
            with monkeypatch.context() as patch:
                patch.setattr(script, name, bad)
                with pytest.raises(SystemExit) as stop:
                    script.main()
                message = str(stop.value)
                assert message.startswith(f"{name} = {bad!r}"), f"{name} = {bad!r}: {message}"
                assert "must be" in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train_gan", "train_dcgan_variant"])
def test_the_edges_of_the_ranges_are_allowed_and_what_is_beyond_is_not(name, monkeypatch):
    script = importlib.import_module(name)
    smallest = {"train_gan": 1, "train_dcgan_variant": 2}[name]  # BatchNorm needs two images.
    edges = {"EPOCHS": (1, 999), "BATCH_SIZE": (smallest, 60_000), "LATENT_DIM": (1, 10_000),
             "SEED": (0, 2**32 - 1), "SAMPLE_EVERY": (1, 10_000), "LEARNING_RATE": (1e-7, 1),
             "BETA1": (0, 0.999)}  # fmt: skip
    beyond = {"LEARNING_RATE": (0.9e-7, 1.01), "BETA1": (-0.1, 0.9995)}
    choices = {"DATASET": ("MNIST", "FashionMNIST", "KMNIST", "drawn"),
               "PRECISION": ("float32", "bfloat16")}  # fmt: skip
    for constant, values in {**edges, **choices}.items():
        for value in values:
            with monkeypatch.context() as patch:
                patch.setattr(script, constant, value)
                assert script.check_constants()[constant] == value
    for constant, (low, high) in edges.items():
        for value in beyond.get(constant, (low - 1, high + 1)):
            with monkeypatch.context() as patch:
                patch.setattr(script, constant, value)
                with pytest.raises(SystemExit, match=f"{constant} = "):
                    script.check_constants()


def test_unknown_dataset_lists_the_known_ones(script, monkeypatch):
    monkeypatch.setattr(script, "DATASET", "CIFAR10")
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert all(name in str(stop.value) for name in ("CIFAR10", "MNIST", "FashionMNIST", "drawn"))
