"""`cnnbench ops`: the documents' numbers, both speeds, the edges of an image, and errors in one line."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d
from torch import nn

import cnnbench.cli.ops as command_module
from cnnbench.__main__ import main
from cnnbench.cli.ops import SIDE, draw_edges, laplacian_edges, median_times, read_grey_image
from cnnbench.complexity import textbook_examples
from cnnbench.ops.convolution import output_size

LAPLACIAN = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]])
PNG = b"\x89PNG\r\n\x1a\n"


def quick_times(nets, *_) -> list[float]:
    return [0.002 * (1 + index) for index in range(len(nets))]


@pytest.fixture
def quick(monkeypatch):
    """Replaces the measured speeds by fixed ones."""
    monkeypatch.setattr(command_module, "median_times", quick_times)


@pytest.fixture
def few(monkeypatch, quick):
    """Computes one example only, with fixed speeds."""
    monkeypatch.setattr(textbook_examples, "worked_examples", lambda: {"sizes": [("an example", 5, output_size(7, 3))]})


@pytest.fixture
def undrawn(monkeypatch):
    """Draws no edges."""
    monkeypatch.setattr(command_module, "draw_edges", lambda *_: None)


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs `ops` with these arguments in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> tuple[int, str, str]:
        code = main(["ops", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@dataclass(frozen=True)
class Printed:
    """Exit code, output and folder of a command without arguments."""

    code: int
    out: str
    folder: Path


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> Printed:
    """`ops`, run once."""
    folder, out = tmp_path_factory.mktemp("ops"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(command_module, "median_times", quick_times)
        patch.chdir(folder)
        code = main(["ops"])
    return Printed(code, out.getvalue(), folder)


@pytest.fixture
def square(tmp_path) -> Path:
    """A white square, 20 pixels a side, in the middle of black."""
    pixels = np.zeros((48, 60), np.uint8)
    pixels[14:34, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "square.png")
    return tmp_path / "square.png"


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2 and one line, which holds these words."""
    code, _, error = result
    assert code == 2
    assert error.startswith("cnnbench: ")
    assert error.count("\n") == 1
    assert [word for word in words if word not in error] == []


# ---- the books' numbers -------------------------------------------------------------------------------------------


def test_the_exit_code_is_0_if_all_examples_are_as_in_the_book(printed):
    assert printed.code == 0


def test_every_example_is_as_in_the_book(printed):
    examples = printed.out.partition("\n\n")[0].splitlines()
    assert len([line for line in examples if line.startswith("  ")]) >= 31
    assert [line for line in examples if line.startswith("  ") and not line.endswith(", as in the book")] == []


DOCUMENTS = [
    "[[25, 31], [43, 49]]",
    "[2, 8, 8]",
    "[2, 4, 4]",
    "[1, 30, 30]",
    "[1, 32, 32]",
    "[1, 34, 34]",
    "[[20, 28], [44, 52]]",
    "[[6, 8], [14, 16]]",
    "[[3.5, 5.5], [11.5, 13.5]]",
    "[3]",
    "[1, 1, 4, 4]",
    "[2, 4]",
    "4.5",
    "75",
    "180",
    "11,520,000",
    "28,800",
    "1,025",
    "9",
    "27",
    "49",
    "168",
    "151,200",
    "[156, 2,416, 48,120, 10,164, 850]",
    "61,706",
    "[122,304, 241,600, 400, 48,120, 10,080, 840]",
    "423,344",
    "11,185,034",
    "35,529,728",
]


def test_the_documents_numbers_are_printed(printed):
    assert [value for value in DOCUMENTS if f"  {value}, as in the book\n" not in printed.out] == []


@pytest.mark.parametrize(("question", "value"), [("W 7, F 3, S 1, P 0", 5), ("W 7, F 3, S 2, P 0", 3)])
def test_the_documents_sizes_are_printed(printed, question, value):
    assert re.search(rf"^  {question} +{value}, as in the book$", printed.out, re.MULTILINE)


def test_an_example_with_another_value_is_printed_and_gives_exit_code_1(command, quick, undrawn, monkeypatch):
    examples = {
        "sizes": [("a wrong example", 42, [1.5, 2000])],
        "convolution": textbook_examples.worked_examples()["convolution"][:1],
    }
    monkeypatch.setattr(textbook_examples, "worked_examples", lambda: examples)
    code, out, error = command()
    assert (code, error) == (1, "")
    assert "  [1.5, 2,000], but the book has 42\n" in out
    assert out.count("as in the book") == 1


# ---- speeds -------------------------------------------------------------------------------------------------------


def test_the_speeds_of_both_nets_and_their_ratio_are_printed(printed):
    rows = {
        name: re.search(rf"^  {name}( +[\d.]+ (?:ms|×)){{3}}$", printed.out, re.MULTILINE)
        for name in ("by hand", "PyTorch's layers", "ratio")
    }
    assert [name for name, row in rows.items() if row is None] == []
    assert rows["by hand"][0].split()[2:] == ["2.00", "ms"] * 3
    assert rows["PyTorch's layers"][0].split()[2:] == ["4.00", "ms"] * 3
    assert rows["ratio"][0].split()[1:] == ["0.5", "×"] * 3


def test_the_logits_of_both_nets_are_printed_to_agree(printed):
    difference = re.search(r"largest difference of the logits, with the same weights: (\S+)", printed.out)
    assert float(difference[1]) < 1e-5


@pytest.mark.slow
def test_measured_times_are_printed(few, undrawn, command, monkeypatch):
    def measured(nets, batch, gradients, rounds):
        return median_times(nets, batch, gradients, rounds=3, warm_up=1)

    monkeypatch.setattr(command_module, "median_times", measured)
    code, out, _ = command()
    by_hand, theirs = (
        [float(number) for number in re.findall(r"([\d.]+) ms", line)]
        for line in out.splitlines()
        if line.startswith(("  by hand", "  PyTorch's layers"))
    )
    assert code == 0
    assert len(by_hand) == len(theirs) == 3
    assert 0 < by_hand[0] < by_hand[1]
    assert 0 < theirs[0] < theirs[1]


@pytest.mark.slow
def test_the_number_of_threads_is_restored(few, undrawn, command):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        command()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Timed(nn.Module):
    """Advances a clock by the given duration of each call."""

    def __init__(self, clock: list[float], turns: list[float]) -> None:
        super().__init__()
        self.clock, self.turns, self.weight = clock, iter(turns), nn.Parameter(torch.ones(()))
        self.recorded: list[bool] = []

    def forward(self, x):
        self.clock[0] += next(self.turns)
        output = x * self.weight
        self.recorded.append(output.requires_grad)
        return output


@pytest.mark.parametrize("gradients", [False, True])
def test_a_time_is_the_median_of_the_rounds_after_the_warm_up(monkeypatch, gradients):
    clock = [0.0]
    monkeypatch.setattr(command_module.time, "perf_counter", lambda: clock[0])
    nets = [Timed(clock, [100, 100, 1, 9, 2]), Timed(clock, [50, 50, 4, 4, 30])]
    assert median_times(nets, torch.ones(3), gradients, rounds=3, warm_up=2) == [2, 4]
    assert [net.recorded for net in nets] == [5 * [gradients]] * 2
    assert [net.weight.grad is not None for net in nets] == [gradients] * 2


# ---- edges --------------------------------------------------------------------------------------------------------


def test_edges_are_drawn_to_edges_png(printed):
    assert printed.out.endswith("edges by the Laplacian: edges.png\n")
    assert [path.name for path in printed.folder.iterdir()] == ["edges.png"]
    assert (printed.folder / "edges.png").read_bytes().startswith(PNG)
    with Image.open(printed.folder / "edges.png") as drawn:
        assert drawn.width > 1.5 * drawn.height > 450
        halves = np.hsplit(np.asarray(drawn.convert("L"), dtype=float), 2)
    assert min(half.std() for half in halves) > 10


def test_edges_of_a_given_image_are_drawn_to_the_given_file(few, command, square, tmp_path):
    code, out, error = command("--image", square, "--out", tmp_path / "mine.png")
    assert (code, error) == (0, "")
    assert out.endswith(f"edges by the Laplacian: {tmp_path / 'mine.png'}\n")
    assert (tmp_path / "mine.png").read_bytes().startswith(PNG)
    assert not (tmp_path / "edges.png").exists()


def test_the_drawing_shows_the_square_and_its_outline(few, square, tmp_path):
    draw_edges(read_grey_image(square), tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as drawn:
        left, right = np.hsplit(np.asarray(drawn.convert("L")), 2)
    row = left.shape[0] // 2
    assert left[row, left.shape[1] // 2] == 255  # the square
    assert np.unique(right[row, right.shape[1] // 2 - 20 : right.shape[1] // 2 + 20]).size == 1  # flat within
    assert right[row].max() == 255  # its outline
    assert right[row].min() == 0


def test_a_name_that_ends_in_svg_gives_an_svg(few, command, tmp_path):
    assert command("--out", "x.svg")[0] == 0
    assert "<svg" in (tmp_path / "x.svg").read_text(encoding="utf-8")


def test_edges_of_a_square_equal_scipys_laplacian(square):
    picture = read_grey_image(square)
    expected = convolve2d(np.asarray(picture, dtype=float), LAPLACIAN, mode="valid")
    assert np.array_equal(laplacian_edges(picture).numpy(), expected)


def test_edges_of_random_pixels_equal_scipys_laplacian():
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17), dtype=np.uint8)
    found = laplacian_edges(Image.fromarray(pixels)).numpy()
    assert np.array_equal(found, convolve2d(pixels.astype(float), LAPLACIAN, mode="valid"))


def test_edges_of_a_square_are_only_at_its_border(square):
    found = laplacian_edges(read_grey_image(square)).numpy()
    assert found.shape == (46, 58)  # one pixel less on each side
    border = np.zeros((48, 60), bool)
    border[13:35, 19:41] = True
    border[15:33, 21:39] = False
    assert np.array_equal(found != 0, border[1:-1, 1:-1])
    assert found[13, 25] == 3 * 255  # inside the upper side: three black neighbours
    assert found[12, 25] == -3 * 255  # outside of it: three white ones


@pytest.mark.parametrize(("size", "shrunk"), [((4 * SIDE, 2 * SIDE), (SIDE, SIDE // 2)), ((SIDE, 7), (SIDE, 7))])
def test_an_image_is_reduced_and_never_enlarged(tmp_path, size, shrunk):
    Image.new("L", size).save(tmp_path / "x.png")
    assert read_grey_image(tmp_path / "x.png").size == shrunk


def test_edges_of_3_by_3_pixels_are_one_number(tmp_path):
    Image.fromarray(np.diag([0, 10, 0]).astype(np.uint8)).save(tmp_path / "x.png")
    assert laplacian_edges(read_grey_image(tmp_path / "x.png")).tolist() == [[80]]


def test_a_picture_in_colour_is_read_in_grey(tmp_path):
    Image.new("RGB", (5, 5), (200, 100, 50)).save(tmp_path / "x.png")
    picture = read_grey_image(tmp_path / "x.png")
    assert picture.mode == "L"
    assert picture.getpixel((2, 2)) == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=1)  # ITU-R 601


def test_sixteen_bits_are_scaled_to_eight_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.abs(np.asarray(read_grey_image(tmp_path / "x.png"), dtype=float) - values / 257).max() <= 1


def test_a_photograph_is_rotated_by_its_exif(tmp_path):
    stored = np.arange(144, dtype=np.uint8).reshape(9, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(read_grey_image(tmp_path / "x.png"), np.rot90(stored, -1))


# ---- mistakes -----------------------------------------------------------------------------------------------------


def test_an_out_without_suffix_is_refused_before_anything_is_printed(command):
    result = command("--out", "x")
    assert_refused(result, "--out x: expected a name that ends in .png")
    assert result[1] == ""


@pytest.mark.parametrize("name", ["absent.png", "."])
def test_a_picture_that_is_absent_or_a_folder_is_refused(command, name):
    assert_refused(command("--image", name), f"{name}: no such picture")


@pytest.mark.parametrize("content", [b"not a picture\n" * 20, b""], ids=["text", "empty"])
def test_a_file_that_is_no_picture_is_refused(command, tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    result = command("--image", "x.png")
    assert_refused(result, "x.png: not a picture that can be read")
    assert result[1] == ""


@pytest.mark.parametrize(
    "content", [b"P5 is a paper", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0cIHDR" + bytes(40)], ids=["PGM", "PNG"]
)
def test_a_file_that_only_begins_as_a_picture_is_refused(command, tmp_path, content):
    (tmp_path / "odd.png").write_bytes(content)
    assert_refused(command("--image", "odd.png"), "odd.png: ")


def test_a_picture_that_was_cut_short_is_refused(command, square):
    square.write_bytes(square.read_bytes()[:-30])
    assert_refused(command("--image", square), f"{square}: ")


def test_a_picture_that_unpacks_to_more_than_memory_should_hold_is_refused(command, square, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert_refused(command("--image", square), f"{square}: ")


def test_warnings_of_an_image_decoder_are_hidden(few, undrawn, command, square, tmp_path):
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00"  # five entries in the header, none in the file: Pillow warns
    Image.open(square).save(tmp_path / "odd.jpg", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        code, _, error = command("--image", tmp_path / "odd.jpg")
    assert (code, error) == (0, "")
    assert [str(warning.message) for warning in caught if warning.category is UserWarning] == []


@pytest.mark.parametrize("size", [(2, 2), (2, 50), (50, 1)])
def test_an_image_smaller_than_the_kernel_is_refused(command, tmp_path, size):
    Image.new("L", size).save(tmp_path / "x.png")
    assert_refused(command("--image", "x.png"), f"x.png: {size[0]}×{size[1]} pixels, expected at least 3×3")


def test_an_image_that_is_too_narrow_after_reduction_is_refused_with_its_original_size(command, tmp_path):
    Image.new("L", (5000, 5)).save(tmp_path / "x.png")
    assert_refused(command("--image", "x.png"), "5000×5")


def test_an_out_in_a_missing_folder_is_refused_before_anything_is_done(command):
    assert_refused(command("--out", "absent/out.png"), "--out absent/out.png: there is no folder absent")


@pytest.mark.parametrize(
    ("name", "reason"), [("out.xyz", "expected a name that ends in"), ("folder.png", "cannot be written")]
)
def test_an_out_that_cannot_be_written_is_refused(few, command, tmp_path, name, reason):
    (tmp_path / "folder.png").mkdir()
    assert_refused(command("--out", name), f"--out {name}: {reason}")


@pytest.mark.parametrize("arguments", [["--nosuch"], ["x.png"], ["--image"]])
def test_unknown_arguments_are_refused(command, arguments):
    assert_refused(command(*arguments), "type cnnbench ops --help")


def test_help_lists_both_options(capsys):
    with pytest.raises(SystemExit):
        main(["ops", "--help"])
    assert {"--image", "--out"} <= set(re.split(r"[\s,]+", capsys.readouterr().out))
