import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, log_loss

from cnnbench.__main__ import main
from cnnbench.config.compose import compose, conf_dir
from cnnbench.runs.run_dir import RunDir
from cnnbench.training.run import run


def scores(capsys, *arguments) -> dict:
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_test_score_is_the_results(finished, capsys):
    found = scores(capsys, finished.path)
    result = json.loads(finished.result.read_text())
    assert (found["acc"], found["n"], found["split"]) == (result["metrics"]["test/acc"], 500, "test")
    assert found["loss"] == pytest.approx(result["metrics"]["test/loss"], abs=1e-7)
    low, high = found["interval"]
    assert low < found["acc"] < high


def test_the_validation_score_is_the_results(finished, capsys):
    found = scores(capsys, finished.path, "--split", "val")
    result = json.loads(finished.result.read_text())
    assert found["acc"] == result["metrics"]["best/val/acc"]
    assert found["loss"] == pytest.approx(result["metrics"]["best/val/loss"], abs=1e-7)


def test_the_train_split_can_be_scored(finished, capsys):
    assert scores(capsys, finished.path, "--split", "train")["n"] == 800


def test_metrics_are_those_of_another_library(finished, capsys):
    found, saved = scores(capsys, finished.path), np.load(finished.predictions)
    probabilities = np.exp(saved["logits"].astype(float))
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = confusion_matrix(saved["targets"], saved["logits"].argmax(1))
    assert found["confusion"] == expected.tolist()
    assert found["per_class"] == pytest.approx((expected.diagonal() / expected.sum(1)).tolist())
    assert found["loss"] == pytest.approx(log_loss(saved["targets"], probabilities), abs=1e-6)
    assert found["ece"] == pytest.approx(calibration_error(probabilities, saved["targets"]), abs=1e-6)


def calibration_error(probabilities: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """Guo et al. 2017, equation 3."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == targets
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    return sum(abs(right[at == b].mean() - confidence[at == b].mean()) * (at == b).mean() for b in set(at))


def test_another_data_set_of_the_same_shape_is_prepared_as_the_runs_own(finished, capsys, real_data):
    found = scores(capsys, finished.path, "data=mnist", f"data.root={real_data}", "data.test_size=300")
    assert (found["data"], found["n"]) == ("mnist", 300)
    assert found["acc"] > 0.6  # digits as well: far from chance


def test_a_key_of_the_runs_own_data_can_be_changed(finished, capsys):
    found = scores(capsys, finished.path, "data.test_size=100")
    saved = np.load(finished.predictions)
    assert found["acc"] == (saved["logits"].argmax(1) == saved["targets"])[:100].mean()


def test_a_class_without_images_has_no_accuracy(finished, capsys):
    found = scores(capsys, finished.path, "data.test_size=50")  # the first fifty are zeros
    assert found["per_class"][1:] == [None] * 9


def test_the_screen_shows_the_score_and_every_class(finished, capsys):
    assert main(["evaluate", str(finished.path)]) == 0
    text = capsys.readouterr().out
    assert f"accuracy {json.loads(finished.result.read_text())['metrics']['test/acc']:.4f} (95 % interval" in text
    assert text.count("\n") >= 10 + 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["data=synthetic", "data.num_classes=3"],
            "data=synthetic: has 1 channels and 3 classes, this net takes 1 and 10",
        ),
        (["data=synthetic", "data.channels=3"], "has 3 channels and 10 classes, this net takes 1 and 10"),
        (["epochs=3"], "epochs=3: evaluate takes data=NAME and data.key=value; every other key is the run's"),
        (["--split", "tset"], "invalid choice: 'tset'"),
        (["data=mist"], "data=mist: no such data; did you mean mnist?"),
        (["data.test_size=501"], "data.test_size=501: the split has 500 images; type at most 500"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(finished, capsys, arguments, message):
    assert main(["evaluate", str(finished.path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_without_weights_is_refused(copied: RunDir, capsys):
    copied.best.unlink()
    assert main(["evaluate", str(copied.path)]) == 2
    assert "best.ckpt: absent; the run has not validated yet" in capsys.readouterr().err


def times(directory: RunDir) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.path.rglob("*") if path != directory.test_reads}


def test_evaluate_changes_no_file_but_test_reads(copied: RunDir, capsys):
    before = times(copied)
    scores(capsys, copied.path)
    assert times(copied) == before


def test_each_reading_of_the_test_split_is_counted_and_no_other(copied: RunDir, capsys):
    copied.test_reads.unlink(missing_ok=True)
    scores(capsys, copied.path)
    scores(capsys, copied.path, "--split", "val")
    scores(capsys, copied.path, "--split", "test")
    assert len(copied.test_reads.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("split", "key", "was"),
    [
        ("val", "data.split_seed=3", "0"),
        ("val", "data.val_size=[0,100]", "null"),
        ("val", "data.train_size=100", "null"),
    ],
)
def test_keys_that_move_trained_images_into_the_scored_split_are_refused(finished, capsys, split, key, was):
    assert main(["evaluate", str(finished.path), "--split", split, key]) == 2
    error = capsys.readouterr().err
    assert f"cnnbench: {key}: moves images that this run was trained on into its val split" in error
    assert error.endswith(f"the run's is {key.partition('=')[0]}={was}\n")


@pytest.mark.slow
def test_another_test_split_of_a_folder_is_refused(tmp_path, capsys):
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "top" / label).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "top" / label / f"{number}.png")
    keys = [
        "data=imagefolder",
        f"data.root={tmp_path / 'top'}",
        f"runs_dir={tmp_path / 'runs'}",
        "epochs=1",
        "threads=1",
    ]
    directory = run(compose(keys)).directory
    assert main(["evaluate", str(directory.path), "data.test_share=0.5"]) == 2
    assert (
        "data.test_share=0.5: moves images that this run was trained on into its test split" in capsys.readouterr().err
    )
    assert main(["evaluate", str(directory.path), "data.test_size=2"]) == 0
    (tmp_path / "top" / "cat" / "new.png").write_bytes((tmp_path / "top" / "cat" / "0.png").read_bytes())
    assert main(["evaluate", str(directory.path)]) == 2
    assert "differ from those that this run was trained on" in capsys.readouterr().err


def test_an_image_size_that_the_net_does_not_take_is_one_line(finished, capsys):
    assert main(["evaluate", str(finished.path), "data.image_size=64"]) == 2
    assert re.fullmatch(
        r"cnnbench: data\.image_size=64: this net does not take such images [^\n]*\n", capsys.readouterr().err
    )


def test_a_set_of_a_users_conf_folder_can_be_scored(finished, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    text = (conf_dir() / "data" / "mnist5k.yaml").read_text().replace("mnist5k:", "mine:")
    (tmp_path / "data" / "mine.yaml").write_text(text)
    assert main(["evaluate", str(finished.path), "data=mine", "--config-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 500
