"""The blocks of docs/theory.md run in order in an empty folder, and compute its numbers."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "theory.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def theory(tmp_path_factory):
    """The names that the blocks define. The figures are in the folder names["folder"]."""
    names = {"folder": tmp_path_factory.mktemp("theory")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(names["folder"])
        for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)):
            exec(compile(block, f"theory.md, block {number}", "exec"), names)
    return names


def test_the_figures_of_the_page_are_made(theory):
    shown = sorted(re.findall(r"^!\[.*\]\((theory_.*\.png)\)$", PAGE, re.M))
    assert shown == sorted(path.name for path in theory["folder"].iterdir()) and len(shown) == 2


def test_the_distances_of_the_game(theory):
    table = PAGE.partition("| distance from the solution")[2].partition("\n\n")[0]
    rows = [re.findall(r"\d+\.?\d*", row.split("|", 2)[2]) for row in table.splitlines()[2:]]
    written = rows[:-1] + [rows[-1][::2], rows[-1][1::2]]  # The last row has two settings.
    paths = [path for name, path in theory["PATHS"].items() if name != "beta1 = -0.5"]
    for row, path in zip(written, paths, strict=True):
        for text, step in zip(row, (10, 50, 100, 200), strict=True):
            half = 0.51 * 10 ** -len(text.partition(".")[2])
            assert theory["math"].hypot(*path[step - 1]) == pytest.approx(float(text), abs=half)
    assert round(theory["PATHS"]["mean of its path"][-1][0], 2) == 0.08
    assert round(theory["math"].hypot(*theory["PATHS"]["beta1 = -0.5"][-1]), 2) == 0.07


def test_where_g_ends(theory):
    table = PAGE.partition("| G's loss |")[2].splitlines()[2:6]
    for line, ends in zip(table, theory["ENDS"].values(), strict=True):
        one, two = (re.findall(r"\((\S+), (\S+)\)", cell) for cell in line.split("|")[-3:-1])
        written = one * (4 // len(one)) + two * (2 // len(two))  # "all", "both": once for all.
        for end, texts in zip(ends, written, strict=True):
            assert end == pytest.approx([float(text) for text in texts], abs=0.0051)


def test_what_g_descends(theory):
    """With D fixed, -log D has the gradient of 2 KL(m || p_data), but -1, 1, 0 not its sum's."""
    normal, gradient, losses = theory["normal"], theory["gradient"], theory["LOSSES"]
    x, log = theory["np"].linspace(-9, 9, 9001), theory["np"].log
    real = normal(x)
    kl = lambda fake: ((real + fake) * log((1 + fake / real) / 2)).sum() * 0.002
    chi = lambda fake: ((real - fake) ** 2 / (real + fake)).sum() * 0.001
    for name, divergence, same in (("-log D", kl, True), ("LSGAN -1, 1, 0", chi, False)):
        change = divergence(normal(x, 0.7, 0.801)) - divergence(normal(x, 0.7, 0.799))
        followed = gradient(losses[name], normal, 0.7, 0.8)[1]
        assert (followed == pytest.approx(change / 0.002, rel=1e-3)) == same
        assert same or followed > 0 > change  # Its step narrows G, where the sum would widen it.
