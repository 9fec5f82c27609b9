"""README.md and docs/ agree with the programs: links, commands, constants, files, lines of code.

If you have changed a script or a page on purpose, a failure here only says which sentence has
become untrue.
"""

import ast
import importlib
import re
import sys

import pytest
import torch
from conftest import ROOT, SCRIPTS, set_constants
from torch import nn

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
         for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
           for path in [*sorted(ROOT.glob("*.py")), *sorted((ROOT / "docs").rglob("*.py"))]}
PROGRAMS = "\n".join(SOURCES.values())
SETTING = re.compile(r"`([A-Z][A-Z_0-9]*) = ([^`]+)`")
TUTORIALS_OWN = {"img_shape", "d_loss"}  # Names in tutorials of which a page speaks.
every_page = pytest.mark.parametrize("page", PAGES)


def blocks(page, language=r"\w*"):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGES[page], re.M | re.S)


def prose(page):
    """The lines of a page outside of its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", PAGES[page], flags=re.M | re.S).splitlines()


def spans(page):
    """What stands between backticks in a page, outside of its blocks."""
    return [span for line in prose(page) for span in re.findall(r"`([^`]+)`", line)]


def rows(page):
    """The rows of a page's tables, each with the names of the scripts that it names."""
    for line in prose(page):
        if line.startswith("|"):
            names = [name for name in SCRIPTS if re.search(rf"\b{name}\.py", line)]
            yield line, SCRIPTS if "| any |" in line else names


def defaults(name):
    """The constants of section 3 as they stand in a script, with their values."""
    text = SOURCES[f"{name}.py"].partition("# %% 3. Constants\n")[2].partition("# %%")[0]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(text).body}


def with_settings(name, settings, patch):
    """A script with its own constants, but with these settings, all checked together."""
    script, constants = importlib.import_module(name), defaults(name)
    for constant, value in settings:
        assert constant in constants, f"{name}.py has no {constant}"
        constants[constant] = ast.literal_eval(value)
    set_constants(patch, script, {**constants, "OUTPUT_DIR": script.OUTPUT_DIR, "DEVICE": "cpu"})
    script.check_constants()
    return script


def build(script):
    which = [script.LOSSES[0], script.SEEDS[0]] if hasattr(script, "LOSSES") else []
    return script.build_gan(torch.device("cpu"), *which)


@every_page
def test_links_anchors_and_pictures_exist(page):
    for mark, text, target in re.findall(r"(!?)\[([^]]*)\]\(([^)]+)\)", "\n".join(prose(page))):
        assert text, f"{target} needs a text"
        file, _, anchor = target.partition("#")
        if target.startswith("http"):
            continue
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", "\n".join(
                prose(path.resolve().relative_to(ROOT).as_posix())), re.M)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, target


@every_page
def test_constants_and_their_values_are_those_that_a_script_accepts(page, monkeypatch):
    for line in prose(page):
        for setting in SETTING.findall(line):
            errors = []
            for name in SCRIPTS:
                try:
                    with monkeypatch.context() as patch:
                        with_settings(name, [setting], patch)
                except (AssertionError, SystemExit) as error:
                    errors.append(error)
            assert len(errors) < len(SCRIPTS), errors
    for span in spans(page):
        if re.fullmatch(r"[A-Z]+_[A-Z_]+|RESUME|EPOCHS|DATASET|TRICKS|LOSSES|SEEDS?|R1", span):
            assert re.search(rf"^{span} = ", PROGRAMS, re.M), span


@every_page
def test_the_settings_of_a_row_make_networks_that_take_a_step(page, images, monkeypatch):
    for line, names in rows(page):
        for name in names if (settings := SETTING.findall(line)) else []:
            with monkeypatch.context() as patch:
                script = with_settings(name, settings, patch)
                gan, rng = build(script), torch.Generator().manual_seed(0)
                batch = images[:4]
                if name == "compare_losses":
                    patch.setattr(script, "BATCH_SIZE", 4)
                    batch = script.batches(images, rng)
                assert script.train_step(gan, batch, rng).isfinite().all(), line


def test_the_tutorials_have_the_networks_that_are_written_beside_their_settings(monkeypatch):
    """Such as G 100-256-512-784, D 784-512-256-1, or channels: D 1-64-128."""
    seen = set()
    for line, names in rows("docs/tutorials.md"):
        for network, written in re.findall(r"\b([GD]) (\d+(?:-\d+)+)", line if names else ""):
            with monkeypatch.context() as patch:
                gan = build(with_settings(names[0], SETTING.findall(line), patch))
            modules = (gan.generator if network == "G" else gan.discriminator).modules()
            layers = [layer for layer in modules if isinstance(layer, (nn.Linear, nn.Conv2d))]
            sizes = [list(layer.weight.shape[:2]) for layer in layers]  # Outputs and inputs.
            chain = "-".join(map(str, [sizes[0][1], *(outputs for outputs, _ in sizes)]))
            assert f"{chain}-".startswith(f"{written}-"), line
            seen.add(written)
    assert len(seen) >= 6


@every_page
def test_functions_files_and_quoted_lines_of_code_exist(page):
    known = PROGRAMS + "".join(blocks(page))
    for span in spans(page):
        name = re.fullmatch(r"(?:\w+\.)?([a-z]+_[a-z_]+)(?:\(.*\))?", span)
        if name and name[1] not in TUTORIALS_OWN:
            assert re.search(rf"\b{name[1]}\b", known), span
        if re.fullmatch(r"[\w./]+\.(png|gif|pdf|csv|npy|npz|pt|txt)", span):
            file = re.sub(r"_\d\d\d\.", "_001.", span.rpartition("/")[2])
            assert file in known, span
        if re.fullmatch(r"[\w./]+\.(py|md)", span):
            assert (ROOT / span).exists() or (ROOT / "docs" / span).exists() or span in known, span
    for line in prose(page):
        name = next(iter(re.findall(rf"\| ({'|'.join(SCRIPTS)})\.py \|", line)), "train_gan")
        for old in re.findall(r"(?<=`) (?:for|without) `([^`]+)`", line):
            assert old in SOURCES[f"{name}.py"], old


def test_the_readme_tests_by_the_commands_that_the_hosted_tests_run():
    commands = [line for text in blocks("README.md") for line in text.splitlines()
                if "pip install" in line and "pytest" in line]
    assert len(commands) == 2, "one for macOS and Linux, and one for Windows"
    hosted = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert all(command in hosted for command in commands)
    assert commands[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_log_and_the_epochs_of_the_pages_are_those_of_the_defaults(
    images, tmp_path, monkeypatch, capsys
):
    script = with_settings("train_gan", [], monkeypatch)
    monkeypatch.setattr(script, "OUTPUT_DIR", str(tmp_path))
    script.begin(build(script), images, "MNIST")
    printed = capsys.readouterr().out.splitlines()
    lines = [line for page in PAGES for text in blocks(page) for line in text.splitlines()
             if line.startswith(("Networks ", "Start ", "epoch "))]
    assert len(lines) >= 2
    for line in lines:  # Some logs leave the last columns out.
        assert any(start.startswith(line.rstrip()) for start in printed), line
    for line, names in rows("README.md"):
        if re.match(r"\| \[\w+\.py\]", line):  # The table of the scripts.
            epochs = re.findall(r"\b(\d+) epochs", line)
            assert set(epochs) <= {str(defaults(names[0])["EPOCHS"])}, line


@pytest.mark.parametrize("page", ["README.md", "docs/report.md"])
def test_the_python_of_a_page_runs_after_two_runs(page, tiny, monkeypatch, tmp_path, capsys):
    import compare_losses
    import train_gan

    set_constants(monkeypatch, tiny(train_gan), {"OUTPUT_DIR": "outputs/train_gan", "EPOCHS": 1})
    drawn = (*compare_losses.draw_digits(300), "few digits")
    monkeypatch.setattr(compare_losses, "load_images", lambda train=True: drawn)
    monkeypatch.chdir(tmp_path)
    train_gan.main()
    train_gan.main()
    for block in blocks(page, "python"):
        if re.match("import|from", block):
            exec(compile(block, page, "exec"), {})
        else:  # A part of a program.
            code = [line.partition("  #")[0].strip() for line in block.splitlines()]
            assert any(all(line in text for line in code) for text in SOURCES.values()), block
    assert "| real images " in capsys.readouterr().out


def test_the_lines_of_experiments_md_for_ten_steps_of_g_fit_train_gan():
    (block,) = [text for text in blocks("docs/experiments.md") if "range(10)" in text]
    old = f"    {block.splitlines()[-1].strip()}\n"
    assert SOURCES["train_gan.py"].count(f"\n{old}") == 1
    compile(SOURCES["train_gan.py"].replace(old, block), "train_gan.py", "exec")


def test_each_change_of_the_experiments_fits_one_place_in_its_script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs" / "make"), *sys.path])
    experiments = importlib.import_module("experiments")
    for group, plan in experiments.GROUPS.items():
        for name in plan["each"]:
            compile(experiments.copy_of(group, name, 0), name, "exec")  # Exits if it does not.
