"""The diffs of docs/extensions.md fit the scripts, are short, and do what the page says of them.

Each diff is applied to a copy of its script. If you have changed the script on purpose, a failure
here only says that the diff does not fit it any more, and you can ignore it.
"""

import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from conftest import ROOT, SCRIPTS, USUAL, same, set_constants, weights
from PIL import Image

PAGE = (ROOT / "docs" / "extensions.md").read_text(encoding="utf-8")
NAMES = ("conditional", "own pictures", "instance noise", "Pearson")  # In the order of the page.
DIFFS = dict(zip(NAMES, re.findall(r"^```diff\n(.*?)^```$", PAGE, re.M | re.S), strict=True))
CPU = torch.device("cpu")


def source(name):
    return (ROOT / f"{name}.py").read_text(encoding="utf-8")


def script_of(diff):
    """The name of the script that a diff changes."""
    return re.match(r"--- a/(\w+)\.py\n\+\+\+ b/\1\.py\n@@", diff)[1]


def pieces(diff):
    """The pieces of a diff: the numbers of its header, the lines before, and the lines after."""
    for part in re.split(r"^(?=@@)", diff.removesuffix("# end\n"), flags=re.M)[1:]:
        header, *lines = part.splitlines()
        numbers = re.fullmatch(r"@@ -(\d+),(\d+) \+(\d+),(\d+) @@", header).groups()
        before = "".join(line[1:] + "\n" for line in lines if line[:1] != "+")
        after = "".join(line[1:] + "\n" for line in lines if line[:1] != "-")
        yield [int(number) for number in numbers], before, after


def applied(diff, name=None):
    """The text of the script after the diff, whose pieces are found by their text."""
    text = source(name or script_of(diff))
    for _, before, after in pieces(diff):
        assert text.count("\n" + before) == 1, f"this does not fit one place:\n{before}"
        text = text.replace("\n" + before, "\n" + after)
    return text


@pytest.fixture
def load(tmp_path, monkeypatch):
    """load(name, text) makes a module of a changed script, with the usual constants."""

    def load(name, text):
        script = types.ModuleType(name)
        exec(compile(text, f"changed {name}.py", "exec"), vars(script))
        set_constants(monkeypatch, script, {**USUAL, "OUTPUT_DIR": str(tmp_path / "out")})
        return script

    return load


@pytest.fixture
def extended(load):
    """extended(name) imports a script with a diff of the page."""
    return lambda name: load(script_of(DIFFS[name]), applied(DIFFS[name]))


@pytest.mark.parametrize("name", NAMES)
def test_a_diff_is_short_and_agrees_with_its_headers(name):
    diff, shift = DIFFS[name], 0
    added = [line for line in diff.splitlines() if re.match(r"\+(?!\+\+ b/).", line)]
    counts = re.findall(r"^\| \[.*\.py \| (\d+) \|$", PAGE, re.M)
    assert len(added) == int(counts[NAMES.index(name)]) <= 15
    assert max(map(len, added)) <= 101, "100 columns and the +"
    for (line, count, new_line, new_count), before, after in pieces(diff):
        # The line numbers may have moved in the script since then, but not these.
        assert (count, new_count) == (before.count("\n"), after.count("\n"))
        assert new_line == line + shift
        shift += new_count - count
    compile(applied(diff), name, "exec")


@pytest.mark.parametrize("tool", ["git", "patch"])
@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_the_page_apply_a_diff_with_any_line_ends_and_take_it_back(
    name, tool, tmp_path
):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not here")
    (command,) = re.findall(rf"`({tool} [^R`]*change\.diff)`", PAGE)
    undo = re.sub("^git apply|^patch", r"\g<0> -R", command)
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    path, original = tmp_path / f"{script_of(DIFFS[name])}.py", source(script_of(DIFFS[name]))
    ends = ("\n", "\r\n")
    ways = itertools.product(ends if tool == "git" else ends[:1], ends, ("# end\n", "# end"))
    for in_script, in_diff, end in ways:
        path.write_bytes(original.replace("\n", in_script).encode())
        diff = DIFFS[name].replace("# end\n", end).replace("\n", in_diff)
        (tmp_path / "change.diff").write_bytes(diff.encode())
        for line, expected in ((command, applied(DIFFS[name])), (undo, original)):
            subprocess.run(line, shell=True, cwd=tmp_path, env=environment, check=True)
            assert path.read_text(encoding="utf-8") == expected  # Reads any line ends.


@pytest.fixture
def conditional(extended, monkeypatch):
    """train_gan.py with the first diff of the page."""
    script = extended("conditional")
    monkeypatch.setattr(script, "LATENT_DIM", 110)
    return script


def labelled(images, labels):
    """Images with the row that tells D their label: [N, 1, 29, 28]."""
    rows = torch.zeros(len(images), 1, 1, 28)
    rows[:, 0, 0, :10] = torch.eye(10)[labels]
    return torch.cat([images, rows], 2)


def test_both_networks_see_the_label_that_g_is_asked_for_which_is_that_of_the_real_image(
    conditional, images, rng
):
    gan, latents, seen = conditional.build_gan(CPU), [], []
    gan.generator.register_forward_pre_hook(lambda layer, inputs: latents.append(inputs[0]))
    gan.discriminator.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    gan.step = 1  # A step without R1.
    labels = torch.arange(48) * 7 % 10
    conditional.train_step(gan, labelled(images, labels), rng)
    assert latents[0][:, -10:].equal(torch.eye(10)[labels])
    both, fake = seen  # D's step has real and fake images, G's has the fake ones.
    for shown in (both[:48], both[48:], fake):
        assert shown[:, 0, 28, :10].equal(torch.eye(10)[labels]) and not shown[:, :, 28, 10:].any()


def test_r1_looks_at_the_pixels_only(conditional, images, monkeypatch):
    monkeypatch.setattr(conditional, "R1", 1.0)
    real = labelled(images, torch.arange(48) % 10)
    assert conditional.r1_penalty(lambda x: 5 * x[:, :, 28].sum((1, 2)), real).item() == 0
    assert conditional.r1_penalty(lambda x: 2 * x[:, 0, :, 3].sum(1), real).item() == 2**2 * 28 / 2


@pytest.mark.slow
def test_g_learns_to_put_the_square_where_it_is_asked_for(conditional, images, monkeypatch, rng):
    """The four places of the squares are the labels 0 to 3. G ignores them in the first steps."""
    set_constants(monkeypatch, conditional, {
        "GENERATOR_HIDDEN": [64], "DISCRIMINATOR_HIDDEN": [64], "LATENT_DIM": 18,
        "LEARNING_RATE": 5e-3})
    labels, gan = torch.arange(48) % 4, conditional.build_gan(CPU)
    for _ in range(2000):
        conditional.train_step(gan, labelled(images, labels), rng)
    asked, latents = torch.arange(4).repeat(10), conditional.sample_latents(40, rng)
    latents[:, -10:] = torch.eye(10)[asked]
    made = conditional.generate(gan.average, latents).float() / 127.5 - 1
    means = torch.stack([images[labels == label].mean(0) for label in range(4)])  # [4, 1, 28, 28]
    nearest = torch.cdist(made.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == asked).double().mean() > 0.9, f"\n{nearest.view(10, 4)}"


def test_a_conditional_run_goes_on_bit_for_bit_and_the_python_of_the_page_reads_it(
    conditional, tiny, monkeypatch, tmp_path, capsys
):
    import compare_losses

    asked, generate, out = {}, conditional.generate, "outputs/train_gan"
    monkeypatch.setattr(conditional, "generate", lambda generator, latents: (
        asked.update({len(latents): latents[:, -10:].argmax(1)}), generate(generator, latents))[1])
    monkeypatch.chdir(tmp_path)
    set_constants(monkeypatch, tiny(conditional), {"OUTPUT_DIR": out, "LATENT_DIM": 18})
    for epochs, resume in ((2, False), (1, False), (2, True)):
        set_constants(monkeypatch, conditional, {"EPOCHS": epochs, "RESUME": resume})
        conditional.main()
    made = [torch.load(f"{out}/run_{run}/generator.pt", weights_only=True) for run in (1, 3)]
    assert same(*made)
    assert asked[80].equal(torch.arange(80) // 8) and asked[100].equal(torch.arange(100) % 10)
    with Image.open(f"{out}/run_1/samples_epoch_002.png") as picture:
        assert picture.size == (4 * (8 * 30 + 2), 4 * (10 * 30 + 2) + 48), "8 columns, 10 rows"
    drawn = compare_losses.draw_digits(300)
    monkeypatch.setattr(compare_losses, "load_images", lambda train=True: (*drawn, "few"))
    monkeypatch.setitem(sys.modules, "train_gan", conditional)
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S):
        names = {}
        exec(compile(block, "extensions.md", "exec"), names)
    assert asked[80].tolist() == [7] * 80 and os.path.exists("sevens.png")
    assert names["asked"].equal(asked[100])
    assert re.search(r"^read as asked: [01]\.\d+$", capsys.readouterr().out, re.M)


# Pictures of one's own

RAMP = np.arange(784, dtype=np.uint8).reshape(28, 28)
no_pictures = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def folder(tmp_path):
    """What people's folders hold. Its seven pictures are named in the order of reading."""
    folder = tmp_path / "pictures"
    for name in ("more", "icons.png", "__MACOSX", ".ipynb_checkpoints", "labels"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(RAMP).save(folder / "a.png")
    Image.new("RGB", (60, 40), (255, 0, 0)).save(folder / "b.PNG")
    wide = Image.new("L", (84, 28), 0)  # Black, white and black again.
    wide.paste(255, (28, 0, 56, 28))
    wide.save(folder / "c.jpg", "PNG")  # A wrong suffix.
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(folder / "d.png")  # 16 bits.
    Image.fromarray(np.stack([0 * RAMP, RAMP], 2), "LA").save(folder / "e.png")  # Black on nothing.
    left = Image.new("L", (56, 56), 0)  # White on the left, held by a camera on its side.
    left.paste(255, (0, 0, 28, 56))
    exif = Image.Exif()
    exif[0x112] = 6
    left.save(folder / "more" / "f.jpg", exif=exif)
    Image.fromarray(RAMP).save(folder / "more" / "g.gif")
    (folder / "more" / "cut_off.png").write_bytes((folder / "a.png").read_bytes()[:60])
    for name in ("notes.txt", "__MACOSX/._0.png", ".DS_Store"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    shutil.copy(folder / "a.png", folder / ".ipynb_checkpoints" / "a-checkpoint.png")
    return folder


def read(script, folder, monkeypatch):
    """The pictures that load_images() reads: [7, 28, 28]."""
    monkeypatch.setattr(script, "DATA_DIR", str(folder))
    images, labels, name = script.load_images()
    assert labels is None and name == "7 pictures" and 60_000 <= len(images) < 60_007
    assert images[:7].equal(images[-7:]), "each of them equally often"
    return script.check_images(images)[:7, 0]


@no_pictures
@pytest.mark.parametrize("name", ["train_gan", "train_dcgan_variant"])
def test_pictures_become_grey_images_of_28_by_28_and_what_is_none_is_skipped(
    name, load, folder, monkeypatch, capsys
):
    script = load(name, applied(DIFFS["own pictures"], name))
    ramp, red, wide, deep, black, held, indexed = read(script, folder, monkeypatch)
    for shown in (ramp, deep, indexed, -black):  # Where it is transparent it is white.
        torch.testing.assert_close(shown, torch.from_numpy(RAMP) / 127.5 - 1)
    assert red.unique().tolist() == pytest.approx([76 / 127.5 - 1]), "0.299 of 255"
    assert wide.unique().tolist() == [1.0], "the middle square"
    assert held[:13].min() > 0.9 and held[15:].max() < -0.9, "white is above, as it was held"
    # The folder icons.png, half a picture, and the text.
    printed = f"Pictures  7 in {folder}, 3 files skipped ['icons.png']"
    assert capsys.readouterr().out.splitlines() == [printed]


@pytest.mark.parametrize("kind", ["mnist.npz", "train.csv"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_mnist_is_read_from_the_files_of_keras_and_kaggle(name, kind, load, monkeypatch, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (45, 28, 28), np.uint8)
    labels = np.arange(45, dtype=np.uint8) % 10
    np.savez(tmp_path / "mnist.npz", x_train=images[:40], y_train=labels[:40],
             x_test=images[40:], y_test=labels[40:])
    header = ",".join(["label", *(f"pixel{number}" for number in range(784))])
    np.savetxt(tmp_path / "train.csv", np.c_[labels, images.reshape(45, 784)], "%d", ",",
               header=header, comments="")
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, re.M | re.S)
    (block,) = [block for block in blocks if f'"{kind}"' in block]
    (old,) = re.findall(r"^    dataset = fetch_dataset.*\n", source(name), re.M)
    script = load(name, source(name).replace(old, block.replace("35_000", "40")))
    monkeypatch.setattr(script, "DATA_DIR", str(tmp_path))
    for train, part in ((True, slice(40)), (False, slice(40, 45))):
        found, numbers, _ = script.load_images(train)
        torch.testing.assert_close(found[:, 0], torch.from_numpy(images[part]) / 127.5 - 1)
        assert numbers.equal(torch.from_numpy(labels[part]).long())


def test_noise_changes_a_step_only_if_named_and_until_it_has_faded(extended, images, monkeypatch):
    script, plain = extended("instance noise"), importlib.import_module("train_dcgan_variant")

    def after_a_step(script, step):
        gan = script.build_gan(CPU)
        gan.step = step
        script.train_step(gan, images[:8], torch.Generator().manual_seed(3))
        return weights(gan.generator)

    for tricks, changed in (([], []), (["ttur", "instance_noise"], [0, 2999])):
        monkeypatch.setattr(script, "TRICKS", tricks)
        monkeypatch.setattr(plain, "TRICKS", tricks[:1])
        script.check_constants()  # It accepts the name.
        for step in (0, 2999, 3000):
            alike = same(after_a_step(script, step), after_a_step(plain, step))
            assert alike == (step not in changed)
    assert "    instance_noise " in script.__doc__ and "\n[Sonderby] " in script.__doc__


def test_the_new_loss_can_be_chosen_and_has_the_values_worked_out_by_hand(extended, monkeypatch):
    script = extended("Pearson")
    monkeypatch.setattr(script, "LOSSES", ["LSGAN", "Pearson"])
    script.check_constants()
    loss = script.LOSS_TABLE["Pearson"]
    zero, one = torch.zeros(4, 1), torch.ones(4, 1)
    assert loss.critic(one, -one).item() == 0 and loss.generator(zero, zero).item() == 0
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [3.0]])
    assert loss.critic(real, fake).item() == ((1 + 1) / 2 + (0 + 16) / 2) / 2
    assert loss.generator(real, fake).item() == (1 + 9) / 2 / 2


def test_the_sum_is_pearsons_divergence_but_g_makes_what_is_too_rare_still_rarer(extended):
    """With the best scores for two distributions over four images. [LSGAN, sec. 3.2]"""
    table = extended("Pearson").LOSS_TABLE
    p, q = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    best, loss = (p - q) / (p + q), table["Pearson"]
    # A list of scores in which each image is as frequent as the distribution says.
    real, fake = (best.repeat_interleave((10 * share).round().long()) for share in (p, q))
    for change in (0.1, -0.1):
        assert loss.critic(real, fake) < loss.critic(real + change, fake + change)
    pearson = ((p + q - 2 * q).square() / (p + q)).sum()
    torch.testing.assert_close(real.square().mean() + 2 * loss.generator(real, fake), pearson)
    # Of two kinds of image, equally frequent among real ones, 30 % and 70 % of the fakes. G makes
    # that kind rarer whose loss is higher: the rare one for this loss, the common one for LSGAN.
    rare, common = torch.tensor((0.5 - 0.3) / 0.8), torch.tensor((0.5 - 0.7) / 1.2)
    assert loss.generator(None, rare) > loss.generator(None, common)
    rare, common = (rare + 1) / 2, (common + 1) / 2  # The best scores for the targets 0 and 1.
    assert table["LSGAN"].generator(None, rare) < table["LSGAN"].generator(None, common)


def test_the_lines_that_fix_the_size_stand_where_the_page_says():
    rows = re.findall(r"^\| ([\w., ]+\.py|all three) \| `(\w+)` \| (.*?) \|", PAGE, re.M)
    for files, function, lines in rows:
        for name in SCRIPTS if files == "all three" else re.findall(r"(\w+)\.py", files):
            body = re.search(rf"^(def|class) {function}\b.*?\n\n\n", source(name), re.M | re.S)[0]
            for line in re.findall(r"`([^`]+)`", lines):
                assert line in body, f"{function} of {name}.py has no {line}"
