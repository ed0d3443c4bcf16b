"""How many jobs at a time, and which GPU each sees: on machines that are made up."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.config.compose import compose
from cnnbench.sweep.slots import Slots, cores, slots_here, slots_of, visible

GIB = 2**30
MUCH = 1000 * GIB


def test_without_gpus_there_is_a_slot_for_each_core():
    assert slots_of("auto", 8, MUCH, (), wanted=100) == Slots(8, threads=1)


def test_a_job_needs_one_and_a_half_gib():
    assert slots_of("auto", 8, 5 * GIB, (), wanted=100) == Slots(3, threads=2)


def test_there_is_always_one_slot():
    assert slots_of("auto", 8, GIB // 2, (), wanted=100) == Slots(1, threads=8)


def test_there_are_no_more_slots_than_jobs_and_the_jobs_have_the_other_cores():
    assert slots_of("auto", 8, MUCH, (), wanted=2) == Slots(2, threads=4)


def test_what_is_asked_for_is_what_there_is():
    assert slots_of(5, 2, GIB, (), wanted=1) == Slots(5, threads=1)


def test_each_gpu_has_a_slot_however_little_memory_is_free():
    assert slots_of("auto", 16, GIB, ("0", "1"), wanted=100) == Slots(2, threads=8, gpus=("0", "1"))


def test_three_slots_on_two_gpus_share_the_first():
    assert slots_of(3, 16, MUCH, ("0", "1"), wanted=100).gpus == ("0", "1", "0")


def test_a_job_sees_the_gpu_of_its_slot():
    assert Slots(2, 8, ("3", "7")).environment([1]) == {"CUDA_VISIBLE_DEVICES": "7"}


def test_a_job_of_two_devices_sees_both_gpus():
    assert Slots(2, 8, ("3", "7")).environment([0, 1], devices=2) == {"CUDA_VISIBLE_DEVICES": "3,7"}


def test_a_job_of_two_devices_in_the_only_slot_sees_both_gpus():
    slots = slots_of(1, 16, MUCH, ("3", "7"), wanted=2)
    assert slots.environment([0], devices=2) == {"CUDA_VISIBLE_DEVICES": "3,7"}


def test_a_job_of_two_devices_in_slots_that_share_a_gpu_sees_two():
    slots = slots_of(3, 16, MUCH, ("3", "7"), wanted=100)
    assert slots.environment([0, 2], devices=2) == {"CUDA_VISIBLE_DEVICES": "3,7"}


def test_a_job_of_one_device_sees_one_gpu_however_many_there_are():
    assert slots_of(1, 16, MUCH, ("3", "7"), wanted=1).environment([0], devices=1) == {"CUDA_VISIBLE_DEVICES": "3"}


def test_a_job_on_the_cpu_is_told_nothing_of_gpus():
    assert Slots(2, 8).environment([0]) == {}


def test_all_gpus_are_visible_by_their_numbers(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible(3) == ("0", "1", "2")


def test_gpus_that_the_user_chose_keep_their_names(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8932f937")
    assert visible(2) == ("5", "GPU-8932f937")


def test_a_gpu_that_is_named_but_that_cuda_does_not_see_is_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,99")
    assert visible(1) == ("5",)


def test_the_cores_are_those_that_the_process_may_use():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no process to cores")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_jobs_on_the_cpu_get_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert slots_here("auto", [compose(["trainer=cpu"])] * 9).gpus == ()


def test_a_job_of_two_devices_wants_two_slots(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots_here("auto", [compose(["trainer.devices=2"])]).gpus == ("0", "1")


@given(
    asked=st.just("auto") | st.integers(1, 64),
    cores=st.integers(1, 256),
    memory=st.integers(0, 4000 * GIB),
    gpus=st.integers(0, 16).map(lambda count: tuple(map(str, range(count)))),
    wanted=st.integers(1, 600),
)
def test_slots_never_ask_for_more_threads_than_there_are_cores_and_load_gpus_evenly(asked, cores, memory, gpus, wanted):
    slots = slots_of(asked, cores, memory, gpus, wanted)
    assert slots.count >= 1
    assert slots.threads >= 1
    assert slots.count * slots.threads <= max(cores, slots.count)
    if asked != "auto":
        assert slots.count == asked
    if gpus:
        load = [slots.gpus.count(gpu) for gpu in gpus]
        assert sum(load) == slots.count
        assert max(load) - min(load) <= 1
