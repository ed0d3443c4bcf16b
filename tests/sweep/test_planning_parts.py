"""Plans of one part of a sweep: which jobs it has, which run, and what other parts see."""

from __future__ import annotations

import os

import pytest
from rich.console import Console

from cnnbench.errors import ConfigError
from cnnbench.sweep.launcher import freeze_to_disk
from cnnbench.sweep.run import run_sweep
from sweeping import plan, write_run

pytestmark = pytest.mark.usefixtures("in_this_process")


TWICE = ("seed=0,1,2", "model=lenet5,simplecnn")


def test_two_parts_list_the_same_jobs_and_each_job_is_due_in_one():
    whole, *parts = plan(*TWICE), plan(*TWICE, "sweep.part=1/2"), plan(*TWICE, "sweep.part=2/2")
    for part in parts:
        assert [each.job for each in part.jobs] == [each.job for each in whole.jobs]
        assert part.request.fixed == whole.request.fixed
        assert (part.request.name, part.record.keys, part.due) == (whole.request.name, whole.record.keys, part.own)
    due = [[each.job.name for each in part.due] for part in parts]
    assert sorted(due[0] + due[1]) == sorted(each.job.name for each in whole.jobs)
    assert [len(names) for names in due] == [3, 3]


def test_a_part_does_not_depend_on_what_is_done():
    first = plan(*TWICE, "sweep.part=1/2")
    freeze_to_disk(first, "typed")
    write_run(first.due[0], "done")
    again = plan(*TWICE, "sweep.part=1/2")
    assert [each.job for each in again.own] == [each.job for each in first.own]
    assert [each.job for each in again.due] == [each.job for each in first.due[1:]]


def test_only_the_jobs_of_a_part_get_a_directory_and_sweep_json_lists_all():
    made = freeze_to_disk(plan(*TWICE, "sweep.part=2/2"), "typed")
    record = made.sweep.read()
    assert (record.part, len(record.jobs)) == ("2/2", 6)
    assert {path.name for path in made.sweep.path.iterdir() if path.is_dir()} == {each.job.name for each in made.due}


def test_another_part_or_the_whole_sweep_may_be_typed_on_the_same_folder():
    first = freeze_to_disk(plan(*TWICE, "sweep.part=1/2"), "typed")
    for each in first.due:
        write_run(each, "done")
    assert not {each.job.name for each in plan(*TWICE, "sweep.part=2/2").due} & {each.job.name for each in first.due}
    whole = plan(*TWICE)
    assert (len(whole.due), whole.record.part) == (3, None)


def test_failed_and_stale_jobs_of_other_parts_are_neither_named_nor_refused():
    whole = freeze_to_disk(plan(*TWICE), "typed")
    for each in plan(*TWICE, "sweep.part=2/2").due:
        write_run(each, "failed")
    for each in [each for each in whole.jobs if each.job.status().state == "pending"]:
        write_run(each, "done", code="another")
    first, second = (plan(*TWICE, f"sweep.part={part}", "sweep.retry=failed") for part in ("1/2", "2/2"))
    assert (len(first.due), len(second.due)) == (0, 3)
    assert not any("failed" in note for note in first.notes)
    assert plan(*TWICE, "sweep.part=2/2", "sweep.stale=refuse").notes


def test_a_live_folder_names_another_one_for_the_part():
    made = plan(*TWICE, "sweep.part=2/2")
    with made.sweep.lock(), pytest.raises(ConfigError) as raised:
        run_sweep(made, "typed", Console(quiet=True))
    advice = "; type another runs_dir=... for sweep.part=2/2, and join both folders with merge"
    assert f"this sweep is live (pid {os.getpid()} on " in str(raised.value)
    assert str(raised.value).endswith(advice)


def test_the_slots_are_those_of_the_part():
    assert plan("seed=0,1", "sweep.part=1/2", "sweep.slots=auto").slots.count == 1
