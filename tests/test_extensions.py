"""The diffs of docs/extensions.md fit the scripts, are short, and do what the page says of them.

Each diff is applied to a copy of its script. If you have changed the script on purpose, a failure
here only says that the diff does not fit it any more, and you can ignore it.
"""

import ast
import functools
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, SCRIPTS, USUAL, make_dots, make_small, same, weights
from PIL import Image

PAGE = (ROOT / "docs" / "extensions.md").read_text(encoding="utf-8")
NAMES = ("conditional", "own pictures", "instance noise", "Pearson")  # In the order of the page.
DIFFS = dict(zip(NAMES, re.findall(r"^```diff\n(.*?)^```$", PAGE, re.M | re.S), strict=True))
CPU = torch.device("cpu")


def script_of(diff):
    """The name of the script that a diff changes. Skips the test if the script is not here."""
    (name,) = re.findall(r"^--- a/(\w+)\.py\n\+\+\+ b/\1\.py$", diff, re.M)
    if name not in SCRIPTS:
        pytest.skip(f"{name}.py is not here")
    return name


def hunks(diff):
    """The hunks of a diff: the numbers of its header, the lines before, and the lines after."""
    for part in re.split(r"^(?=@@)", diff, flags=re.M)[1:]:
        header, *lines = part.splitlines()
        numbers = re.fullmatch(r"@@ -(\d+),(\d+) \+(\d+),(\d+) @@", header).groups()
        assert all(line[:1] in (" ", "-", "+", "") for line in lines), part
        before = "".join(line[1:] + "\n" for line in lines if line[:1] != "+")
        after = "".join(line[1:] + "\n" for line in lines if line[:1] != "-")
        yield [int(number) for number in numbers], before, after


def applied(diff):
    """The text of the script after the diff, whose hunks are found by their text."""
    name = script_of(diff)
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    for _, before, after in hunks(diff):
        assert text.count("\n" + before) == 1, f"this does not fit one place of {name}:\n{before}"
        text = text.replace("\n" + before, "\n" + after)
    return text


@pytest.fixture
def extended(tmp_path, monkeypatch):
    """A function that imports a copy of a script with a diff of the page, and usual constants."""

    def load(diff):
        name, folder = script_of(DIFFS[diff]), tmp_path / "extended"
        folder.mkdir()
        path = folder / f"{name}.py"
        path.write_text(applied(DIFFS[diff]), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        for constant, value in {**USUAL, "OUTPUT_DIR": str(tmp_path / "out")}.items():
            if hasattr(script, constant):
                monkeypatch.setattr(script, constant, value)
        return script

    return load


def latents_with(script, labels):
    """Latents that differ in their labels only."""
    latents = script.sample_latents(1, torch.Generator().manual_seed(0)).repeat(len(labels), 1)
    latents[:, -10:] = torch.eye(10)[labels]
    return latents


# The diffs


@pytest.mark.parametrize("name", NAMES)
def test_a_diff_is_short_and_agrees_with_its_headers(name):
    diff, shift = DIFFS[name], 0
    added = [line for line in diff.splitlines() if re.match(r"\+(?!\+\+ b/)", line)]
    assert 1 <= len(added) <= 15, f"{len(added)} lines"
    assert all(len(line) <= 101 for line in added), "lines have 100 columns at most, and the +"
    for (line, count, new_line, new_count), before, after in hunks(diff):
        # The line numbers may have moved in the script since then, but not these.
        assert (count, new_count) == (before.count("\n"), after.count("\n"))
        assert new_line == line + shift
        shift += new_count - count


@pytest.mark.parametrize("name", NAMES)
def test_a_diff_fits_its_script(name):
    text = applied(DIFFS[name])
    compile(text, name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "commands",
    [
        ("git apply change.diff", "git apply -R change.diff"),
        ("patch -p1 < change.diff", "patch -R -p1 < change.diff"),
    ],
)
def test_the_commands_of_the_page_apply_a_diff_and_take_it_back(name, commands, tmp_path):
    if not shutil.which(commands[0].split()[0]):
        pytest.skip("the command is not here")
    script, text = script_of(DIFFS[name]), applied(DIFFS[name])
    path, original = tmp_path / f"{script}.py", (ROOT / f"{script}.py").read_bytes()
    path.write_bytes(original)
    (tmp_path / "change.diff").write_bytes(DIFFS[name].encode())
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    for command, expected in zip(commands, (text.encode(), original)):
        assert f"`{command}`" in PAGE
        subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True)
        assert path.read_bytes() == expected


# A conditional GAN


def test_another_label_changes_the_image_of_a_latent_and_the_logit_of_an_image(extended):
    script = extended("conditional")
    gan = script.build_gan(CPU)
    made = gan.generator(latents_with(script, [3, 7, 3]))  # [3, 1, 29, 28]
    assert not made[0].equal(made[1]) and made[0].equal(made[2])
    assert made[0, 0, 28].tolist() == [0.0] * 3 + [1.0] + [0.0] * 24, "the row of the label 3"
    relabelled = made[:1].clone()
    relabelled[0, 0, 28, :10] = torch.eye(10)[7]
    logits = gan.discriminator(torch.cat([made[:1], relabelled])).flatten().tolist()
    assert abs(logits[0] - logits[1]) > 1e-4
    pixels = script.generate(gan.generator, latents_with(script, [3, 7]))
    assert pixels.equal(made[:2, 0, :28].add(1).mul(127.5).round().byte()), "without the label"


def test_latents_are_for_equally_many_of_each_digit_in_order(extended):
    script = extended("conditional")
    gan = script.build_gan(CPU)
    assert gan.fixed_latents.shape == (80, script.LATENT_DIM + 10)
    labels = gan.fixed_latents[:, -10:].argmax(1)
    assert labels.tolist() == [digit for digit in range(10) for _ in range(8)], "a row per digit"
    many = script.sample_latents(10_000, torch.Generator().manual_seed(0))
    assert many[:, -10:].sum(0).tolist() == [1000] * 10
    assert many[:, -10:].argmax(1).equal(torch.arange(10_000) // 1000)
    assert abs(many[:, :-10].std().item() - 1) < 0.01


def labelled(images, labels):
    """Images with the row that tells D their label."""
    rows = torch.zeros(len(images), 1, 1, 28)
    rows[:, 0, 0, :10] = torch.eye(10)[labels]
    return torch.cat([images, rows], 2)  # [N, 1, 29, 28]


def test_g_is_asked_for_the_digits_of_the_real_batch(extended, images):
    script = extended("conditional")
    gan, seen = script.build_gan(CPU), []
    gan.generator.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    labels = torch.arange(48) * 7 % 10
    script.train_step(gan, labelled(images, labels))
    assert seen[0][:, -10:].argmax(1).equal(labels)


def test_r1_looks_at_the_pixels_only(extended, images, monkeypatch):
    script = extended("conditional")
    monkeypatch.setattr(script, "R1", 1.0)
    real = labelled(images, torch.arange(48) % 10)
    assert script.r1_penalty(lambda x: 5 * x[:, :, 28].sum((1, 2)), real).item() == 0
    assert script.r1_penalty(lambda x: 2 * x[:, 0, :, 3].sum(1), real).item() == 2**2 * 28 / 2


@pytest.mark.slow
def test_g_learns_to_put_the_square_where_it_is_asked_for(extended, images, monkeypatch):
    """The four places of the squares are the labels 0 to 3. G ignores them in the first steps."""
    script = extended("conditional")
    for name, value in {"GENERATOR_HIDDEN": (64,), "DISCRIMINATOR_HIDDEN": (64,),
                        "LATENT_DIM": 8, "LEARNING_RATE": 5e-3}.items():  # fmt: skip
        monkeypatch.setattr(script, name, value)
    labels, gan = torch.arange(48) % 4, script.build_gan(CPU)
    real = labelled(images, labels)
    for _ in range(2000):
        script.train_step(gan, real)
    asked = torch.arange(4).repeat(10)
    latents = script.sample_latents(40, torch.Generator().manual_seed(5))
    latents[:, -10:] = torch.eye(10)[asked]
    made = script.generate(gan.average, latents).float() / 127.5 - 1
    means = torch.stack([images[labels == label].mean(0) for label in range(4)])  # [4, 1, 28, 28]
    nearest = torch.cdist(made.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == asked).double().mean() > 0.9, f"\n{nearest.view(10, 4)}"


@pytest.mark.slow
def test_a_conditional_run_can_be_stopped_and_its_grid_has_a_row_for_each_digit(
    extended, images, monkeypatch, tmp_path
):
    script = make_small(extended("conditional"), images, monkeypatch)
    monkeypatch.setattr(script, "EPOCHS", 2)
    script.main()
    with Image.open(tmp_path / "out" / "samples_epoch_002.png") as picture:
        assert picture.size == (4 * (8 * 30 + 2), 4 * (10 * 30 + 2) + 48), "8 columns, 10 rows"
    assert np.load(tmp_path / "out" / "generated.npy").shape == (100, 28, 28)
    made = [torch.load(tmp_path / "out" / "generator.pt", weights_only=True)]
    monkeypatch.setattr(script, "OUTPUT_DIR", str(tmp_path / "again"))
    make_dots(script, monkeypatch)
    for epochs, resume in ((1, False), (2, True)):
        monkeypatch.setattr(script, "EPOCHS", epochs)
        monkeypatch.setattr(script, "RESUME", resume)
        script.main()
    made.append(torch.load(tmp_path / "again" / "generator.pt", weights_only=True))
    assert same(*made)


@pytest.mark.slow
def test_a_conditional_run_does_not_go_on_from_one_without_labels(
    extended, images, monkeypatch, tmp_path
):
    script = make_dots(make_small(extended("conditional"), images, monkeypatch), monkeypatch)
    plain = importlib.import_module("train_gan")
    make_dots(make_small(plain, images, monkeypatch), monkeypatch).main()
    monkeypatch.setattr(script, "RESUME", True)
    with pytest.raises(SystemExit, match="checkpoint.pt cannot be used"):
        script.main()


@pytest.mark.slow
def test_the_python_of_the_page_runs_after_a_conditional_run(
    extended, images, monkeypatch, tmp_path, capsys
):
    if "compare_losses" not in SCRIPTS:
        pytest.skip("compare_losses.py is not here")
    import compare_losses

    script = make_dots(make_small(extended("conditional"), images, monkeypatch), monkeypatch)
    drawn = {train: compare_losses.draw_digits(300 if train else 100) for train in (True, False)}
    monkeypatch.setattr(compare_losses, "load_images", lambda train=True: (*drawn[train], "few"))
    monkeypatch.setattr(script, "OUTPUT_DIR", "outputs/train_gan")
    monkeypatch.setitem(sys.modules, "train_gan", script)
    monkeypatch.chdir(tmp_path)
    script.main()
    found = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    assert len(found) == 2
    for number, block in enumerate(found, start=1):
        exec(compile(block, f"extensions.md, Python block {number}", "exec"), {})
    assert re.search(r"^read as asked: [01]\.\d+$", capsys.readouterr().out, re.M)
    assert os.path.exists("sevens.png")


# Pictures of one's own


@pytest.fixture
def folder(tmp_path):
    """A folder with pictures of several kinds and sizes, and a file that is none."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    ramp = np.arange(784, dtype=np.uint8).reshape(28, 28)
    Image.fromarray(ramp).save(folder / "a.png")
    Image.new("RGB", (60, 40), (255, 0, 0)).save(folder / "b.PNG")
    wide = Image.new("L", (84, 28), 0)  # Black, white and black again.
    wide.paste(255, (28, 0, 56, 28))
    wide.save(folder / "c.png")
    left = Image.new("L", (56, 56), 0)  # White on the left, held by a camera on its side.
    left.paste(255, (0, 0, 28, 56))
    exif = Image.Exif()
    exif[0x112] = 6
    left.save(folder / "more" / "d.jpg", exif=exif)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_pictures_of_a_folder_become_grey_images_of_28_by_28(extended, folder, monkeypatch):
    script = extended("own pictures")
    monkeypatch.setattr(script, "DATA_DIR", str(folder))
    images, labels, name = script.load_images()
    assert (labels, name) == (None, "4 pictures")
    assert images.shape == (60_000, 1, 28, 28) and images.dtype == torch.float32
    assert images[:4].equal(images[59_996:]), "each of them equally often"
    ramp, red, wide, held = images[:4, 0]  # In the order of their paths.
    torch.testing.assert_close(ramp.flatten(), (torch.arange(784) % 256) / 127.5 - 1)
    assert red.unique().tolist() == pytest.approx([76 / 127.5 - 1]), "0.299 of 255"
    assert wide.unique().tolist() == [1.0], "the middle square"
    assert held[:13].min() > 0.9 and held[15:].max() < -0.9, "white is above, as it was held"


def test_dark_pictures_on_white_paper_are_inverted_as_the_page_says(extended, folder, monkeypatch):
    script = extended("own pictures")
    (line,) = re.findall(r"^ +(pictures\.append\(.*ImageOps\.invert.*)$", PAGE, re.M)
    text = applied(DIFFS["own pictures"])
    (old,) = re.findall(r"^ +(pictures\.append\(.*)$", text, re.M)
    exec(compile(text.replace(old, line), "inverted", "exec"), vars(script))
    monkeypatch.setattr(script, "DATA_DIR", str(folder))
    ramp, _, wide, _ = script.load_images()[0][:4, 0]
    torch.testing.assert_close(ramp.flatten(), 1 - (torch.arange(784) % 256) / 127.5)
    assert wide.unique().tolist() == [-1.0]


@pytest.mark.slow
def test_a_run_with_pictures_of_ones_own(extended, folder, images, monkeypatch, tmp_path, capsys):
    script = make_dots(extended("own pictures"), monkeypatch)
    load_images = script.load_images
    make_small(script, images, monkeypatch)
    for name, value in {"DATA_DIR": str(folder), "BATCH_SIZE": 30_000, "EPOCHS": 1,
                        "load_images": load_images}.items():  # fmt: skip
        monkeypatch.setattr(script, name, value)
    script.main()
    assert "Data      4 pictures, 60,000 images" in capsys.readouterr().out
    assert np.load(tmp_path / "out" / "generated.npy").shape == (100, 28, 28)


def test_the_change_fits_train_dcgan_variant_as_the_page_says():
    path = ROOT / "train_dcgan_variant.py"
    for _, before, _ in hunks(DIFFS["own pictures"]) if path.exists() else ():
        assert path.read_text(encoding="utf-8").count("\n" + before) == 1, before


def test_a_folder_without_pictures_is_one_line(extended, monkeypatch, tmp_path):
    script = extended("own pictures")
    monkeypatch.setattr(script, "DATA_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match="no pictures in the folder"):
        script.main()


# A new trick


def after_steps(script, images, step, count=2):
    """The weights of a GAN after some steps, the first of which has this number."""
    gan = script.build_gan(CPU)
    gan.step = step
    for _ in range(count):
        script.train_step(gan, images)
    return {**weights(gan.generator), **weights(gan.discriminator)}


def test_the_noise_changes_the_step_only_if_named_and_until_it_has_faded(
    extended, images, monkeypatch
):
    script, images = extended("instance noise"), images[:8]
    plain = importlib.import_module("train_dcgan_variant")
    for step in (0, 3000):
        assert same(after_steps(script, images, step), after_steps(plain, images, step))
    monkeypatch.setattr(script, "TRICKS", ("instance_noise",))
    assert not same(after_steps(script, images, 0), after_steps(plain, images, 0))
    assert not same(after_steps(script, images, 2990), after_steps(plain, images, 2990))
    assert same(after_steps(script, images, 3000), after_steps(plain, images, 3000))


def test_d_sees_other_noise_on_each_image_and_less_of_it_later(extended, images, monkeypatch):
    script = extended("instance noise")
    monkeypatch.setattr(script, "TRICKS", ("instance_noise",))
    (strongest,) = re.findall(r"\+ +noise = \((0\.\d+) \*", DIFFS["instance noise"])
    for step, share in ((0, 1.0), (1500, 0.5)):
        gan, made, seen = script.build_gan(CPU), [], []
        gan.step = step + 1  # A step without R1, so that D looks at each batch once.
        gan.generator.register_forward_hook(lambda layer, inputs, result: made.append(result))
        gan.discriminator.first.register_forward_pre_hook(lambda layer, x: seen.append(x[0]))
        script.train_step(gan, images)
        script.train_step(gan, images)
        assert seen[2].equal(seen[1]), "G learns from what D has seen"
        noises = [seen[0] - images, seen[1] - made[0].detach(), seen[3] - images]
        for noise in noises:
            assert noise.std().item() == pytest.approx(float(strongest) * share, rel=0.03)
            assert abs(noise.mean().item()) < 0.01
        for first, second in itertools.combinations(noises, 2):
            assert abs((first * second).mean().item()) < 0.01 * share, "always new noise"
        assert all(weight.grad.abs().sum() > 0 for weight in gan.generator.parameters())


def test_only_the_new_script_knows_the_name_of_the_trick(extended, monkeypatch):
    script, plain = extended("instance noise"), importlib.import_module("train_dcgan_variant")
    for tricks in (("instance_noise",), ("ttur", "instance_noise")):
        monkeypatch.setattr(script, "TRICKS", tricks)
        monkeypatch.setattr(plain, "TRICKS", tricks)
        assert script.check_constants()["TRICKS"] == tricks
        with pytest.raises(SystemExit, match="TRICKS"):
            plain.check_constants()
    monkeypatch.setattr(script, "TRICKS", ("instance noise",))
    with pytest.raises(SystemExit, match="'instance_noise'"):
        script.check_constants()
    assert "instance_noise" in script.__doc__ and "[Sonderby]" in script.__doc__


@pytest.mark.slow
def test_a_noisy_run_can_be_stopped_and_goes_on_with_the_same_noise(
    extended, images, monkeypatch, tmp_path
):
    script = make_dots(make_small(extended("instance noise"), images, monkeypatch), monkeypatch)
    monkeypatch.setattr(script, "TRICKS", ("instance_noise",))
    made = []
    for folder, runs in (("whole", [(2, False)]), ("parts", [(1, False), (2, True)])):
        monkeypatch.setattr(script, "OUTPUT_DIR", str(tmp_path / folder))
        for epochs, resume in runs:
            monkeypatch.setattr(script, "EPOCHS", epochs)
            monkeypatch.setattr(script, "RESUME", resume)
            script.main()
        made.append(torch.load(tmp_path / folder / "generator.pt", weights_only=True))
    assert same(*made)


# A new loss


def test_the_new_loss_has_the_values_worked_out_by_hand(extended):
    loss = extended("Pearson").loss_table()["Pearson"]
    zero, one = torch.zeros(4, 1), torch.ones(4, 1)
    assert loss.critic(zero, zero).item() == 1 and loss.generator(zero, zero).item() == 0
    assert loss.critic(one, -one).item() == 0 and loss.generator(one, -one).item() == 0.5
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [3.0]])
    assert loss.critic(real, fake).item() == ((1 + 1) / 2 + (0 + 16) / 2) / 2
    assert loss.generator(real, fake).item() == (1 + 9) / 2 / 2


def test_with_the_best_critic_the_new_loss_is_pearsons_divergence(extended):
    """For scores D* = (p - q) / (p + q) of two distributions over four points. [LSGAN, sec. 3.2]"""
    loss = extended("Pearson").loss_table()["Pearson"]
    p, q = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    best = (p - q) / (p + q)
    # A list of scores in which each point is as frequent as the distribution says.
    real, fake = (best.repeat_interleave((10 * share).round().long()) for share in (p, q))
    for change in (0.1, -0.1):
        assert loss.critic(real, fake) < loss.critic(real + change, fake + change)
    pearson = ((p + q - 2 * q).square() / (p + q)).sum()
    # The part of the real images does not depend on G, so G need not minimise it.
    both = real.square().mean() / 2 + loss.generator(real, fake)
    torch.testing.assert_close(2 * both, pearson)


@pytest.mark.slow
def test_a_run_with_the_new_loss(extended, monkeypatch, tmp_path):
    script = extended("Pearson")
    drawn = {seed: script.draw_digits(170, seed) for seed in (0, 1)}
    for name, value in {
        "DATASET": "drawn", "LATENT_DIM": 8, "GENERATOR_HIDDEN": (32,), "SAMPLES": 100,
        "DISCRIMINATOR_HIDDEN": (32,), "BATCH_SIZE": 32, "EPOCHS": 2,
        "LOSSES": ("LSGAN", "Pearson"), "draw_digits": lambda count, seed=0: drawn[seed],
    }.items():  # fmt: skip
        monkeypatch.setattr(script, name, value)
    make_dots(script, monkeypatch).main()
    made = [np.load(tmp_path / "out" / f"generated_{name}.npy") for name in ("lsgan", "pearson")]
    assert made[0].shape == (100, 28, 28) and not np.array_equal(*made)
    assert "| Pearson " in (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    monkeypatch.setattr(importlib.import_module("compare_losses"), "LOSSES", ("Pearson",))
    with pytest.raises(SystemExit, match="LOSSES"):
        importlib.import_module("compare_losses").check_constants()


# Another size or colour


@functools.cache
def bodies(name):
    """The text of each function and class of a script, by its name."""
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    lines, nodes = text.splitlines(), ast.parse(text).body
    return {node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno])
            for node in nodes if hasattr(node, "name")}  # fmt: skip


def test_the_lines_that_fix_the_size_stand_where_the_page_says():
    rows = re.findall(r"^\| (\w+\.py|all three) \| `(\w+)` \| (.*?) \|", PAGE, re.M)
    assert len(rows) >= 10
    for file, function, lines in rows:
        for name in SCRIPTS if file == "all three" else [file.removesuffix(".py")]:
            if name not in SCRIPTS:
                continue
            assert function in bodies(name), f"{name}.py has no {function}"
            for line in re.findall(r"`([^`]+)`", lines):
                assert line in bodies(name)[function], f"{function} of {name}.py has no {line}"
