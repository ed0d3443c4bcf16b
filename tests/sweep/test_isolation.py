"""Jobs of a sweep do not influence each other, and files edited while it runs do not change them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

from processes import wait_until
from sweeps import FAULTY, TINY, Sweep, metrics, swept

pytestmark = pytest.mark.slow

JOBS = 6


@pytest.fixture(scope="module", autouse=True)
def littering(tmp_path_factory):
    """Six jobs in one slot; each records the state of its process and then changes it. Other tests run meanwhile."""
    folder = tmp_path_factory.mktemp("littered")
    net = ["model=custom", "model._target_=sweep_nets.LitteringNet", f"+model.mark={','.join(map(str, range(JOBS)))}"]
    sweep = Sweep(folder, *TINY, *net, "sweep.slots=1", NETS_NOTES=str(folder / "notes"))
    yield sweep
    sweep.end()


# ---- edits while it runs ---------------------------------------------------------------------------------------------

NET = "_target_: sweep_nets.FaultyNet\nfault: waits_for_file\nhidden: 8\n"
HOSTILE = """
import pathlib
pathlib.Path({path!r}).write_text("run")
"""


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """While the first of four jobs runs, the user's YAML is edited and config.yaml of the last job is replaced."""
    folder = tmp_path_factory.mktemp("edited")
    model = folder / "conf" / "model" / "mine.yaml"
    model.parent.mkdir(parents=True)
    model.write_text(NET)
    arguments = [*TINY, "model=mine", "seed=0,1,2,3", "sweep.slots=1"]
    sweep = Sweep(folder, "--config-dir", "conf", *arguments, NETS_GATE=str(folder / "gate"))
    first, _, _, last = wait_until(lambda: sweep.directory.jobs(), "its jobs are known")
    wait_until(lambda: first.directory.status().epochs, "the first trains")
    model.write_text(NET.replace("8", "16"))
    (folder / "hostile.py").write_text(HOSTILE.format(path=str(folder / "was")))
    planted = yaml.safe_load(last.directory.config.read_text())
    planted["model"] = {"_target_": "hostile.Net"}
    last.directory.config.write_text(yaml.safe_dump(planted))
    (folder / "gate").touch()
    sweep.wait()
    sweep.assert_no_process_left()
    changed = Sweep(folder, "--config-dir", "conf", *arguments)
    changed.wait()
    model.write_text(NET)
    again = Sweep(folder, "--config-dir", "conf", *arguments, "sweep.retry=failed")
    again.wait()
    return SimpleNamespace(sweep=sweep, changed=changed, again=again, folder=folder)


def test_editing_a_yaml_during_the_sweep_changes_no_later_job(edited):
    first, second, third, _ = edited.sweep.runs().values()
    assert [json.loads(run.result.read_text())["params"] for run in (first, second, third)] == [170] * 3
    assert all(yaml.safe_load(run.config.read_text())["model"]["hidden"] == 8 for run in (first, second, third))


def test_a_replaced_config_of_a_pending_job_runs_no_foreign_code(edited):
    assert not (edited.folder / "was").exists()


def test_a_job_with_a_replaced_config_fails_also_when_it_is_retried(edited):
    for sweep in (edited.sweep, edited.again):
        assert sweep.code == 3
        assert list(sweep.states().values()) == ["done", "done", "done", "failed"]
        assert "this run was started with other data or on another machine" in sweep.out


def test_a_launch_with_an_edited_yaml_is_refused_in_one_line(edited):
    assert edited.changed.code == 2
    assert "holds another sweep (model.hidden: 8, now 16)" in edited.changed.err
    assert edited.changed.err.count("\n") == 1


# ---- one job after another -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def littered(littering):
    """The six jobs after their end, with their records."""
    assert littering.wait() == 0, littering.out
    littering.assert_no_process_left()
    notes = [json.loads(line) for line in (littering.folder / "notes").read_text().splitlines()]
    return SimpleNamespace(sweep=littering, notes=notes)


@pytest.mark.parametrize("what", ["dtype", "environment", "path", "folder", "module", "drawn", "recursion", "files"])
def test_process_state_changed_by_one_job_is_not_seen_by_the_next(what, littered):
    found = [note[what] for note in littered.notes]
    assert [note["mark"] for note in littered.notes] == list(range(JOBS))
    assert found == [found[0]] * JOBS


def test_memory_of_one_job_is_not_kept_by_the_next(littered):
    memory = [note["memory"] for note in littered.notes]
    assert max(memory) - min(memory) < 50 * 2**20  # each has allocated twice as much


def test_jobs_that_differ_only_in_name_have_equal_metrics(littered):
    first, *others = [metrics(run) for run in littered.sweep.runs().values()]
    assert others == [first] * (JOBS - 1)


# ---- ranks -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """A net without batch norm and dropout on one device and on two."""
    return swept(tmp_path_factory.mktemp("ranks"), *FAULTY, "trainer.devices=1,2", "seed=0,1", "sweep.slots=2")


def test_swept_devices_make_separate_jobs(ranks):
    assert ranks.states() == {f"devices{devices}_seed{seed}": "done" for devices in (1, 2) for seed in (0, 1)}
    for name, run in ranks.runs().items():
        assert json.loads(run.result.read_text())["devices"] == int(name[7])


def test_a_job_on_two_devices_writes_its_files_once(ranks):
    for run in ranks.runs().values():
        assert len(run.metrics.read_text().splitlines()) == 2  # a header, and one epoch
        assert len(list(run.path.glob("events.out.tfevents.*"))) == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_are_equal_across_devices(seed, ranks):
    one, two = (metrics(ranks.runs()[f"devices{devices}_seed{seed}"]) for devices in (1, 2))
    assert one.keys() == two.keys()
    assert two == pytest.approx(one, abs=1e-5)


def test_a_job_that_raises_on_its_second_rank_stops_no_other(launch):
    sweep = launch(*FAULTY, "trainer.devices=2", "+model.fault=fine,raises_on_rank1,well", "sweep.slots=2")
    assert sweep.wait() == 3
    sweep.assert_no_process_left()
    assert sweep.states() == {"fault-fine": "done", "fault-raises_on_rank1": "failed", "fault-well": "done"}
    bad = sweep.runs()["fault-raises_on_rank1"]
    assert bad.status().reason == "rank 1: RuntimeError: out of luck"
    assert 'raise RuntimeError("out of luck")' in (bad.path / "log_rank1.txt").read_text()
