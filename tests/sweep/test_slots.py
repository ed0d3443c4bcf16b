"""The number of slots, their threads and their GPUs, on invented machines."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.config.compose import compose
from cnnbench.runs.environment import usable_cores
from cnnbench.sweep.slots import Slots, allocate_slots, slots_on_this_machine, visible_gpus

GIB = 2**30
MUCH = 1000 * GIB


@pytest.mark.parametrize(
    ("requested", "cores", "memory", "devices", "slots"),
    [
        pytest.param("auto", 8, MUCH, 100, Slots(8, threads=1), id="one slot per core"),
        pytest.param("auto", 8, 5 * GIB, 100, Slots(3, threads=2), id="a job needs 1.5 GiB"),
        pytest.param("auto", 8, GIB // 2, 100, Slots(1, threads=8), id="at least one slot"),
        pytest.param(
            "auto", 8, MUCH, 2, Slots(2, threads=4), id="no more slots than jobs, which share the other cores"
        ),
        pytest.param(5, 2, GIB, 1, Slots(5, threads=1), id="as requested"),
    ],
)
def test_slots_without_gpus(requested, cores, memory, devices, slots):
    assert allocate_slots(requested, cores, memory, (), devices) == slots


def test_each_gpu_has_a_slot_even_with_little_memory():
    assert allocate_slots("auto", 16, GIB, ("0", "1"), devices=100) == Slots(2, threads=8, gpus=("0", "1"))


def test_three_slots_on_two_gpus_share_the_first_gpu():
    assert allocate_slots(3, 16, MUCH, ("0", "1"), devices=100).gpus == ("0", "1", "0")


def test_a_job_sees_the_gpu_of_its_slot():
    assert Slots(2, 8, ("3", "7")).environment([1]) == {"CUDA_VISIBLE_DEVICES": "7"}


@pytest.mark.parametrize(
    ("slots", "taken"),
    [(2, [0, 1]), (1, [0]), (3, [0, 2])],
    ids=["a slot for each device", "in the only slot", "in two slots of the same gpu"],
)
def test_a_job_of_two_devices_sees_two_gpus(slots, taken):
    allocated = allocate_slots(slots, 16, MUCH, ("3", "7"), devices=100)
    assert allocated.environment(taken, devices=2) == {"CUDA_VISIBLE_DEVICES": "3,7"}


def test_a_job_of_one_device_sees_one_gpu_of_several():
    assert allocate_slots(1, 16, MUCH, ("3", "7"), devices=1).environment([0], devices=1) == {
        "CUDA_VISIBLE_DEVICES": "3"
    }


def test_a_job_on_the_cpu_has_no_gpu_variable():
    assert Slots(2, 8).environment([0]) == {}


def test_gpus_are_named_by_their_numbers(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(3) == ("0", "1", "2")


def test_gpus_chosen_by_the_user_keep_their_names(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8932f937")
    assert visible_gpus(2) == ("5", "GPU-8932f937")


def test_a_named_gpu_that_cuda_does_not_see_is_left_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,99")
    assert visible_gpus(1) == ("5",)


def test_usable_cores_are_those_that_the_process_is_bound_to():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no process to cores")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_jobs_on_the_cpu_get_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert slots_on_this_machine("auto", [compose(["trainer=cpu"])] * 9).gpus == ()


def test_a_job_of_two_devices_needs_two_slots(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots_on_this_machine("auto", [compose(["trainer.devices=2"])]).gpus == ("0", "1")


@given(
    requested=st.just("auto") | st.integers(1, 64),
    cores=st.integers(1, 256),
    memory=st.integers(0, 4000 * GIB),
    gpus=st.integers(0, 16).map(lambda count: tuple(map(str, range(count)))),
    devices=st.integers(1, 600),
)
def test_slots_use_no_more_threads_than_cores_and_load_gpus_evenly(requested, cores, memory, gpus, devices):
    slots = allocate_slots(requested, cores, memory, gpus, devices)
    assert slots.count >= 1
    assert slots.threads >= 1
    assert slots.count * slots.threads <= max(cores, slots.count)
    if requested != "auto":
        assert slots.count == requested
    if gpus:
        load = [slots.gpus.count(gpu) for gpu in gpus]
        assert sum(load) == slots.count
        assert max(load) - min(load) <= 1
