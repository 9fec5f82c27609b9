"""compare_losses.py: the judge, what its figures are by hand and cannot see, and anybody's images.

No MNIST here, except in the slow test at the end. The images are squares, noise or drawn digits.
"""

import math
import statistics
from pathlib import Path

import compare_losses as compare
import numpy as np
import pytest
import torch
from compare_losses import (
    frechet_distance, inception_score, kernel_distance, precision_and_recall)
from conftest import ROOT, needs_mnist, same, set_constants, weights
from matplotlib.figure import Figure
from torch import nn


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count, seed=0):
    return 2 * torch.rand(count, 1, 28, 28, generator=stream(seed)) - 1


def squares():
    """240 images of squares in four places, and the numbers of the places."""
    images = torch.full((240, 1, 28, 28), -1.0)
    for number in range(240):
        row, column = 4 + 10 * (number % 2), 4 + 10 * (number // 2 % 2)
        images[number, :, row : row + 10, column : column + 10] = 0.9
    return (images + 0.1 * noise(240, 1) + 0.1).clamp(-1, 1), torch.arange(240) % 4


def run(monkeypatch, **constants):
    """The GANs and the judge at the end of a whole run."""
    set_constants(monkeypatch, compare, constants)
    saved, save_results = [], compare.save_results
    monkeypatch.setattr(compare, "save_results", lambda *a: saved.append(a) or save_results(*a))
    compare.main()
    return saved[-1][:2]


# The judge


def test_the_judge_gives_96_features_and_ten_probabilities_for_each_image_by_itself(images):
    judge = compare.Judge().eval()
    features, probabilities = compare.look_at(judge, images)
    assert features.shape == (48, 96) and probabilities.shape == (48, 10)
    alone, logits = judge(images[5:6])
    torch.testing.assert_close(features[5:6].float(), alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(probabilities[5:6].float(), logits.softmax(1))


def test_the_ruler_is_the_same_as_ever():
    """Only so can the figures of a run be compared with those of earlier ones.

    Rounding, as with another number of threads, moves what this judge sees in squares by less than
    1 %. Another recipe, also one with another seed or order, moves one of the numbers by over 4 %.
    """
    judge = compare.train_judge(*squares())
    features, probabilities = compare.look_at(judge, squares()[0][:40])
    shapes, means = features.split([64, 32], 1)
    assert shapes.sum().item() == pytest.approx(105.6, rel=0.02)
    assert means.sum().item() == pytest.approx(8080, rel=0.02)
    assert probabilities[:, :4].sum().item() == pytest.approx(16.22, rel=0.02)


def test_the_judge_learns_from_the_first_five_sixths_in_a_fixed_order(monkeypatch):
    seen, forward = [], compare.Judge.forward
    monkeypatch.setattr(compare.Judge, "forward", lambda judge, images: (
        seen.append(images[:, 0, 0, 0]) or forward(judge, images)))
    images, labels = noise(300), torch.arange(300) % 10
    images[:, 0, 0, 0] = torch.arange(300.0)
    compare.train_judge(images, labels)
    rng = stream(2051556033)
    order = torch.cat([torch.randperm(250, generator=rng) for _ in range(3)])
    assert torch.cat(seen[:6]).equal(order.float())
    assert [len(batch) for batch in seen] == [128] * 5 + [110, 250], "the last look sets the scale"
    compare.train_judge(images[:52], labels[:52])  # Of 3 * 43, one would be alone in its batch.
    assert len(seen[-2]) == 128, "BatchNorm cannot learn from one image"


def test_the_judge_computes_exactly_while_the_training_may_round(tiny, monkeypatch):
    tiny(compare)
    monkeypatch.setattr(compare, "draw_comparison", lambda *_: Figure((1, 1)))
    used = {}
    for name, owner in (("train_step", compare), ("precision_and_recall", compare),
                        ("forward", compare.Judge)):
        def watched(*arguments, name=name, function=getattr(owner, name)):
            used.setdefault(name, set()).add(torch.get_float32_matmul_precision())
            return function(*arguments)
        monkeypatch.setattr(owner, name, watched)
    run(monkeypatch, LOSSES=["BCE", "LSGAN"], EPOCHS=2)
    assert used.pop("train_step") == {"medium"}
    assert used == {"forward": {"highest"}, "precision_and_recall": {"highest"}}


def test_the_figures_tell_real_digits_from_one_digit_blur_specks_and_noise(monkeypatch):
    images, labels = compare.draw_digits(2300)
    recipe = {**compare.judge_recipe(), "batch": 32, "rounds": 5}  # These are few.
    monkeypatch.setattr(compare, "judge_recipe", lambda: recipe)
    judge = compare.train_judge(images[:1500], labels[:1500])
    judge.real_features, _ = compare.look_at(judge, images[1500:1900])
    images, labels = images[1900:], labels[1900:]
    speck = torch.rand(images.shape, generator=stream()) < 0.01
    sets = {
        "real": images, "one digit": images[labels == 3].repeat(11, 1, 1, 1)[:400],
        "blurred": nn.functional.avg_pool2d(images, 5, stride=1, padding=2),
        "specks": torch.where(speck, 1.0, images), "noise": noise(400),
    }
    found = {name: compare.measure(judge, images) for name, images in sets.items()}
    real, one = found.pop("real"), found["one digit"]
    assert real["digits"] == 10 and real["readable"] > 0.7 and real["IS"] > 6, real
    assert real["precision"] > 0.7 and real["recall"] > 0.7, real
    assert one["digits"] == 1 and one["IS"] < 1.5 and found["noise"]["readable"] < 0.5, found
    for name, figures in found.items():
        factor = 2 if name == "specks" else 5
        assert figures["distance"] > factor * real["distance"], (name, figures, real)
        assert figures["KID"] > factor * abs(real["KID"]), (name, figures, real)
        assert name == "specks" or figures["recall"] < real["recall"] / 2, (name, figures, real)


def test_the_figures_of_a_run_are_of_the_average_of_g_and_g_itself_stands_beside(tiny, monkeypatch):
    tiny(compare)
    (gan,), judge = run(monkeypatch, LOSSES=["BCE"], EPOCHS=2)
    compare.renew_statistics(gan.generator, 0, "cpu")  # The average's are renewed as well.
    average, latest = (compare.measure(judge, compare.sample_images(generator, 0))
                       for generator in (gan.average, gan.generator))
    assert {key: gan.found[key] for key in average} == pytest.approx(average)
    assert gan.history[-1]["distance"] == pytest.approx(average["distance"], rel=1e-3)
    assert gan.found["G itself"] == pytest.approx(latest["distance"])
    assert latest["distance"] != pytest.approx(average["distance"], rel=1e-3)


# Each figure by hand, and what it cannot see: FID, KID, Inception Score, precision and recall


def cloud():
    """400 points with mean 0 and covariance 1, exactly."""
    points = torch.randn(400, 4, dtype=torch.float64, generator=stream())
    points -= points.mean(0)
    return points @ torch.linalg.inv(torch.linalg.cholesky(points.T.cov())).T


def test_the_frechet_distance_has_the_closed_form_for_gaussians():
    a, b = torch.tensor([1.0, 2, 3, 0]).double(), torch.tensor([2.0, 2, 0, 5]).double()
    shift = torch.tensor([1.0, 0, -2, 0]).double()
    expected = 1 + 4 + (1 + 0 + 9 + 25)  # |shift|^2 + sum of (a - b)^2
    distance = frechet_distance(cloud() * a, cloud() * b + shift)
    assert distance == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(cloud(), torch.zeros(400, 4).double()) == pytest.approx(4)
    # In general, too: C_r = a.T @ a, C_f = b.T @ b, and the roots are singular values of a @ b.T.
    a, b = torch.randn(2, 4, 4, generator=stream()).double()
    expected = a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()
    distance = frechet_distance(cloud() @ a, cloud() @ b)
    assert distance == pytest.approx(expected.item(), rel=1e-6)


def column(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def test_the_kernel_distance_has_the_value_worked_out_by_hand():
    # Of real images k(0, 1) = 1, of fakes k(1, 2) = 3^3, and of both 1, 1, 2^3 and 3^3.
    real, fake = column(0, 1), column(1, 2)
    assert kernel_distance(real, fake) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)
    assert kernel_distance(real.repeat(1, 5), fake.repeat(1, 5)) == pytest.approx(9.5)
    # Of many images it is the mean over blocks of up to 1,000, whatever their order within one.
    real, fake = torch.randn(2, 2100, 3, generator=stream()).double()
    parts = [kernel_distance(real[n : n + 700], fake[n : n + 700]) for n in (0, 700, 1400)]
    assert kernel_distance(real, fake) == pytest.approx(statistics.mean(parts))
    assert kernel_distance(real[:700], fake[:700].flip(0)) == pytest.approx(parts[0])


def test_of_few_images_the_kernel_distance_is_not_larger_on_average_and_the_frechet_distance_is():
    draws = torch.randn(400, 2, 20, 4, generator=stream()).double()
    kernel = [kernel_distance(real, fake) for real, fake in draws]
    assert abs(statistics.mean(kernel)) < 3 * statistics.stdev(kernel) / 400**0.5
    few, more = (statistics.mean(frechet_distance(real[:count], fake[:count])
                                 for real, fake in draws[:100]) for count in (10, 20))
    many = frechet_distance(*torch.randn(2, 5000, 4, generator=stream()).double())
    assert few > 1.5 * more > 50 * many


def test_each_distance_is_blind_where_its_formula_is():
    skewed = torch.rand(4000, 2, generator=stream()).double().log() + 1  # Mean 0, deviation 1.
    skewed -= skewed.mean(0)
    bell = torch.randn(4000, 2, generator=stream(1)).double()
    coin = torch.rand(4000, 2, generator=stream(2)).round().double() * 2 - 1
    # Equal means and variances are all that the Frechet distance compares.
    assert frechet_distance(skewed, -skewed) == pytest.approx(0, abs=1e-9)
    assert kernel_distance(skewed, -skewed) > 3
    # A kernel of degree three compares means of x, x^2 and x^3: a coin has those of a bell.
    assert abs(kernel_distance(bell, coin)) < 0.3
    assert precision_and_recall(bell, coin)[1] < 0.1, "recall sees it"


def test_the_inception_score_has_the_values_worked_out_by_hand():
    def score(*rows):
        return inception_score(torch.tensor(rows).double())

    assert score([1.0, 0.0], [0.0, 1.0]) == pytest.approx(2)
    assert score([0.25, 0.75], [0.25, 0.75]) == pytest.approx(1)
    # KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 log(3/2) + 1/4 log(1/2), for both.
    assert score([0.75, 0.25], [0.25, 0.75]) == pytest.approx(1.5**0.75 * 0.5**0.25)
    # p(digit) = (3/4, 1/4), so the mean of log(4/3) and of 1/2 log(2/3) + 1/2 log(2).
    assert score([1.0, 0.0], [0.5, 0.5]) == pytest.approx(math.sqrt(4 / 3 * (4 / 3) ** 0.5))
    # Ten pictures, one of each digit, have the highest score, whatever they look like.
    assert score(*torch.eye(10).repeat(30, 1).tolist()) == pytest.approx(10)


def test_precision_and_recall_tell_fidelity_from_variety():
    real, fake = torch.randn(2, 400, 2, generator=stream())
    real[200:, 0] += 100  # Two islands.
    precision, recall = precision_and_recall(real, fake)
    assert precision > 0.9 and 0.4 < recall <= 0.5, "good images, but on one island"
    precision, recall = precision_and_recall(fake, real)
    assert 0.4 < precision <= 0.5 and recall > 0.9, "all kinds, but half of it is astray"
    assert precision_and_recall(real, real) == (1, 1), "also where all are copies"
    assert precision_and_recall(real, real + 1000) == (0, 0)
    # Radii of 10, 9, 8 and 10. The last lies apart, so fakes that are far from all look real.
    some = column(0, 1, 2, 10)
    other = column(-10, -10.5, 20.5, 19.5)  # One is 10 from 0, one 9.5 from 10.
    assert precision_and_recall(some, other)[0] == precision_and_recall(other, some)[1] == 0.5
    assert precision_and_recall(torch.arange(5001)[:, None] // 5000, column(1, 1, 1, 1))[0] == 0
    assert precision_and_recall(column(0, 0, 0, 0, 10), column(-1, -2, -3, 5))[0] == 0.25


# The figures of a set of images


def test_readable_and_digits_count_what_is_named_surely_and_not_rarely():
    def judge(images):
        """Its probabilities stand in the first row of pixels, and features in the second."""
        return images[:, 0, 1, :5].double(), images[:, 0, 0, :10].log()

    digit = torch.tensor([0, 1, 2, 3]).repeat_interleave(torch.tensor([500, 10, 9, 481]))
    sure = torch.where(digit < 3, 0.95, 0.85).unsqueeze(1)
    probabilities = torch.where(torch.arange(10) == digit.unsqueeze(1), sure, (1 - sure) / 9)
    images = torch.rand(1000, 1, 28, 28)
    images[:, 0, 0, :10] = probabilities
    judge.real_features = torch.rand(1200, 5).double()
    found = compare.measure(judge, images)
    assert found["readable"] == pytest.approx(0.519), "85 % is not sure"
    assert found["digits"] == 2, "nine in a thousand are too few"
    assert found["IS"] == pytest.approx(inception_score(probabilities.double()))
    features = judge.real_features[:1000], images[:, 0, 1, :5].double()
    assert found["distance"] == pytest.approx(frechet_distance(*features))
    assert found["KID"] == pytest.approx(kernel_distance(*features))
    assert (found["precision"], found["recall"]) == precision_and_recall(*features)


def test_the_table_has_a_row_for_each_name_and_mean_and_deviation_over_seeds():
    groups = {"real images": [{"distance": 0.126, "KID": 1.0}],
              "BCE": [{"distance": value, "KID": 0.00004, "seconds": 1234.4, "digits": 9}
                      for value in (1.0, 2.0, 6.0)]}
    lines = compare.figure_table(groups, hidden=["KID"]).splitlines()
    assert len({len(line) for line in lines}) == 1, "columns stand below each other"
    head, rule, real, bce = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert head == ["", "distance", "digits", "seconds"] and set("".join(rule)) == {"-"}
    assert real == ["real images", "0.13", "", ""]
    assert bce == ["BCE", "3.00 ± 2.65", "9.0 ± 0.0", "1,234 ± 0"]
    assert "| 0.0000 ± 0.0000 |" in compare.figure_table(groups)


# The judge's file, and what its images are compared with


@pytest.fixture
def two_sets(monkeypatch):
    """Other images for training than for testing."""
    sets = {True: squares()[0], False: noise(110)}
    labels = {train: torch.arange(len(part)) % 4 for train, part in sets.items()}
    monkeypatch.setattr(compare, "load_images",
                        lambda train=True: (sets[train], labels[train], "squares"))
    Path(compare.OUTPUT_DIR).mkdir()
    return sets, labels


@pytest.mark.parametrize("name", ["squares", "drawn digits", "drawn digits in place of MNIST"])
def test_images_are_compared_with_test_images_in_a_fixed_order(two_sets, monkeypatch, name):
    sets, labels = two_sets
    drawn = {(10_000, 1): (sets[False] / 2, labels[False])}
    monkeypatch.setattr(compare, "draw_digits", lambda count, seed: drawn[count, seed])
    judge = compare.prepare_judge(sets[True], labels[True], name)
    assert judge.other_images.equal(sets[True][200:]), "training images that are new to the judge"
    expected = sets[False] if name == "squares" else sets[False] / 2
    expected = expected[torch.randperm(110, generator=stream(3488238119))]
    torch.testing.assert_close(judge.real_features, compare.look_at(judge, expected)[0])
    assert not judge.training and name in judge.about


def test_a_judge_is_used_again_for_the_same_recipe_and_data_only(two_sets, monkeypatch):
    images, labels = two_sets[0][True], two_sets[1][True]
    path, recipe, trained = Path(compare.OUTPUT_DIR, "judge.pt"), compare.judge_recipe(), []
    record = lambda *data: trained.append(data) or compare.Judge().eval()  # noqa: E731
    monkeypatch.setattr(compare, "train_judge", record)

    def trains(images=images, name="squares"):
        trained.clear()
        judge = compare.prepare_judge(images, labels[: len(images)], name)
        assert same(weights(judge), torch.load(path, weights_only=True)["judge"])
        return bool(trained)

    brighter = torch.where(torch.arange(240).view(-1, 1, 1, 1) == 0, 1.0, images)
    for settings in ({}, {"name": "KMNIST"}, {}, {"images": brighter}, {"images": images[:160]}):
        assert trains(**settings) and not trains(**settings)
    changes = [("judge_recipe", lambda key=key: {**recipe, key: 2}) for key in recipe]
    other = type("Judge", (compare.Judge,), {"__repr__": lambda judge: "other layers"})
    for change in (*changes, ("Judge", other)):
        with monkeypatch.context() as patch:
            patch.setattr(compare, *change)
            assert trains() and not trains(), change
    assert trains()
    for damaged in (b"damaged", b"", path.read_bytes()[:999]):
        path.write_bytes(damaged)
        assert trains() and not trains()


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, np.int16, list])
def test_labels_of_any_integer_type_train_the_same_judge(two_sets, kind):
    sets, labels = two_sets
    expected = weights(compare.train_judge(sets[True], labels[True]))
    for train, part in labels.items():
        labels[train] = (part.to(kind) if isinstance(kind, torch.dtype) else
                         part.tolist() if kind is list else part.numpy().astype(kind))
    assert same(expected, weights(compare.prepare_judge(*compare.load_images())))
    for data in ((sets[True], None), (sets[True][:29], labels[True][:29])):  # None, or too few.
        with pytest.raises(SystemExit, match="^[^\n]*labels[^\n]*$"):
            compare.prepare_judge(*data, "squares")


# Anybody's images


def pixels(count=120):
    """Images as bytes, uint8 [count, 28, 28], with 0 and 255 among them."""
    return noise(count).square().mul(256).clamp(0, 255).byte().squeeze(1)


KINDS = {
    "bytes": lambda x: x, "array": lambda x: x.numpy(), "with a channel": lambda x: x.unsqueeze(1),
    "channel last": lambda x: x.unsqueeze(3), "N x 784": lambda x: x.view(-1, 784),
    "floats": lambda x: x / 127.5 - 1, "doubles": lambda x: (x / 127.5 - 1).double().numpy(),
    "batches": lambda x: (x / 127.5 - 1).unsqueeze(1).split(50), "images": lambda x: [*x],
    "batches of arrays": lambda x: [part.numpy() for part in x.split(50)],
    "of G": lambda x: (x / 127.5 - 1).requires_grad_(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_read_in_whatever_form_they_come(kind, capsys):
    images = compare.read_digits(KINDS[kind](pixels()))
    assert images.shape == (120, 1, 28, 28) and images.dtype == torch.float32
    assert not images.requires_grad and capsys.readouterr().out == ""
    torch.testing.assert_close(images[:, 0], pixels() / 127.5 - 1)


UNUSABLE = {
    "too few": pixels(99), "too large": np.zeros((100, 32, 32), np.uint8),
    "3 channels": np.zeros((100, 3, 28, 28), np.uint8), "one image": pixels(1)[0],
    "0 to 1": pixels() / 255, "0 to 255": pixels().float(), "int64": pixels().long(),
    "-1 or 1 in int64": pixels().long() // 128 * 2 - 1, "below -1": pixels() / 200 - 1.1,
    "above 1": pixels() / 100 - 1,
    "not a number": np.full((100, 28, 28), np.nan), "words": np.full((100, 28, 28), "one"),
    "objects": np.full((100, 28, 28), None), "ragged": [[1, 2], [3]], "nothing": None,
    "dict": {"images": pixels()}, "a number": 5, "empty": [], "empty array": np.zeros((0, 28, 28)),
    "batches with labels": [(pixels(), torch.arange(120))] * 157,
    "batches of 0 to 1": [pixels() / 255] * 157, "some too large": [pixels(), noise(3)[:, 0, :9]],
}
FILES = {"text": b"hello\n" * 99, "empty file": b"", "half": b"\x93NUMPY\x01\x00v\x00{",
         "code": b"cos\nmkdir\n(S'harm'\ntR."}


@pytest.mark.parametrize("kind", [*UNUSABLE, *FILES, "no file", "folder"])
def test_what_is_no_set_of_digits_is_a_short_line_without_the_data(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.npy").mkdir()
    source = UNUSABLE[kind] if kind in UNUSABLE else Path(f"{kind}.npy")
    if kind in FILES:
        source.write_bytes(FILES[kind])
    with pytest.raises(SystemExit) as stop:
        compare.measure_digits(source)
    message = str(stop.value)
    assert 50 < len(message) < 400 and "\n" not in message and "[[" not in message
    assert kind in UNUSABLE or str(source) in message
    assert not Path(compare.OUTPUT_DIR).exists(), "before a judge is made"
    assert not Path("harm").exists(), "what a file says is never run"


HINTS = {"digits": pixels(), "black on white": 255 - pixels(), "all black": 0 * pixels(),
         "all alike": pixels(1).expand(120, 28, 28)}


@pytest.mark.parametrize("kind", HINTS)
def test_images_that_are_mostly_white_or_all_alike_are_measured_with_a_hint(kind, capsys):
    assert len(compare.read_digits(HINTS[kind])) == 120
    assert bool(capsys.readouterr().out) == (kind != "digits")


@pytest.mark.parametrize("by", ["name", "path", "array"])
def test_measured_images_have_a_row_of_their_name(two_sets, tmp_path, capsys, by, monkeypatch):
    path = tmp_path / "generated.npy"
    np.save(path, pixels())
    judge = compare.prepare_judge(*compare.load_images())
    judge.other_images = noise(130, 5)
    monkeypatch.setattr(compare, "prepare_judge", lambda *_: judge)
    found = compare.measure_digits({"name": str(path), "path": path, "array": pixels()}[by])
    name = "images" if by == "array" else f"{tmp_path.name}/generated.npy"
    expected = {"real images": noise(130, 5)[:120], name: compare.read_digits(pixels())}
    assert found == {row: compare.measure(judge, images) for row, images in expected.items()}
    table = compare.figure_table({row: [figures] for row, figures in found.items()})
    assert table in capsys.readouterr().out


# The real MNIST


@needs_mnist
@pytest.mark.slow
def test_on_mnist_the_judge_reads_digits_and_ranks_real_images_300_steps_and_none(monkeypatch):
    gans, judge = run(monkeypatch, DATA_DIR=str(ROOT / "data"), GENERATOR_HIDDEN=[128, 256, 512],
                      LOSSES=["BCE", "WGAN"], EPOCHS=1, BATCH_SIZE=200)
    for (images, labels, *_), least in ((compare.load_images(train=False), 0.98),
                                        (compare.draw_digits(2000), 0.8)):
        named = compare.look_at(judge, images)[1].argmax(1)
        assert (named == labels).double().mean() > least
        assert min((named == labels)[labels == digit].double().mean() for digit in range(10)) > 0.5
    found = {gan.loss: gan.found for gan in gans}
    new = compare.build_gan(torch.device("cpu"), "BCE", 0).generator
    for name, images in {"real": judge.other_images, "new": compare.sample_images(new, 0)}.items():
        found[name] = compare.measure(judge, images)
    assert all(math.isfinite(value) for row in found.values() for value in row.values()), found
    for figure in ("distance", "KID"):
        order = sorted(found, key=lambda name: found[name][figure])
        assert order[0] == "real" and order[-1] == "new", found
    real = found["real"]
    assert real["digits"] == 10 and real["IS"] > 9 and real["distance"] < 0.2, real
    assert real["precision"] > 0.8 and real["recall"] > 0.8, real
