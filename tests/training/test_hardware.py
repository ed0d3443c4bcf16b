"""Which accelerator, precision and place of the images a config gets on a machine, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cnnbench.config.compose import compose
from cnnbench.errors import ConfigError
from cnnbench.training.hardware import resolve_hardware, resolve_pipeline

GIB = 2**30


@pytest.fixture
def gpus(monkeypatch):
    """Makes PyTorch see a number of GPUs of 8 GiB."""

    def see(number: int, bf16: bool = True) -> None:
        properties = SimpleNamespace(total_memory=8 * GIB)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)

    return see


@pytest.mark.parametrize(
    ("number", "bf16", "accelerator", "precision", "deterministic"),
    [(0, False, "cpu", "32", True), (1, True, "gpu", "bf16", False), (1, False, "gpu", "16", False)],
)
def test_auto_takes_a_gpu_and_its_16_bit_format_and_is_deterministic_on_a_cpu(
    number, bf16, accelerator, precision, deterministic, gpus
):
    gpus(number, bf16)
    found = resolve_hardware(compose([]))
    expected = {"accelerator": accelerator, "precision": precision, "deterministic": deterministic}
    assert {key: found[key] for key in expected} == expected


def test_threads_are_shared_by_the_devices(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    threads = [resolve_hardware(compose(["trainer=cpu", f"trainer.devices={n}"]))["threads"] for n in (1, 2, 16)]
    assert threads == [8, 4, 1]
    assert resolve_hardware(compose(["trainer=cpu", "threads=3"]))["threads"] == 3


@pytest.mark.parametrize(
    ("number", "keys", "message"),
    [
        (0, "trainer=gpu", "trainer.accelerator=gpu: PyTorch .* sees no GPU; type trainer=cpu"),
        (1, "trainer.devices=2", "trainer.devices=2: PyTorch sees 1 GPU here; type trainer.devices=1, or trainer=cpu"),
        (2, "trainer.devices=4", "trainer.devices=4: PyTorch sees 2 GPUs here; type trainer.devices=2, or trainer=cpu"),
        (0, "trainer.sync_batchnorm=true", "trainer.sync_batchnorm=true: .* this run uses a CPU; type false"),
        (1, "trainer=cpu precision=16", "precision=16: half precision needs a GPU; on a CPU type precision=bf16 or"),
    ],
)
def test_hardware_that_the_machine_lacks_is_refused_with_what_to_type(number, keys, message, gpus):
    gpus(number)
    with pytest.raises(ConfigError, match=f"^{message}"):
        resolve_hardware(compose(keys.split()))


def data_of(size: int) -> SimpleNamespace:
    return SimpleNamespace(images={"train": SimpleNamespace(nbytes=size - 1), "val": SimpleNamespace(nbytes=1)})


@pytest.mark.parametrize(
    ("pipeline", "size", "expected", "reason"),
    [
        ("auto", 4 * GIB - 1, "device", "4,295 MB of images, half of the GPU's memory is 4,295 MB"),
        ("auto", 4 * GIB, "memory", "more than half of the GPU's memory; 4,295 MB of images"),
        ("device", 7 * GIB, "device", "7,516 MB of images"),
        ("memory", 1, "memory", "set by the user; 0 MB of images fit in"),
    ],
)
def test_images_are_kept_on_a_gpu_if_they_take_less_than_half_of_its_memory(pipeline, size, expected, reason, gpus):
    gpus(1)
    found = resolve_pipeline(compose([f"data.pipeline={pipeline}"]), data_of(size), "gpu")
    assert found[0] == expected
    assert found[1].startswith(reason)


def test_without_a_gpu_images_are_kept_in_memory_and_data_pipeline_device_is_refused():
    assert resolve_pipeline(compose([]), data_of(10**18), "cpu")[0] == "memory"
    assert "are read from the disk" in resolve_pipeline(compose([]), data_of(10**18), "cpu")[1]
    with pytest.raises(ConfigError, match=r"^data.pipeline=device: .* type data.pipeline=memory$"):
        resolve_pipeline(compose(["data.pipeline=device"]), data_of(1), "cpu")
