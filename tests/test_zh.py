"""The Chinese page agrees with README.md and the programs: commands, constants, figures."""

import re

from conftest import ROOT

PAGE = (ROOT / "docs" / "README.zh-CN.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = {path.name: path.read_text(encoding="utf-8")
            for path in [*ROOT.glob("*.py"), *(ROOT / "docs").glob("*.py")]}  # fmt: skip
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
PROSE = re.sub(r"^```.*?^```$", "", PAGE, flags=re.M | re.S)
CODE = re.findall(r"`([^`\n]+)`", PROSE)


def lines_of(code):
    """The lines of a program without comments, blank lines and indentation."""
    lines = (line.split("  #")[0].strip() for line in code.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_commands_and_minutes_stand_in_the_readme():
    commands = [block.strip() for language, block in BLOCKS if not language]
    assert len(commands) >= 5
    for text in commands + [f"{a} to {b}" for a, b in re.findall(r"(\d+) 到 (\d+) 分钟", PAGE)]:
        assert text in README, text


def test_the_two_steps_are_those_of_the_gan_to_hand_in():
    steps, measuring = [lines_of(block) for language, block in BLOCKS if language == "python"]
    minimal = lines_of(PROGRAMS["minimal_gan.py"])
    start = minimal.index(steps[0])
    assert minimal[start : start + len(steps)] == steps
    assert "\n".join(measuring) in README


def test_files_and_figures_stand_elsewhere_too():
    for file in (code for code in CODE if re.fullmatch(r"\w+\.[a-z]{2,3}", code)):
        assert any(file in program for program in PROGRAMS.values()), file
    for figure in re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", PROSE):
        number = re.compile(rf"(?<![\d.]){re.escape(figure)}(?!\.?\d)")
        assert number.search(README) or number.search(PROGRAMS["train_gan.py"]), figure
