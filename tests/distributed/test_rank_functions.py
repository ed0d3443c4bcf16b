"""Rank and world size from the environment, and collective operations of a single process."""

from __future__ import annotations

import os

import pytest
from pytorch_lightning.plugins.environments import SLURMEnvironment  # noqa: F401  # imports torchmetrics, which reads os.environ

from cnnbench.config.compose import compose
from cnnbench.distributed.ranks import (
    Ranks,
    all_gather,
    is_lost_connection,
    rank_and_world_size,
    require_world_size,
    set_torchrun_variables,
)
from cnnbench.errors import ConfigError

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "1"}
SRUN |= {"SLURM_JOB_ID": "12", "SLURM_NODELIST": "node[7-8]", "SLURM_STEP_NODELIST": "node[7-8]"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [*TORCHRUN, *SRUN, "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"]:
        monkeypatch.delenv(name, raising=False)


def setenv(monkeypatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (0, 1)),
        (TORCHRUN, (3, 4)),
        (SRUN, (1, 2)),
        ({**SRUN, **TORCHRUN}, (3, 4)),
        ({"RANK": "3"}, (0, 1)),
        ({"SLURM_JOB_ID": "12", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, (0, 1)),  # sbatch without srun
    ],
)
def test_rank_and_world_size_come_from_torchrun_else_srun(values, expected, monkeypatch):
    setenv(monkeypatch, values)
    assert rank_and_world_size() == expected


def test_sruns_variables_become_torchruns(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(SRUN))
    set_torchrun_variables()
    found = {name: value for name, value in os.environ.items() if name not in SRUN}
    assert 20000 <= int(found.pop("MASTER_PORT")) < 30000
    assert found == {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "GROUP_RANK": "1", "MASTER_ADDR": "node7"}


@pytest.mark.parametrize(
    ("keys", "size", "message"),
    [
        (
            "trainer.devices=1",
            2,
            "2 processes were started, trainer.devices × trainer.num_nodes is 1; type trainer.devices=2",
        ),
        (
            "trainer.num_nodes=2",
            4,
            "4 processes were started, trainer.devices × trainer.num_nodes is 2; type trainer.devices=2",
        ),
        ("trainer.num_nodes=2", 3, "3 .* type trainer.num_nodes=1 trainer.devices=3"),
        (
            "trainer.num_nodes=2",
            1,
            "trainer.num_nodes=2: start a process for each device of each machine, with srun or as in torchrun",
        ),
    ],
)
def test_another_number_of_processes_than_devices_is_refused(keys, size, message):
    config = compose(["trainer=cpu", *keys.split()])
    with pytest.raises(ConfigError, match=f"^{message}"):
        require_world_size(config, size)
    require_world_size(config, config.trainer.devices * config.trainer.num_nodes)


def test_collective_operations_of_one_process_return_its_own_values():
    ranks = Ranks()
    assert ranks.first
    assert ranks.all_reduce_max(2, True) == [2, 1]
    assert ranks.run_on_rank_zero(lambda: "result") == "result"
    assert all_gather("value") == ["value"]


def test_an_error_of_one_process_is_raised_as_it_is():
    with pytest.raises(ZeroDivisionError):
        Ranks().run_on_rank_zero(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("message", "lost"),
    [("Connection closed by peer [127.0.0.1]:1", True), ("Connection reset by peer", True), ("shape", False)],
)
def test_a_lost_connection_is_recognised_by_its_message(message, lost):
    assert is_lost_connection(RuntimeError(f"[gloo] {message}")) is lost
