"""README.md agrees with the scripts: its commands, its constants, its files and its lines of code."""

import importlib
import re

import pytest
import torch
from conftest import ROOT, SCRIPTS
from PIL import Image

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language=""):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def test_ci_runs_the_test_command_of_the_readme():
    commands = [line for line in blocks()[0].splitlines() if "pytest" in line]
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_in_the_table(name):
    assert f"| [{name}.py]({name}.py) |" in README


def test_links_and_pictures_exist():
    for alt, target in re.findall(r"(!?\[[^]]*\])\(([^)#][^)]*)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
        assert len(alt) > 20 or not alt.startswith("!"), f"{target} needs an alternative text"


def test_recipes_name_constants_and_values_that_the_scripts_accept(monkeypatch):
    recipes = re.findall(r"^\| [^|]+ \| (\w+\.py|any) \| ([^|]+) \|$", README, re.M)
    assert len(recipes) >= 4
    for file, settings in recipes:
        for name in SCRIPTS if file == "any" else [file.removesuffix(".py")]:
            script = importlib.import_module(name)
            with monkeypatch.context() as patch:
                for constant, value in re.findall(r"`([A-Z_0-9]+) = ([^`]+)`", settings):
                    assert hasattr(script, constant), f"{file} has no {constant}"
                    patch.setattr(script, constant, eval(value))
                script.check_constants()


def test_experiments_name_constants_and_code_that_the_script_has(monkeypatch):
    import train_gan

    source = (ROOT / "train_gan.py").read_text(encoding="utf-8")
    table = README.split("## Experiments")[1].split("More of them")[0]
    rows = [line.split(" | ") for line in table.splitlines() if re.search(r"\| [\d.]* \|", line)]
    assert len(rows) >= 12
    for change, *_ in rows:
        for quoted in re.findall(r"`([^`]+)`", change):
            if constant := re.fullmatch(r"([A-Z_0-9]+) = (.+)", quoted):
                with monkeypatch.context() as patch:
                    patch.setattr(train_gan, constant[1], eval(constant[2]))
                    train_gan.check_constants()
        for old in re.findall(r"for `([^`]+)`", change) + re.findall(r"without `([^`]+)`", change):
            assert old in source, old


def test_recipes_a_and_b_have_the_networks_of_the_tutorials(monkeypatch):
    import train_gan

    def count():
        networks = (train_gan.Generator(), train_gan.Discriminator())
        return [sum(weights.numel() for weights in n.parameters()) for n in networks]

    # Each Linear layer has inputs x outputs weights and outputs biases.
    assert count() == [
        100 * 256 + 256 + 256 * 512 + 512 + 512 * 784 + 784,
        784 * 512 + 512 + 512 * 256 + 256 + 256 * 1 + 1,
    ]
    (line,) = [line for line in README.splitlines() if line.startswith("| tutorial B")]
    for constant, value in re.findall(r"`([A-Z_0-9]+) = ([^`]+)`", line):
        monkeypatch.setattr(train_gan, constant, eval(value))
    assert count() == [100 * 128 + 128 + 128 * 784 + 784, 784 * 128 + 128 + 128 * 1 + 1]
    gan = train_gan.build_gan(torch.device("cpu"))
    assert gan.optimizer_g.defaults["betas"] == (0.9, 0.999) and train_gan.BATCH_SIZE == 64


def test_the_lines_that_draw_more_digits_do(small, monkeypatch, tmp_path):
    if small.__name__ != "train_gan":
        pytest.skip("the lines in the README are for train_gan.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(small, "OUTPUT_DIR", "outputs/train_gan")
    small.main()
    (lines,) = [block for block in blocks("python") if "more_digits" in block]
    exec(compile(lines, "README.md", "exec"), {})
    with Image.open("more_digits.png") as picture:
        assert picture.size == (10 * 30 + 2, 10 * 30 + 2)
        assert len(picture.convert("L").getcolors(256)) > 20


def test_the_lines_that_measure_digits_do(small, monkeypatch, tmp_path, capsys):
    import compare_losses

    if small.__name__ != "train_gan":
        pytest.skip("the lines in the README are for train_gan.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(small, "OUTPUT_DIR", "outputs/train_gan")
    monkeypatch.setattr(compare_losses, "load_images", small.load_images)
    monkeypatch.setattr(compare_losses, "SAMPLES", 100)
    monkeypatch.setattr(compare_losses, "LATENT_DIM", small.LATENT_DIM)
    small.main()
    capsys.readouterr()
    (lines,) = [block for block in blocks("python") if "judge" in block]
    exec(compile(lines, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "'distance': " in printed and "'digits': " in printed


def test_the_printed_example_has_the_header_of_the_script(small, capsys):
    small.main()
    header = re.search(r"^epoch .*$", capsys.readouterr().out, re.M).group()
    assert header in README
