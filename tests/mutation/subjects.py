"""Which code is mutated and which tests belong to it; what has moved or been renamed since the mutants were drawn.

When code moves, edit `modules`, `names` and `tests`, and `RENAMED`; never `mutants.json`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """A part of the code.

    Attributes:
        modules: dotted names. A function that none of them has is looked for in all of `cnnbench`.
        tests: what pytest is given: files, or single tests of files that take long.
        names: of functions, `Class.method`s and constants; where there are none, all of the modules.
        left_out: names that only make the texts of messages.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


SUBJECTS = {
    "statistics": Subject(modules=("cnnbench.report.stats",), tests=("tests/report/test_stats.py",)),
    "splits": Subject(
        modules=("cnnbench.data.split",),
        tests=("tests/data/test_split.py", "tests/data/test_label_noise.py"),
        left_out=("_typed",),
    ),
    "schedules": Subject(modules=("cnnbench.schedulers",), tests=("tests/test_schedulers.py",)),
    "geometry": Subject(modules=("cnnbench.data.geometry",), tests=("tests/data/test_geometry.py",)),
    "ledger": Subject(
        modules=("cnnbench.sweep.ledger",),
        tests=(
            "tests/sweep/test_ledger.py",
            "tests/sweep/test_view.py",
            "tests/test_status.py",
            "tests/report/test_read.py",
            "tests/sweep/test_running.py::test_runs_dir_that_is_a_file_is_told_in_one_line",
        ),
    ),
    "identity": Subject(
        modules=("cnnbench.config", "cnnbench.notation", "cnnbench.rundir"),
        names=(
            "Keys.as_dict",
            "Config.as_dict",
            "Config.deciding",
            "Config.identity",
            "UNDECISIVE",
            "canonical",
            "_whole",
            "runs_of",
        ),
        tests=(
            "tests/test_config.py::test_what_decides_a_number_changes_the_identity",
            "tests/test_config.py::test_names_places_and_devices_leave_the_identity_alone",
            "tests/test_config.py::test_how_a_value_was_chosen_is_no_part_of_the_identity",
            "tests/test_config.py::test_the_identity_is_the_hash_of_the_config_without_those_keys",
            "tests/test_rundir.py",
            "tests/test_layout.py::test_the_order_is_no_part_of_a_runs_identity",
            "tests/data/test_augment_choices.py::test_steps_in_another_order_are_another_run",
            "tests/sweep/test_planning.py::test_threads_that_vary_belong_to_the_identity",
            "tests/report/test_odd_folders.py::test_a_baseline_typed_as_1_is_the_cell_of_1_point_0",
            "tests/report/test_odd_folders.py::test_cells_typed_as_1_and_as_1_point_0_are_one_cell_in_a_comparison",
            "tests/report/test_odd_folders.py::test_a_claim_about_1_is_about_1_point_0",
        ),
    ),
}

# By subject: old -> new. A key is the old name of a function, method or constant (`Class.method`), an identifier in the
# text of a mutated node, or the whole text of one.
RENAMED: dict[str, dict[str, str]] = {}
