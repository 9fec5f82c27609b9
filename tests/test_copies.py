"""The text of the scripts: copies stay copies, and each file keeps its order and its budget.

If you have changed a script on purpose, a failure here only names what no longer agrees. Then
ignore the test, or change its table.
"""

import ast
import difflib
import functools
import importlib
import itertools
import re
import sys

import pytest
import torch
from conftest import ROOT, SCRIPTS, TINY, same, set_constants, start, weights

ORDER = ["train_gan", "train_dcgan_variant", "compare_losses"]
PAIRS = list(itertools.combinations(ORDER, 2))
PACKAGES = {"torch", "torchvision", "matplotlib", "PIL", "numpy"}

# Whatever two scripts both have is equal, comments included, except for this. The numbers count the
# lines that only one of the two has: of train_gan.py and train_dcgan_variant.py, of train_gan.py
# and compare_losses.py, and of the last two. None: not both have it.
DIFFER = {
    "imports": (2, 7, 7, "tricks, and a table of losses"),
    "LATENT_DIM": (1, 0, 1, "the heading above: TRICKS stand below it"),
    "DISCRIMINATOR_HIDDEN": (None, 2, None, "its comment"),
    "EPOCHS": (3, 4, 3, "what a run takes"),
    "BATCH_SIZE": (2, 2, 0, "BatchNorm needs two images"),
    "LEARNING_RATE": (2, None, None, "what suits the networks"),
    "RESUME": (0, 2, 2, "several checkpoints"),
    "Generator": (45, 6, 47, "other networks"),
    "Discriminator": (47, 7, 54, "other networks"),
    "discriminator_loss": (10, None, None, "label_smoothing"),
    "r1_penalty": (5, None, None, "BatchNorm in D"),
    "sample_latents": (0, 10, 10, "the list of steps above it"),
    "discriminator_step": (9, None, None, "BatchNorm in D needs two passes"),
    "generator_step": (18, 10, 22, "feature_matching; any loss"),
    "train_step": (4, 34, 34, "feature_matching; critic steps, any penalty"),
    "build_gan": (13, 24, 29, "ttur, historical_averaging; a loss and a seed"),
    "train_epoch": (3, 22, 23, "BatchNorm needs two images; as many steps of G for each loss"),
    "train": (1, 17, 18, "BatchNorm's statistics; several trainings, a judge"),
    "diagnose": (7, None, None, "tricks"),
    "main": (0, 15, 15, "several trainings, a judge"),
    "begin": (0, 34, 34, "several trainings"),
    "settings": (2, 2, 4, "other constants"),
    "end_epoch": (0, 40, 40, "the judge measures"),
    "save_results": (7, 54, 59, "the studies; tables and figures of all losses"),
    "draw_curves": (2, None, None, "label_smoothing"),
    "check_constants": (10, 7, 15, "other constants"),
}

# Lines up to main, which are the handout, and lines of the plumbing with the guard.
BUDGETS = {"train_gan": (365, 245), "train_dcgan_variant": (595, 265), "compare_losses": (655, 395)}


def source(name):
    return (ROOT / f"{name}.py").read_text(encoding="utf-8")


def section(name, title):
    """The text of a section, without the line of its title."""
    return re.search(rf"^# %% \d+\. {title}.*?\n(.*?)(?=^# %% |\Z)", source(name), re.M | re.S)[1]


@functools.cache
def pieces(name):
    """The text of each function, class, constant, with the comment above it, and of other parts."""
    lines = source(name).splitlines()
    found = {"imports": section(name, "Imports"), "guard": source(name).partition("\nif __name")[2]}
    found["metadata"] = source(name).partition('"""')[0]
    for line in re.findall(r"^\[\S+\] .*", source(name), re.M):  # What the scripts cite.
        found[line.split()[0]] = " ".join(line.split())
    for node in ast.parse(source(name)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign)):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            while re.match("#(?! %%)", lines[first - 2]):
                first -= 1
            title = node.targets[0].id if isinstance(node, ast.Assign) else node.name
            found[title] = "\n".join(lines[first - 1 : node.end_lineno])
            if isinstance(node, ast.Assign):  # The values of constants are yours.
                found[title] = re.sub(rf"(?m)^{title} = .*?(?=  #|$)", title, found[title])
    return found


def constants(name):
    """The constants of section 3, in their order."""
    return [node.targets[0].id for node in ast.parse(section(name, "Constants")).body]


def differing(piece, first, second):
    """How many lines only one of two scripts has, or None if the piece is not in both."""
    texts = [pieces(name).get(piece) for name in (first, second)]
    if None in texts:
        return None
    changes = difflib.unified_diff(*(text.splitlines() for text in texts), n=0, lineterm="")
    return sum(not line.startswith("@@") for line in list(changes)[2:])


SHARED = sorted({piece for one, two in PAIRS for piece in pieces(one).keys() & pieces(two).keys()})


@pytest.mark.parametrize("piece", sorted({*SHARED, *DIFFER}))
def test_what_two_scripts_both_have_is_equal_or_differs_as_the_table_says(piece):
    found = tuple(differing(piece, *pair) for pair in PAIRS)
    equal = tuple(None if lines is None else 0 for lines in found)
    assert found == DIFFER.get(piece, (*equal, ""))[:3]
    assert piece not in DIFFER or any(found), "It is equal, so the table need not name it."


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_handout_and_the_plumbing_keep_their_budgets(name):
    handout, plumbing = re.split(r"^(?=# %% \d+\. Plumbing)", source(name), flags=re.M)
    allowed = BUDGETS[name]
    assert len(handout.splitlines()) <= allowed[0] and len(plumbing.splitlines()) <= allowed[1]


@pytest.mark.parametrize(
    "folder, kind, allowed, each",
    [(".", "README.md", 150, 150), ("docs", "*.md", 1750, 400), ("tests", "*.py", 3900, 600)],
)
def test_pages_and_tests_keep_their_budgets(folder, kind, allowed, each):
    files = {path.name: len(path.read_text(encoding="utf-8").splitlines())
             for path in (ROOT / folder).glob(kind) if path.name != "mutate.py"}
    assert sum(files.values()) <= allowed and max(files.values()) <= each, files


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_sections_stand_in_order_and_the_guard_at_the_end(name):
    titles = re.findall(r"^# %% (\d+)\. ([\w ]+)", source(name), re.M)
    assert [int(number) for number, _ in titles] == list(range(1, len(titles) + 1))
    judge = ["The judge and its metrics"] if name == "compare_losses" else []
    assert [title.strip() for _, title in titles] == [
        "What and how", "Imports", "Constants", "Data", "Networks", "Losses", "One training step",
        "Training", *judge, "Main", "Plumbing"]
    kinds = [type(node) for node in ast.parse(section(name, "Plumbing")).body]
    assert set(kinds[:-1]) == {ast.FunctionDef} and kinds[-1] == ast.If


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_function_fits_on_a_screen_is_explained_and_used(name):
    tree = ast.parse(source(name))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 45, node.name
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            assert node.name in used or f"{node.name}(" in ast.get_docstring(tree), node.name
            assert node.name == "main" or ast.get_docstring(node), node.name


@pytest.mark.parametrize("name", SCRIPTS)
def test_constants_are_few_and_nothing_freezes_one_when_the_script_is_imported(name):
    found = constants(name)
    assert 10 <= len(found) <= 18
    for node in ast.walk(ast.parse(source(name))):
        frozen = []
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            frozen = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif isinstance(node, ast.ClassDef):
            frozen = [part for part in node.body if not isinstance(part, ast.FunctionDef)]
        elif isinstance(node, ast.Module):
            frozen = [part.value for part in node.body if isinstance(part, ast.Assign)]
        used = {n.id for part in frozen for n in ast.walk(part) if isinstance(n, ast.Name)}
        assert not used & set(found), "A value that is set later would do nothing."


# Another value for every constant that shapes the training.
OTHER_VALUES = {
    "LATENT_DIM": 9, "GENERATOR_HIDDEN": [20], "DISCRIMINATOR_HIDDEN": [20], "BATCH_SIZE": 3,
    "LEARNING_RATE": 2e-3, "BETAS": (0.5, 0.9), "R1": 3.0, "AVERAGE": 4, "SEED": 7,
    "GENERATOR": "conv", "DISCRIMINATOR": "pool", "TRICKS": ["label_smoothing"],
}
# What the others do is tested by name: which data, how much of it, which files, how often.
TESTED_ELSEWHERE = {"DATASET", "DATA_DIR", "EPOCHS", "RESUME", "OUTPUT_DIR", "SAMPLE_EVERY",
                    "DEVICE", "LOSSES", "SEEDS"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_constant_that_shapes_the_training_changes_its_result(name, images, monkeypatch):
    script = importlib.import_module(name)
    set_constants(monkeypatch, script, {**TINY, "BATCH_SIZE": 4})

    def trained():
        which = ["BCE", 0] if name == "compare_losses" else []
        gan = script.build_gan(torch.device("cpu"), *which)
        script.train_epoch(gan, images[:8], epoch=1)
        return weights(gan.average)

    before = trained()
    assert same(before, trained())
    for constant in set(constants(name)) - TESTED_ELSEWHERE:
        with monkeypatch.context() as patch:
            patch.setattr(script, constant, OTHER_VALUES[constant])
            assert not same(before, trained()), f"{constant} does nothing"


@pytest.mark.parametrize("name", SCRIPTS)
def test_only_the_packages_of_requirements_txt_are_imported(name):
    for node in ast.walk(ast.parse(source(name))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        packages = {module.partition(".")[0] for module in names}
        assert packages <= PACKAGES | (set(sys.stdlib_module_names) - {"argparse"})


def test_the_metadata_block_has_the_bounds_of_requirements_txt():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    required = ", ".join(f'"{line}"' for line in lines if not line.startswith("pytest"))
    block = f'# /// script\n# requires-python = ">=3.10"\n# dependencies = [{required}]\n# ///\n'
    assert all(source(name).startswith(block) for name in SCRIPTS)


def test_importing_the_scripts_prints_nothing_writes_nothing_and_draws_no_random_number(tmp_path):
    code = (f"import random, sys, numpy, torch; sys.path.insert(0, {str(ROOT)!r})\n"
            "state = lambda: (random.getstate(), numpy.random.get_state()[1].tolist(), "
            "torch.get_rng_state().tolist())\n"
            f"before = state()\nimport {', '.join(SCRIPTS)}\nassert state() == before")
    process = start("-c", code, cwd=tmp_path)
    assert process.communicate() == ("", "") and process.returncode == 0
    assert not list(tmp_path.iterdir())
