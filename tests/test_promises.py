"""What each script promises: it stands alone, says what it does, and agrees with the others."""

import ast
import importlib
import itertools
import re
import sys

import pytest
import torch
from conftest import ROOT, SCRIPTS, SMALL, Placeless, same, weights

PACKAGES = {"torch", "torchvision", "matplotlib", "PIL", "numpy"}
# The first line of what is printed if a test fails that compares texts.
YOURS = "This test compares {}. If you have changed one on purpose, that is fine: ignore the test."

# Functions of one name whose text may differ between scripts, with the reason. No others may.
MEANT_TO_DIFFER = {
    "Generator": "other networks",
    "Discriminator": "other networks",
    "discriminator_loss": "label smoothing is one of the tricks",
    "discriminator_step": "BatchNorm in D needs two passes; tricks",
    "r1_penalty": "BatchNorm in D",
    "generator_step": "tricks; any loss",
    "train_step": "tricks; critic steps",
    "build_gan": "tricks; a loss and a seed",
    "train_epoch": "BatchNorm needs two images; equal numbers of generator steps",
    "train": "the judge measures after each epoch",
    "renew_statistics": "the average of G alone, or also G itself",
    "diagnose": "tricks",
    "save_pictures": "tricks are in the title",
    "save_checkpoint": "several trainings, a file each",
    "load_checkpoint": "several trainings, a file each",
    "begin": "several trainings",
    "set_aside_earlier_run": "other files",
    "end_epoch": "the judge measures after each epoch",
    "finish": "several trainings",
    "check_constants": "other constants",
    "main": "other work",
}
SAME_IN_THOSE_WITH_ONE_GAN = {
    "save_checkpoint", "load_checkpoint", "begin", "end_epoch", "finish",
}  # fmt: skip


def source(script):
    return (ROOT / f"{script.__name__}.py").read_text(encoding="utf-8")


def definitions(name):
    """The exact text of each function and class at the top level of a script, comments included."""
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def constants(script):
    """The constants of a script in their order, each with the text of its line."""
    lines = source(script).splitlines()
    return {
        node.targets[0].id: lines[node.lineno - 1]
        for node in ast.parse(source(script)).body
        if isinstance(node, ast.Assign) and node.targets[0].id.isupper()
    }


def test_sections_stand_in_order(script):
    titles = re.findall(r"^# %% (\d+)\. (.+)$", source(script), re.M)
    assert [int(number) for number, _ in titles] == list(range(1, len(titles) + 1))
    words = [title.split(":")[0].lower() for _, title in titles if "judge" not in title.lower()]
    assert words == [
        "what and how", "imports", "constants", "data", "networks", "losses",
        "one training step", "training", "main", "plumbing",
    ]  # fmt: skip
    *_, last = ast.parse(source(script)).body
    assert ast.unparse(last).startswith("if __name__ == '__main__':"), "the guard is at the end"
    plumbing = source(script).split(". Plumbing")[1]
    kinds = {type(node) for node in ast.parse("#" + plumbing).body[:-1]}
    assert kinds == {ast.FunctionDef}, "Plumbing has functions, and after it is the guard"


def test_every_constant_has_its_comment(script):
    found = constants(script)
    assert 10 <= len(found) <= 18, list(found)
    for name, line in found.items():
        assert re.search(r"  # .{20,}", line), f"{name} has no comment that says what it does"


def test_no_constant_is_frozen(script):
    """None is copied when the script is imported, or a value that is set later would do nothing."""
    tree = ast.parse(source(script))
    for node in tree.body:
        if isinstance(node, ast.Assign):
            used = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
            assert not {name for name in used if name.isupper() and name != "F"}, ast.unparse(node)
    all_constants = set(constants(script))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            names = {n.id for d in defaults for n in ast.walk(d) if isinstance(n, ast.Name)}
            assert not names & all_constants, f"{getattr(node, 'name', 'lambda')}: {names}"


# Another value for every constant that shapes the training.
OTHER_VALUES = {
    "LATENT_DIM": 9, "GENERATOR_HIDDEN": (20,), "DISCRIMINATOR_HIDDEN": (20,), "BATCH_SIZE": 3,
    "LEARNING_RATE": 2e-3, "BETAS": (0.5, 0.9), "R1": 3.0, "AVERAGE": 4, "SEED": 7,
    "GENERATOR": "conv", "DISCRIMINATOR": "pool", "TRICKS": ("label_smoothing",),
}  # fmt: skip
# What the other constants do is tested by name: which data, how much of it, which files, how often.
HAVE_TESTS_OF_THEIR_OWN = {
    "DATASET", "DATA_DIR", "EPOCHS", "RESUME", "OUTPUT_DIR", "SAMPLE_EVERY", "DEVICE", "LOSSES",
    "SEEDS", "SAMPLES",
}  # fmt: skip


def trained(script, images):
    """The average of a generator's weights after an epoch of these images."""
    device = torch.device("cpu")
    several = script.__name__ == "compare_losses"
    gan = script.build_gan(device, "BCE", 0) if several else script.build_gan(device)
    script.train_epoch(gan, images)
    return weights(gan.average)


def test_every_constant_acts(script, images, monkeypatch):
    for name, value in {"BATCH_SIZE": 4, **SMALL[script.__name__]}.items():
        monkeypatch.setattr(script, name, value)
    before = trained(script, images[:8])
    assert same(before, trained(script, images[:8])), "the same constants, the same weights"
    for name in constants(script).keys() - HAVE_TESTS_OF_THEIR_OWN:
        with monkeypatch.context() as patch:
            assert name in OTHER_VALUES, f"{name} needs another value above, or a test of its own"
            patch.setattr(script, name, OTHER_VALUES[name])
            assert not same(before, trained(script, images[:8])), f"{name} does nothing"


def test_random_numbers_come_from_the_cpu_and_all_else_is_made_where_the_images_are(
    script, images, monkeypatch
):
    """So each run is the same with any device, and runs on a GPU: seen here without a GPU."""
    for name, value in {"BATCH_SIZE": 4, **SMALL[script.__name__]}.items():
        monkeypatch.setattr(script, name, value)
    with Placeless(script) as made:
        trained(script, images[:8])
    assert made.found == []
    with Placeless(script) as made:
        script.draw_digits(1)
    assert made.found, "it notices: drawn digits are made on the CPU"


def test_every_function_and_class_is_used_and_explained(script):
    tree = ast.parse(source(script))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for name, definition in definitions(script.__name__).items():
        assert name in used or f"{name}(" in script.__doc__, f"{name} is never used"
        if name != "main":
            assert ast.get_docstring(ast.parse(definition).body[0]), f"{name} has no docstring"


def test_only_the_promised_packages_are_imported(script):
    for node in ast.walk(ast.parse(source(script))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module]
        for name in names:
            package = name.split(".")[0]
            assert package in PACKAGES | set(sys.stdlib_module_names), name
            assert package != "argparse"


def test_inline_metadata_has_the_bounds_of_requirements_txt(script):
    required = (ROOT / "requirements.txt").read_text().split()
    block = re.search(r"# /// script\n(.*?)# ///\n", source(script), re.S).group(1)
    assert re.findall(r'"([\w>=.]+)"', block.split("dependencies")[1]) == [
        line for line in required if not line.startswith("pytest")
    ]
    assert 'requires-python = ">=3.10"' in block
    assert source(script).startswith("# /// script\n")


@pytest.mark.parametrize("first, second", list(itertools.combinations(SCRIPTS, 2)))
def test_what_does_the_same_is_the_same_text(first, second):
    one, two = definitions(first), definitions(second)
    may_differ = set(MEANT_TO_DIFFER)
    if "compare_losses" not in (first, second):
        may_differ -= SAME_IN_THOSE_WITH_ONE_GAN
    shared = f"the text of functions that {first}.py and {second}.py share"
    for name in sorted(one.keys() & two.keys() - may_differ):
        assert one[name] == two[name], f"{YOURS.format(shared)}\n{name} differs."
    one, two = (constants(importlib.import_module(name)) for name in (first, second))
    comments = f"the comments of constants that {first}.py and {second}.py share"
    for name in ("DATASET", "DATA_DIR", "DEVICE"):
        texts = [found[name].split("  # ")[1] for found in (one, two)]
        assert texts[0] == texts[1], f"{YOURS.format(comments)}\n{name} differs."


def test_the_table_of_what_may_differ_names_nothing_that_is_equal():
    texts = [definitions(name) for name in SCRIPTS]
    for name in MEANT_TO_DIFFER if len(SCRIPTS) == 3 else ():
        assert len({text[name] for text in texts if name in text}) > 1, f"{name} is the same"


def test_shape_comments_tell_what_the_layers_return(script, monkeypatch):
    """Every shape behind a layer in the source is one that a layer really returns."""
    shapes, comments = set(), "shapes in comments with what the layers of section 5 return"

    def note(layer, inputs, result):
        shapes.add(tuple(result.shape))

    for recipe in ({}, {"GENERATOR": "conv", "DISCRIMINATOR": "pool"}):
        for name, value in recipe.items():
            monkeypatch.setattr(script, name, value, raising=False)
        generator, discriminator = script.Generator(), script.Discriminator()
        for layer in [*generator.modules(), *discriminator.modules()]:
            layer.register_forward_hook(note)
        discriminator(generator(torch.randn(3, script.LATENT_DIM)))
    found = definitions(script.__name__)
    lines = (found["Generator"] + "\n" + found["Discriminator"]).splitlines()
    claims = [
        tuple(3 if part == "B" else int(part) for part in shape.split(", "))
        for line in lines
        if "nn." in line and "#" in line
        for shape in re.findall(r"\[(B, [\d, ]+)\]", line.split("#")[1])
    ]
    assert len(claims) >= 5
    for claim in claims:
        what = f"No layer returns {claim}; they return {sorted(shapes)}."
        assert claim in shapes, f"{YOURS.format(comments)}\n{what}"


@pytest.mark.waits
@pytest.mark.parametrize("name", SCRIPTS)
def test_alone_in_a_folder_and_pasted_whole_it_runs_and_writes_only_its_output(name, lonely):
    folder, process = lonely[name]
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert errors == ""
    printed = (folder.parent / "out.txt").read_bytes().replace(b"\r\n", b"\n")
    assert b"drawn digits" in printed and b"\r" not in printed, "a moving line is for terminals"
    assert b"f?r ? dich" in printed, "a console that knows no umlaut"
    written = {path for path in folder.rglob("*") if path.is_file()}
    inside = {path for path in written if path.parent == folder / "outputs" / "für — dich"}
    assert written - inside == {folder / f"{name}.py"}
    promise = importlib.import_module(name).__doc__
    for path in inside - {folder / "outputs" / "für — dich" / "lock"}:
        listed = re.sub("_lsgan|_wgan", "_bce", re.sub(r"_\d\d\d", "_001", path.name))
        assert listed in promise, path.name
