"""A real TensorBoard server on a sweep with failed jobs and on a resumed run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from cnnbench.config.compose import compose
from cnnbench.errors import Interrupted
from cnnbench.training.run import run
from nets import Signalled
from processes import wait_until
from sweeps import FAULTY, Sweep

STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
VARIED = ["+model.fault=fine,raises", "ema=0,0.9", "+model.hidden=8,16", "seed=0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    sweep = Sweep(folder, *FAULTY, *VARIED)
    assert sweep.wait() == 3  # some failed
    net = ["threads=1", "model=custom", "model._target_=nets.Signalled", "data=synthetic", "data.train_size=320"]
    again = [*net, "data.val_size=32", "data.test_size=32", "epochs=2", "log=full", f"runs_dir={folder / 'runs'}"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Signalled, "steps", 0)
        patched.setenv("NETS_STEP", "7")
        patched.setenv("NETS_SIGNAL", "SIGTERM")
        with pytest.raises(Interrupted):
            run(compose(again))
        patched.setenv("NETS_STEP", "0")
        run(compose([*again, "resume=auto"]))
    return folder / "runs"


@pytest.fixture(scope="module")
def address(runs, tmp_path_factory):
    """The address of the server."""
    output = tmp_path_factory.mktemp("tensorboard") / "output"
    command = [
        "-m",
        "tensorboard.main",
        "--logdir",
        str(runs),
        "--port",
        "0",
        "--host",
        "127.0.0.1",
        "--load_fast=false",
    ]
    with output.open("w") as file:
        process = subprocess.Popen([sys.executable, *command], stdout=file, stderr=file)
    try:
        found = wait_until(
            lambda: re.search(r"http://127\.0\.0\.1:\d+/", output.read_text()), "TensorBoard answers", 60
        )
        wait_until(lambda: len(groups(found[0])) == 9, "it has read all runs", 60)
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def request(address: str, what: str, **question) -> dict:
    answer = requests.post(f"{address}data/plugin/hparams/{what}", json={"experimentName": "", **question}, timeout=30)
    return answer.json()


def groups(address: str) -> list[dict]:
    """Returns the rows of the table of runs."""
    question = {"allowedStatuses": STATUSES, "colParams": [], "startIndex": 0, "sliceSize": 100}
    return request(address, "session_groups", **question).get("sessionGroups", [])


@pytest.mark.slow
def test_the_table_has_one_row_a_run(address, runs):
    names = {session["name"] for group in groups(address) for session in group["sessions"]}
    assert names == {str(path.parent.relative_to(runs)) for path in runs.glob("*/*/config.yaml")}


@pytest.mark.slow
def test_numeric_hyperparameters_are_numeric_columns(address):
    found = {info["name"]: info["type"] for info in request(address, "experiment")["hparamInfos"]}
    numbers = {"lr", "weight_decay", "batch_size", "epochs", "seed", "ema", "label_smoothing", "image_size"}
    assert {found[name] for name in numbers} == {"DATA_TYPE_FLOAT64"}
    assert {found[name] for name in ("model", "optimizer", "init")} == {"DATA_TYPE_STRING"}


@pytest.mark.slow
def test_only_finished_runs_have_final_metrics(address):
    for group in groups(address):
        tags = {metric["name"]["tag"] for metric in group.get("metricValues", [])}
        (session,) = group["sessions"]
        if "fault-raises" in session["name"]:
            assert not tags & {"test/acc", "test/loss"}
        else:
            assert {"best/val/acc", "test/acc", "test/loss"} <= tags
            assert session["status"] == "STATUS_SUCCESS"


@pytest.mark.slow
def test_swept_keys_are_columns_of_one_type(address):
    rows = [group["hparams"] for group in groups(address) if "fault-" in group["sessions"][0]["name"]]
    assert {(row["model.fault"], row["model.hidden"], row["ema"]) for row in rows} == {
        (fault, hidden, ema) for fault in ("fine", "raises") for hidden in (8, 16) for ema in (0, 0.9)
    }


@pytest.mark.slow
def test_there_are_no_other_runs_and_no_hp_metric(address, runs):
    shown = requests.get(f"{address}data/runs", timeout=30).json()
    assert len(shown) == len(list(runs.glob("*/*/config.yaml")))
    tags = requests.get(f"{address}data/plugin/scalars/tags", timeout=30).json()
    assert not any("hp_metric" in tag for of_run in tags.values() for tag in of_run)


@pytest.mark.slow
def test_a_resumed_run_has_each_epoch_once(address):
    tags = requests.get(f"{address}data/plugin/scalars/tags", timeout=30).json()
    (resumed,) = (name for name in tags if "fault-" not in name)
    for tag in ("train/loss", "gradient_norm/conv1.weight", "activation_rms/conv1"):
        question = {"run": resumed, "tag": tag}
        points = requests.get(f"{address}data/plugin/scalars/scalars", params=question, timeout=30).json()
        assert [step for _, step, _ in points] == [1, 2]


@pytest.mark.browser
def test_tensorboards_pages_show_table_curves_and_images(address):
    browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright from PyPI")
    chromium = shutil.which("chromium") or pytest.skip("needs chromium")
    with browsers.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        raised: list[str] = []
        page.on("pageerror", lambda error: raised.append(str(error)))
        for place, text in {
            "hparams": "test/acc",
            "custom_scalars": "train over validation",
            "images": "test/confusion_matrix",
        }.items():
            page.goto("about:blank")
            page.goto(f"{address}#{place}")
            page.get_by_text(text).first.wait_for(state="attached", timeout=30_000)
        browser.close()
    assert not raised
