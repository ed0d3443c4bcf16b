"""The command `preview`: its sheet and facts, against PIL and NumPy."""

from __future__ import annotations

import json
import os
import re
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnnbench.__main__ import main
from cnnbench.data.datamodule import ImageData
from cnnbench.data.sets.mnist5k import MNIST5k
from cnnbench.data.sets.synthetic import Synthetic
from datafiles import ready

SIZES = {"train_size": 60, "val_size": 20, "test_size": 10, "num_classes": 3}
SMALL = ["data=synthetic", *(f"data.{key}={value}" for key, value in SIZES.items())]
KEYS = (
    "schema data images size channels licence origin classes n mean std measured_on fingerprint split_hash label_hash "
    "augment sheet"
).split()


class Previewed(NamedTuple):
    code: int
    out: str
    err: str
    figures: list[Figure]  # not drawn, since that takes longest

    @property
    def facts(self) -> dict:
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)


def run_preview(*arguments) -> Previewed:
    """The command's exit code, output and figures in an empty folder."""
    out, err, figures = StringIO(), StringIO(), []
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.chdir(folder)
        patch.setattr(Figure, "savefig", lambda self, *arguments, **keys: figures.append(self))
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["preview", *map(str, arguments)])
    return Previewed(code, out.getvalue(), err.getvalue(), figures)


preview = cache(run_preview)


@pytest.fixture
def drawing(tmp_path, monkeypatch, capsys):
    """A function: runs the command with real drawing in an empty folder, returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["preview", *map(str, arguments)])
        return code, *capsys.readouterr()

    return command


def grid(figure) -> list[list]:
    """The axes of a sheet, row by row."""
    rows: dict[int, list] = {}
    for axis in figure.axes:
        rows.setdefault(axis.get_subplotspec().rowspan.start, []).append(axis)
    return [rows[number] for number in sorted(rows)]


def shown(axis) -> np.ndarray:
    """(H, W, C) pixels that an axis draws."""
    (image,) = axis.get_images()
    pixels = np.asarray(image.get_array())
    return pixels if pixels.ndim == 3 else pixels[..., None]


# ---- the sheet -------------------------------------------------------------------------------------------------------

PLAIN = [*SMALL, "--json"]
COLOUR = [*SMALL, "data.channels=3", "augment=[crop,flip]", "--json"]
DIGITS = ["data=mnist5k", "--json"]


@pytest.mark.slow
def test_the_sheet_is_written_to_the_current_folder(drawing, tmp_path):
    code, out, err = drawing(*SMALL)
    assert (code, err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["preview_synthetic_none.png"]
    assert "preview_synthetic_none.png" in out
    with Image.open(tmp_path / "preview_synthetic_none.png") as sheet:
        sheet.load()
        assert sheet.format == "PNG"
        assert 400 < sheet.width < 600
        assert 100 < sheet.height < 400
        assert len(sheet.convert("L").getcolors()) > 50


@pytest.mark.slow
def test_augmented_rows_make_the_sheet_higher(drawing, tmp_path):
    for augment in ("none", "basic"):
        drawing(*SMALL, f"augment={augment}")
    plain, augmented = (Image.open(tmp_path / f"preview_synthetic_{name}.png") for name in ("none", "basic"))
    assert augmented.width == plain.width
    assert 3 < augmented.height / plain.height <= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sheet.pdf", "deeper/sheet.png"])
def test_out_names_the_file_of_the_sheet(drawing, tmp_path, name):
    (tmp_path / "deeper").mkdir()
    code, out, _ = drawing(*SMALL, "--out", name)
    assert code == 0
    assert out.endswith(f"sheet       {name}\n")
    assert (tmp_path / name).stat().st_size > 1000
    assert not list(tmp_path.glob("preview_*"))


@pytest.mark.parametrize(("arguments", "name"), [(PLAIN, "synthetic_none"), (COLOUR, "synthetic_crop+flip")])
def test_the_sheet_is_named_for_the_choices(arguments, name):
    assert preview(*arguments).facts["sheet"] == f"preview_{name}.png"


@pytest.mark.parametrize(("arguments", "rows"), [(PLAIN, 1), (COLOUR, 5)])
def test_there_is_a_column_for_each_class_and_a_row_for_each_version(arguments, rows):
    axes = grid(preview(*arguments).figures[0])
    assert [len(line) for line in axes] == [3] * rows
    assert [axis.get_title() for axis in axes[0]] == ["class0", "class1", "class2"]
    assert axes[0][0].get_ylabel() == "as loaded\n28×28"
    assert [line[0].get_ylabel() for line in axes[1:]] == ["augmented\n28×28"] * (rows - 1)


@pytest.mark.slow
def test_of_more_classes_than_fit_the_first_ten_are_drawn_and_all_are_counted():
    found = preview(*SMALL, "data.num_classes=30", "--json")
    assert [len(line) for line in grid(found.figures[0])] == [10]
    assert list(found.facts["classes"]) == [f"class{number}" for number in range(30)]
    assert found.facts["classes"]["class29"] == {"train": 2, "val": 0}


@pytest.mark.parametrize(("arguments", "channels"), [(PLAIN, 1), (COLOUR, 3)])
def test_the_first_row_is_the_first_train_image_of_each_class(arguments, channels):
    train = ready(Synthetic(**SIZES, channels=channels)).images["train"]
    for label, axis in enumerate(grid(preview(*arguments).figures[0])[0]):
        first = int((train.labels == label).nonzero()[0])
        np.testing.assert_array_equal(shown(axis), train.pixels[first].permute(1, 2, 0).numpy())


def test_pixels_are_drawn_from_black_at_0_to_white_at_255():
    (figure,) = preview(*PLAIN).figures
    assert {axis.get_images()[0].get_clim() for axis in figure.axes} == {(0, 255)}


def test_augmented_images_are_augmentations_of_the_first_row():
    first, *others = grid(preview(*SMALL, "augment=flip", "augment.flip.p=1").figures[0])
    assert len(others) == 4
    for line in others:
        for axis, original in zip(line, first, strict=True):
            np.testing.assert_array_equal(shown(axis), shown(original)[:, ::-1])


def test_the_four_versions_of_an_image_differ():
    _, *versions = grid(preview(*COLOUR).figures[0])
    assert len({shown(line[0]).tobytes() for line in versions}) > 1
    assert len({b"".join(shown(axis).tobytes() for axis in line) for line in versions}) == 4


@pytest.mark.slow
def test_the_sheet_depends_on_the_seed_only():
    runs = [preview(*COLOUR), run_preview(*COLOUR), preview(*COLOUR, "seed=1")]
    one, again, other = ([shown(axis).tobytes() for axis in run.figures[0].axes] for run in runs)
    assert one == again
    assert one[:3] == other[:3]
    assert one[3:] != other[3:]


@pytest.mark.slow
def test_a_class_without_a_train_image_has_no_column():
    (figure,) = preview("data=mnist5k", "data.train_size=3", "data.val_size=100").figures
    assert [axis.get_title() for axis in grid(figure)[0]] == ["0", "1", "2"]


@pytest.mark.parametrize("channels", [2, 4])
def test_images_of_other_channels_are_drawn_too(drawing, tmp_path, channels):
    assert drawing(*SMALL, f"data.channels={channels}")[0] == 0
    assert (tmp_path / "preview_synthetic_none.png").is_file()


def test_images_are_drawn_at_the_size_that_the_augmentation_starts_with():
    axes = grid(preview(*SMALL, "augment=notes", "--json").figures[0])
    assert axes[0][0].get_ylabel() == "as loaded\n35×35"
    assert axes[1][0].get_ylabel() == "augmented\n28×28"


@pytest.mark.slow
def test_with_a_model_images_have_the_size_that_the_net_takes():
    own, for_net = preview(*DIGITS), preview(*DIGITS, "model=lenet5")
    assert (own.facts["size"], for_net.facts["size"]) == (28, 32)
    assert [shown(run.figures[0].axes[0]).shape for run in (own, for_net)] == [(28, 28, 1), (32, 32, 1)]


# ---- the facts -------------------------------------------------------------------------------------------------------


def test_the_json_has_its_documented_keys():
    found = preview(*COLOUR).facts
    assert list(found) == KEYS
    assert found["schema"] == 1
    assert (found["data"], found["size"], found["channels"]) == ("synthetic", 28, 3)
    assert found["images"] == {"train": 80, "test": 10}
    assert found["n"] == {"train": 60, "val": 20, "test": 10}
    assert found["augment"] == ["crop", "flip"]


def test_classes_are_counted_as_numpy_counts_them():
    found = preview(*DIGITS, "data.train_size=1234", "data.val_size=[4000,4321]").facts
    labels = MNIST5k().read("train").labels.numpy()
    train, val = np.bincount(labels[:1234], minlength=10), np.bincount(labels[4000:4321], minlength=10)
    assert found["classes"] == {str(k): {"train": train[k], "val": val[k]} for k in range(10)}


def test_measured_mean_and_deviation_are_those_of_numpy():
    found = preview(*DIGITS).facts
    pixels = MNIST5k().read("train").pixels.numpy() / 255
    assert found["mean"] == {"stated": [0.1307], "measured": [pytest.approx(pixels.mean(), abs=1e-12)]}
    assert found["std"] == {"stated": [0.3081], "measured": [pytest.approx(pixels.std(), abs=1e-12)]}


def test_each_channel_is_measured_separately():
    found = preview(*COLOUR).facts
    pixels = Synthetic(**SIZES, channels=3).read("train").pixels.numpy() / 255
    np.testing.assert_allclose(found["mean"]["measured"], pixels.mean((0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(found["std"]["measured"], pixels.std((0, 2, 3)), atol=1e-12)


def test_measured_values_do_not_depend_on_the_augmentation():
    plain, augmented = preview(*PLAIN).facts, preview(*SMALL, "augment=notes", "--json").facts
    assert (plain["mean"], plain["std"]) == (augmented["mean"], augmented["std"])


def test_hashes_and_fingerprint_are_those_of_the_set():
    found, digits = preview(*DIGITS).facts, ready(MNIST5k())
    assert found["fingerprint"] == digits.fingerprint
    assert found["split_hash"] == digits.split_hash
    assert found["label_hash"] == digits.label_hash
    assert (found["licence"], found["origin"]) == (MNIST5k.licence, MNIST5k.origin)


def test_the_screen_shows_what_the_json_holds():
    found = preview(*COLOUR).facts
    code, out, err, _ = preview(*COLOUR[:-1])
    assert (code, err) == (0, "")
    assert out.startswith("synthetic: 80 + 10 images, here of 3×28×28\n")
    assert re.search(r"^class2 +20 +6 *$", out, re.M)
    assert re.search(r"^all +60 +20 *$", out, re.M)
    for key, label in (("mean", "mean"), ("std", "deviation")):
        stated, measured = (" ".join(f"{value:.4f}" for value in found[key][of]) for of in ("stated", "measured"))
        assert re.search(rf"^{label} +{stated} +{measured} *$", out, re.M)
    assert "augment     crop, flip" in out
    assert f"split hash  {found['split_hash']}, labels {found['label_hash']}" in out


def test_a_wrong_mean_is_reported_with_keys_that_correct_it():
    out = preview(*SMALL, "data.channels=3", "data.mean=[0.9,0.5,0.5]").out
    (line,) = [line for line in out.splitlines() if line.startswith("these differ; ")]
    typed = line.rpartition(": ")[2].split()
    assert [override.partition("=")[0] for override in typed] == ["data.mean", "data.std"]
    helped = preview(*SMALL, "data.channels=3", *typed)
    assert helped.code == 0
    assert "these differ" not in helped.out


def test_a_right_mean_is_not_reported():
    assert "these differ" not in preview("data=mnist5k").out


def test_label_noise_does_not_change_measured_values():
    clean, noisy = preview(*PLAIN).facts, preview(*PLAIN, "data.label_noise=0.5").facts
    assert clean["mean"] == noisy["mean"]
    assert clean["label_hash"] != noisy["label_hash"]


@pytest.mark.slow
def test_the_test_split_is_not_read(monkeypatch, tmp_path):
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "nothing_decoded_yet"))
    for owner, name in ((MNIST5k, "read"), (ImageData, "labels"), (ImageData, "decoder")):
        whole = getattr(owner, name)

        def sealed(self, official, *more, whole=whole):
            assert official == "train", "the test split was read"
            return whole(self, official, *more)

        monkeypatch.setattr(owner, name, sealed)
    assert run_preview(*DIGITS, "augment=flip").facts["n"]["test"] == 500


# ---- the user's own pictures -----------------------------------------------------------------------------------------


def pictures(top: Path, *names: str, side: int = 12) -> Path:
    """Class folders of these names, with pictures of random colours."""
    random = np.random.default_rng(0)
    for name in names:
        (top / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(top / name / f"{number}.png")
    return top


def test_classes_of_any_name_are_drawn_and_counted(drawing, tmp_path):
    names = ["$x$", "%d", "[red]", "a[1]_b", "cat", "two words", "x" * 40, "{0}", "ünïcødé"]
    top = pictures(tmp_path / "pictures", *names)
    code, out, _ = drawing("data=imagefolder", f"data.root={top}")
    assert code == 0
    shown_names = [line.rsplit(maxsplit=2)[0].strip() for line in out.splitlines() if re.search(r" +\d+ +\d+ *$", line)]
    assert shown_names[: len(names)] == names


def test_a_class_whose_name_is_not_utf8_is_drawn(drawing, tmp_path):
    top = pictures(tmp_path / "pictures", os.fsdecode(b"A\xe9"), "other")
    assert drawing("data=imagefolder", f"data.root={top}")[0] == 0


def test_a_measured_mean_is_not_reported(tmp_path):
    top = pictures(tmp_path / "pictures", "a", "b", side=64)
    code, out, _, _ = preview("data=imagefolder", f"data.root={top}", "data.image_size=8")
    assert code == 0
    assert "these differ" not in out


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=mist"], "data=mist: no such data; did you mean mnist?"),
        (["augment=flop"], "augment=flop: no such augment; did you mean flip?"),
        (["augment=[flip,flop]"], "augment=[flip,flop]: no such augment; did you mean flip?"),
        (["data.train_size=5000"], "data.train_size=5000: the split has 4500 images"),
        (["nonsense"], "nonsense: expected key=value"),
        (["--out", "sheet"], "--out sheet: expected a name that ends in .png"),
        (["--out", "absent/sheet.png"], "--out absent/sheet.png: there is no folder absent"),
        (["--out", "sheet.xyz"], "--out sheet.xyz: "),
        (["--out", "folder.png"], "--out folder.png: "),
        (["--ouput", "x.png"], "--ouput"),
        (["data=imagefolder"], "data=imagefolder: which folder?"),
        (["data=imagefolder", "data.root=absent"], "no such folder"),
        (["augment=crop", "augment.crop.padding=-1"], "padding=-1: expected an integer at least 0"),
        (["model=resnet18", "data.image_size=4"], "data.image_size=4: "),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_sheet(drawing, tmp_path, arguments, message):
    (tmp_path / "folder.png").mkdir()
    code, out, err = drawing(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("cnnbench: ")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_an_augmentation_that_does_not_fit_the_net_is_one_line(drawing):
    code, out, err = drawing(*SMALL, "+augment.pad._target_=cnnbench.augment.crops.Pad")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "augment: its steps give images of 1×36×36 (C×H×W), the net takes 1×28×28" in err
