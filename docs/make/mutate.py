"""Break the scripts in many small ways, and see which the tests do not notice.

Run it:  python docs/make/mutate.py train_gan     (Or another script. It takes ten minutes.)

A mutant is a copy of the project in which one place of a script is changed: a number, an operator,
a comparison, True and False, a condition turned round, a keyword argument or a whole call left out.
The tests run on it until the first one fails. A mutant that none of them notices has survived, and
is printed: either a test is missing, or the change makes no difference that matters. COUNT mutants
are drawn at random, from all code but the constants and what only draws, prints, shows or warns. A
function that stands in several scripts is broken in train_gan.py only, because a test holds the
copies equal. That test and those of the pages would notice any change of text, so they are left
out, and so are the tests of the other scripts.
"""

import ast
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COUNT = 60  # Mutants of a script.
SEED = 0  # Which ones are drawn.
WORKERS = 2  # Mutants at the same time.
TIMEOUT = 300  # Seconds after which a mutant that hangs counts as noticed.
ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {"show_progress", "diagnose", "draw_grid", "draw_curves", "draw_comparison",
            "figure_table"}
SCRIPTS = ["train_gan", "train_dcgan_variant", "compare_losses"]
# The tests that can notice, the quickest to do so first. test_judge.py is for compare_losses.py.
TESTS = ["test_judge.py", "test_gan.py", "test_losses.py", "test_networks.py", "test_data.py",
         "test_run.py"]
SWAPS = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Mod: "+", ast.Pow: "*",
         ast.FloorDiv: "*", ast.BitOr: "&", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
         ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in", ast.NotIn: "in", ast.Is: "is not",
         ast.IsNot: "is"}


def name_of(node):
    """The name of a function, a class or a table at the top of a script. None for a constant."""
    if isinstance(node, (ast.Assign, ast.AugAssign)):
        target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
        return target.id if isinstance(node.value, (ast.Call, ast.Dict)) else None
    return getattr(node, "name", None)


def mutations(text, names):
    """Every (start, end, new text) that is a mutation of what has one of these names."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))

    def begin(node):
        return starts[node.lineno - 1] + node.col_offset

    def end(node):
        return starts[node.end_lineno - 1] + node.end_col_offset

    def source(node):
        return text.encode()[begin(node) : end(node)].decode()

    def prints(node):
        return isinstance(node, ast.Call) and source(node).startswith("print")

    for top in ast.parse(text).body:
        if name_of(top) not in names:
            continue
        shown = {id(part) for node in ast.walk(top) for part in ast.walk(node)
                 if isinstance(node, ast.JoinedStr) or prints(node)}
        for node in ast.walk(top):
            if id(node) in shown:
                continue
            if isinstance(node, ast.Constant) and type(node.value) is bool:
                yield begin(node), end(node), str(not node.value)
            elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
                other = node.value + 1 if node.value < 3 else node.value * 2
                yield begin(node), end(node), str(other)
            elif isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
                yield end(node.left), begin(node.right), f" {SWAPS[type(node.op)]} "
            elif isinstance(node, ast.Compare) and len(node.ops) == 1:
                yield end(node.left), begin(node.comparators[0]), f" {SWAPS[type(node.ops[0])]} "
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
                yield begin(node), begin(node.operand), " "
            elif isinstance(node, ast.BoolOp):
                other = "or" if isinstance(node.op, ast.And) else "and"
                yield end(node.values[0]), begin(node.values[1]), f" {other} "
            elif isinstance(node, (ast.If, ast.IfExp)):
                yield begin(node.test), end(node.test), f"(not ({source(node.test)}))"
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                if not prints(node.value):
                    yield begin(node), end(node), "pass"
            elif isinstance(node, ast.Call):
                for word in node.keywords:
                    if word.arg and node.args:
                        before = (node.args + [k.value for k in node.keywords])
                        last = max(end(item) for item in before if end(item) < begin(word.value))
                        yield last, end(word.value), ""


def fate(name, text, mutation):
    """None if the tests notice the mutation, or else the changed line, or "no mutant"."""
    start, stop, new = mutation
    data = text.encode()
    mutant = data[:start] + new.encode() + data[stop:]
    line = data[:start].count(b"\n")
    shown = f"{name}.py:{line + 1}: {mutant.decode().splitlines()[line].strip()}"
    try:
        ast.parse(mutant)
    except SyntaxError:  # Such as a bracket between the two sides: not a mutation.
        return "no mutant"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        left_out = shutil.ignore_patterns("outputs", ".*", "data", "*cache*")
        shutil.copytree(ROOT, copy, ignore=left_out)
        (copy / f"{name}.py").write_bytes(mutant)
        others = " and ".join(f"not {other}" for other in SCRIPTS if other != name)
        tests = TESTS if name == "compare_losses" else TESTS[1:]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
                   "-k", others, *[f"tests/{file}" for file in tests]]
        try:
            done = subprocess.run(command, cwd=copy, capture_output=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return None
    return shown if done.returncode == 0 else None


def main():
    name = sys.argv[1]
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    names = {name_of(node) for node in ast.parse(text).body} - LEFT_OUT - {None}
    if name != "train_gan":
        first = (ROOT / "train_gan.py").read_text(encoding="utf-8")
        names -= {name_of(node) for node in ast.parse(first).body
                  if name_of(node) and ast.get_source_segment(first, node) in text}
    found = sorted(set(mutations(text, names)))
    random.Random(SEED).shuffle(found)
    print(f"{name}.py: {len(found)} possible mutants in {', '.join(sorted(names))}", flush=True)
    if fate(name, text, (0, 0, "")) is None:
        raise SystemExit("The tests fail on the script as it is. See: python -m pytest")
    killed, survived = 0, []
    with ThreadPoolExecutor(WORKERS) as pool:
        for result in pool.map(lambda mutation: fate(name, text, mutation), found[:COUNT]):
            if result == "no mutant":
                continue
            killed += result is None
            if result:
                survived.append(result)
                print(f"\nsurvived: {result}", flush=True)
            else:
                print(".", end="", flush=True)
    print(f"\n{killed} of {killed + len(survived)} mutants of {name}.py were noticed")


if __name__ == "__main__":
    main()
