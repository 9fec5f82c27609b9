"""README.md and docs/ agree with the scripts: commands, constants, links, and lines of code.

These tests compare text. If you have changed a script or a page on purpose, a failure here only
says which sentence has become untrue.
"""

import ast
import importlib
import re
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, SCRIPTS, make_small
from PIL import Image

PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
         for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}  # fmt: skip
README = PAGES["README.md"]
SOURCES = {name: (ROOT / f"{name}.py").read_text(encoding="utf-8") for name in SCRIPTS}
SETTING = re.compile(r"`([A-Z][A-Z_0-9]*) = ([^`]+)`")


def blocks(language="", page=README):
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)


def prose(page):
    """The lines of a page outside of its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.M | re.S).splitlines()


def accepts(name, settings, monkeypatch):
    """Whether a script has these constants and accepts their values together."""
    script = importlib.import_module(name)
    with monkeypatch.context() as patch:
        for constant, value in settings:
            if not hasattr(script, constant):
                return False
            patch.setattr(script, constant, ast.literal_eval(value))
        try:
            script.check_constants()
        except SystemExit:
            return False
    return True


def test_ci_runs_the_test_command_of_the_readme():
    commands = [line for line in blocks()[0].splitlines() if "pytest" in line]
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES)
def test_no_figure_is_missing(page):
    assert "FIG{" not in PAGES[page]


@pytest.mark.parametrize("page", PAGES)
def test_lines_wrap_at_100_columns(page):
    long = [line for line in prose(PAGES[page])
            if len(line) > 100 and not line.startswith(("|", "!["))]  # fmt: skip
    assert not long, long


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_in_the_table(name):
    assert f"| [{name}.py]({name}.py) |" in README


@pytest.mark.parametrize("page", PAGES)
def test_links_anchors_and_pictures_exist(page):
    headings = re.compile(r"^#+ (.*)$", re.M)
    for alt, target in re.findall(r"(!?\[[^]]*\])\(([^)]+)\)", "\n".join(prose(PAGES[page]))):
        assert len(alt) > 20 or not alt.startswith("!"), f"{target} needs an alternative text"
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if anchor:
            titles = headings.findall("\n".join(prose(path.read_text(encoding="utf-8"))))
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, target


@pytest.mark.parametrize("page", PAGES)
def test_constants_and_values_are_those_that_the_scripts_accept(page, monkeypatch):
    for line in prose(PAGES[page]):
        settings = SETTING.findall(line)
        names = [name for name in SCRIPTS if f"{name}.py" in line]
        if line.startswith("|") and (names or "| any |" in line):  # A recipe: all of it together.
            for name in names or SCRIPTS:
                assert accepts(name, settings, monkeypatch), f"{name}.py: {settings}"
        else:
            for setting in settings:
                assert any(accepts(name, [setting], monkeypatch) for name in SCRIPTS), setting


@pytest.mark.parametrize("page", PAGES)
def test_functions_and_lines_of_code_are_those_of_the_scripts(page):
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", PAGES[page]):
        assert any(re.search(rf"\b{name}\b", source) for source in SOURCES.values()), name
    for line in PAGES[page].splitlines():
        (name,) = [name for name in SCRIPTS if f"| {name}.py |" in line] or ["train_gan"]
        for old in re.findall(r"(?:\bfor|without) `([^`]+)`", line):
            assert old in SOURCES[name], old


def test_the_experiments_fit_the_scripts(monkeypatch):
    """Each change of docs/make/experiments.py fits exactly one place, or edited() exits."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs" / "make"), *sys.path])
    experiments = importlib.import_module("experiments")
    for plan in experiments.GROUPS.values():
        for name, changes in plan["each"].items():
            text = experiments.copy_of(plan, name, 0)
            if not all(map(str.isupper, changes)):  # Lines of code, not only constants.
                compile(text, name, "exec")
    block = blocks(page=PAGES["docs/experiments.md"])[0]  # Ten steps of G for each of D.
    line = block.splitlines()[-1].strip()
    assert SOURCES["train_gan"].count(f"    {line}\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_each_recipe_trains_for_an_epoch(name, monkeypatch, tmp_path):
    """The networks have the size of the recipe; only the data are 200 drawn digits."""
    script = importlib.import_module(name)
    drawn = {train: script.draw_digits(200, seed=int(train)) for train in (True, False)}
    lines = [line for line in README.splitlines() if f"| {name}.py |" in line or "| any |" in line]
    recipes = [settings for line in lines if (settings := dict(SETTING.findall(line)))]
    assert len(recipes) >= 5
    for number, settings in enumerate(recipes):
        with monkeypatch.context() as patch:
            for constant, value in settings.items():
                patch.setattr(script, constant, ast.literal_eval(value))
            patch.setattr(script, "load_images", lambda train=True: (*drawn[train], "drawn digits"))
            patch.setattr(script, "EPOCHS", 1)
            patch.setattr(script, "OUTPUT_DIR", str(tmp_path / str(number)))
            if hasattr(script, "SAMPLES"):
                patch.setattr(script, "SAMPLES", 100)
            if script.BATCH_SIZE > 64:
                patch.setattr(script, "BATCH_SIZE", 64)
            script.main()
        assert list((tmp_path / str(number)).glob("generat*.npy")), settings


@pytest.mark.parametrize("tutorial", "AB")
def test_recipes_a_and_b_have_the_networks_of_the_tutorials(tutorial, monkeypatch):
    script = importlib.import_module("train_gan")
    (line,) = [line for line in README.splitlines() if f"| tutorial {tutorial}'s" in line]
    for constant, value in SETTING.findall(line):
        monkeypatch.setattr(script, constant, ast.literal_eval(value))
    gan = script.build_gan(torch.device("cpu"))
    widths = {"A": (100, 256, 512, 784, 512, 256, 1), "B": (100, 128, 784, 128, 1)}[tutorial]
    # Each Linear layer has inputs x outputs weights and outputs biases.
    sizes = [inputs * outputs + outputs for inputs, outputs in zip(widths, widths[1:])]
    networks = (gan.generator, gan.discriminator)
    assert sum(w.numel() for network in networks for w in network.parameters()) == sum(sizes)
    expected = {"A": (2e-4, (0.5, 0.999), 128), "B": (2e-4, (0.9, 0.999), 64)}[tutorial]
    adam = gan.optimizer_g.defaults
    assert (adam["lr"], adam["betas"], script.BATCH_SIZE) == expected
    assert (script.R1, script.AVERAGE, script.EPOCHS) == (0, 0, 100)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/report.md"])
def test_the_log_and_the_python_of_a_page_after_two_runs(
    page, monkeypatch, tmp_path, images, capsys
):
    import compare_losses
    import train_gan

    make_small(train_gan, images, monkeypatch)
    monkeypatch.setattr(train_gan, "OUTPUT_DIR", "outputs/train_gan")
    monkeypatch.setattr(compare_losses, "load_images", lambda train=True: (
        *compare_losses.draw_digits(600 if train else 100), "few digits"))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for epochs in (2, 4):
        monkeypatch.setattr(train_gan, "EPOCHS", epochs)
        train_gan.main()
    (header,) = set(re.findall(r"^epoch .*$", capsys.readouterr().out, re.M))
    assert header in README
    assert len(np.load("outputs/train_gan/generated.npy")) == 100
    for number, block in enumerate(blocks("python", PAGES[page]), start=1):
        names = {}
        exec(compile(block, f"{page}, Python block {number}", "exec"), names)
        if "RUNS" in names:
            titles = [axes.get_title() for axes in names["figure"].axes]
            assert titles[:2] == ["before: 2 epochs", "after: 4 epochs"]
            lines = [len(line.get_xdata()) for axes in names["figure"].axes[2:]
                     for line in axes.lines]  # fmt: skip
            assert lines == [2, 2, 4, 4]
    assert re.search(r"\| +\| distance +\| readable", capsys.readouterr().out)
    if page == "README.md":
        return
    for name, width in (("more_digits", 1120), ("new_digits", 1000), ("epochs", 1890),
                        ("two_runs", 1890)):  # fmt: skip
        with Image.open(f"{name}.png") as picture:
            assert picture.width >= width and len(picture.convert("L").getcolors(256)) > 20, name
    for name in ("epochs", "two_runs"):
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
