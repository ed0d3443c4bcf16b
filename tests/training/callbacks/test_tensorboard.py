"""The event file of a run, read with TensorBoard's readers, as its pages do."""

import csv
import io
import json
import time

import pytest
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.distributed.ranks import Ranks
from cnnbench.distributed.signals import SignalHandler
from cnnbench.runs.load_net import load_checkpoint
from cnnbench.runs.status_and_log import Heartbeat
from cnnbench.training.callbacks.history import History
from cnnbench.training.callbacks.tensorboard import TensorBoardWriter
from cnnbench.training.run import run
from cnnbench.training.run_context import RunContext


def events_of(path) -> EventAccumulator:
    events = EventAccumulator(str(path))
    events.Reload()
    return events


@pytest.fixture(scope="module")
def events(finished):
    return events_of(finished.path)


@pytest.mark.slow
def test_points_equal_the_rows_of_metrics_csv(events, finished):
    with finished.metrics.open() as file:
        rows = list(csv.DictReader(file))
    for tag in ("train/loss", "train/acc", "val/loss", "val/acc", "lr", "samples_per_s"):
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in found] == [1, 2]
        assert [value for _, value in found] == pytest.approx([float(row[tag]) for row in rows], rel=1e-6)


def test_the_final_metrics_are_written_once(events, finished):
    for tag, value in json.loads(finished.result.read_text())["metrics"].items():
        assert [event.value for event in events.Scalars(tag)] == pytest.approx([value])


def test_there_are_no_other_scalars(events):
    assert set(events.Tags()["scalars"]) == set(
        "train/loss train/acc val/loss val/acc lr samples_per_s best/val/acc best/val/loss last/val/acc test/acc test/loss".split()
    )


def hyperparameters(events) -> tuple[dict, dict, list, str]:
    """Returns types, values, metrics and status as the hparams plugin reads them."""
    content = {tag: HParamsPluginData.FromString(data) for tag, data in events.PluginTagToContent("hparams").items()}
    experiment = content["_hparams_/experiment"].experiment
    types = {info.name: info.type for info in experiment.hparam_infos}
    values = {
        key: value.number_value or value.string_value
        for key, value in content["_hparams_/session_start_info"].session_start_info.hparams.items()
    }
    metrics = [info.name.tag for info in experiment.metric_infos]
    return types, values, metrics, content["_hparams_/session_end_info"].session_end_info.status


def test_hyperparameters_are_typed_and_final_metrics_are_their_columns(events):
    types, values, metrics, ended = hyperparameters(events)
    strings = {"model", "data", "augment", "optimizer", "scheduler", "recipe", "trainer", "experiment", "init"}
    numbers = {
        "lr",
        "weight_decay",
        "batch_size",
        "epochs",
        "image_size",
        "seed",
        "label_smoothing",
        "mixup",
        "cutmix",
        "ema",
    }
    assert types == {**dict.fromkeys(strings, 1), **dict.fromkeys(numbers, 3)}  # DATA_TYPE_STRING, DATA_TYPE_FLOAT64
    assert (values["model"], values["lr"], values["image_size"], values["init"]) == ("lenet5", 0.003, 32, "torch")
    assert set(metrics) == {"best/val/acc", "best/val/loss", "last/val/acc", "test/acc", "test/loss"}
    assert ended == 1  # STATUS_SUCCESS


def test_every_run_has_the_same_typed_hyperparameters(events, tiny, tmp_path):
    other = run(
        compose([*tiny, f"runs_dir={tmp_path}", "optimizer=sgd", "recipe=nndl_lenet", "model=simplecnn", "epochs=1"])
    )
    assert hyperparameters(events_of(other.directory.path))[0] == hyperparameters(events)[0]


def test_train_and_validation_share_a_chart(events):
    layout = Layout.FromString(
        tensor_util.make_ndarray(events.Tensors("custom_scalars__config__")[0].tensor_proto).item()
    )
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {"loss": ["train/loss", "val/loss"], "accuracy": ["train/acc", "val/acc"]}


def test_a_run_has_one_event_file_and_no_other_folder(finished):
    assert len(list(finished.path.parents[1].rglob("events.out.tfevents.*"))) == len(
        list(finished.path.parents[1].rglob("config.yaml"))
    )
    assert [path.name for path in finished.path.iterdir() if path.is_dir()] == ["checkpoints"]


@pytest.mark.slow
def test_log_full_adds_histograms_of_the_weights(tiny, tmp_path):
    outcome = run(compose([*tiny, f"runs_dir={tmp_path}", "log=full"]))
    histograms = events_of(outcome.directory.path).Tags()["histograms"]
    assert "weights/conv1.weight" in histograms
    assert len(histograms) == 10


def test_log_full_adds_the_graph(tiny, tmp_path):
    graph = events_of(run(compose([*tiny, f"runs_dir={tmp_path}", "log=full"])).directory.path).Graph()
    names = {node.name for node in graph.node}
    assert any("conv1" in name for name in names)


def test_a_net_that_cannot_be_traced_is_trained_without_a_graph(tiny, tmp_path):
    net = ["model=custom", "model._target_=nets.Linear"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("torch.jit.trace", refuses)
        outcome = run(compose([*tiny, *net, f"runs_dir={tmp_path}", "log=full"]))
    assert not events_of(outcome.directory.path).Tags()["graph"]
    assert "no graph in TensorBoard, this net cannot be traced: out of luck" in outcome.directory.log.read_text()


def refuses(*_, **__):
    raise RuntimeError("out of luck")


def test_the_images_of_a_tested_net_are_written(events, finished):
    assert set(events.Tags()["images"]) == {"test/confusion_matrix", "test/mistakes", "filters/conv1.weight"}
    for tag in events.Tags()["images"]:
        (event,) = events.Images(tag)
        with Image.open(io.BytesIO(event.encoded_image_string)) as image:
            assert (image.format, image.size) == ("PNG", (event.width, event.height))


def test_a_net_without_a_convolution_shows_no_filters(tiny, tmp_path):
    outcome = run(compose([*tiny, "model=custom", "model._target_=nets.Linear", f"runs_dir={tmp_path}"]))
    assert set(events_of(outcome.directory.path).Tags()["images"]) == {"test/confusion_matrix", "test/mistakes"}


def test_log_normal_has_neither_graph_nor_histograms(events):
    assert not events.Tags()["graph"]
    assert not events.Tags()["histograms"]


def test_a_resumed_runs_event_file_sorts_after_the_earlier_one(copied):
    for path in copied.path.glob("events.out.tfevents.*"):
        path.unlink()
    earlier = copied.path / f"events.out.tfevents.{int(time.time())}.zzz.999999.0"
    earlier.touch()
    config, console = Config.load(copied.config), Console(quiet=True)
    context = RunContext(config, copied, console, Ranks(), SignalHandler(lambda number: None), Heartbeat(copied))
    history = History(context)
    history.load_state_dict(load_checkpoint(copied.last)["callbacks"]["History"])
    writer = TensorBoardWriter(context, history)
    writer.on_fit_start(None, None)
    writer._writer.close()
    files = sorted(copied.path.glob("events.out.tfevents.*"))
    assert len(files) == 2
    assert files[0] == earlier
