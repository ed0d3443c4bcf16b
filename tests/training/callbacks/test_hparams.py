"""The hyperparameter columns of TensorBoard's table of runs."""

import json

import pytest
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from cnnbench.config.schema import Config
from cnnbench.training.callbacks.hparams import hparams_summaries

STRING, NUMBER = 1, 3  # DATA_TYPE_STRING, DATA_TYPE_FLOAT64


@pytest.fixture
def table(finished, tmp_path):
    """Returns the columns and values of the first job of a sweep with these settings."""

    def columns(*settings, directory="job0", **changes):
        jobs = [
            {"directory": f"job{number}", "identity": "", "setting": setting, "facts": {}}
            for number, setting in enumerate(settings)
        ]
        if settings:
            (tmp_path / "sweep.json").write_text(
                json.dumps({"schema": 1, "name": "swept", "keys": [], "fixed": {}, "jobs": jobs})
            )
        config = Config.load(finished.config).model_copy(update=changes)
        experiment, start, _ = (
            HParamsPluginData.FromString(summary.value[0].metadata.plugin_data.content)
            for summary in hparams_summaries(config, tmp_path / directory)
        )
        values = {
            key: value.number_value if value.HasField("number_value") else value.string_value
            for key, value in start.session_start_info.hparams.items()
        }
        return experiment.experiment, values

    return columns


def types(experiment) -> dict[str, int]:
    return {info.name: info.type for info in experiment.hparam_infos}


def first(experiment) -> set[str]:
    return {info.name for info in experiment.hparam_infos if info.differs}


def test_a_swept_key_is_numeric_if_every_job_has_a_number(table):
    experiment, values = table({"model.kernel_size": 3}, {"model.kernel_size": 5.5})
    assert types(experiment)["model.kernel_size"] == NUMBER
    assert values["model.kernel_size"] == 3


@pytest.mark.parametrize("other", [None, "same", True, [1, 2]])
def test_a_swept_key_is_a_string_column_if_a_job_has_no_number(table, other):
    experiment, values = table({"model.kernel_size": 3}, {"model.kernel_size": other})
    assert types(experiment)["model.kernel_size"] == STRING
    assert values["model.kernel_size"] == "3"


def test_a_key_that_only_other_jobs_set_has_the_jobs_value_from_its_config(table):
    experiment, values = table({"model": "lenet5"}, {"init_std": 0.5})
    assert values["init_std"] == "0.01"
    assert types(experiment)["init_std"] == STRING


def test_a_swept_key_that_every_run_has_is_one_column(table):
    alone, _ = table()
    swept, _ = table({"optimizer.lr": 0.1, "data.image_size": 28, "model": "lenet5", "seed": 0})
    assert types(swept) == types(alone)


def test_varying_columns_are_shown_first(table):
    experiment, _ = table({"optimizer.lr": 0.1, "model.kernel_size": 5}, {"optimizer.lr": 0.2, "model.kernel_size": 5})
    assert first(experiment) == {"lr", "model.kernel_size"}


def test_a_single_run_shows_model_data_optimizer_lr_and_seed_first(table):
    assert first(table()[0]) == {"model", "data", "optimizer", "lr", "seed"}


def test_a_run_outside_the_sweep_without_its_keys_has_the_common_columns(table):
    experiment, _ = table({"model.depth": 3}, directory="another")
    assert "model.depth" not in types(experiment)


def test_a_repetition_has_its_value_of_the_swept_keys(table):
    experiment, values = table({"init_std": 0.5}, {"init_std": 0.01}, directory="job0-2")
    assert types(experiment)["init_std"] == NUMBER
    assert values["init_std"] == 0.01


def test_if_a_job_averages_its_weights_all_have_ema_metrics(table):
    metrics = [{info.name.tag for info in table({"ema": ema}, {"ema": 0.9})[0].metric_infos} for ema in (0, 0.9)]
    assert metrics[0] == metrics[1] >= {"test/acc", "test/ema_acc", "test/ema_loss"}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"jobs": 1}', '{"jobs": [{}]}'])
def test_a_damaged_sweep_json_fails_no_run(table, tmp_path, content):
    (tmp_path / "sweep.json").write_text(content)
    assert types(table()[0]) == types(table(directory="elsewhere/job")[0])
