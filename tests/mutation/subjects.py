"""Which code is mutated and which tests belong to it; what has moved or been renamed since the mutants were drawn.

When code moves, edit `modules`, `names` and `tests`, `RENAMED` and `GONE`; never `mutants.json`.
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
    "statistics": Subject(
        modules=tuple(
            f"cnnbench.stats.{name}"
            for name in (
                "calibration_error", "checks", "estimates", "means", "multiple_comparisons", "pareto_front", "proportions",
                "same_images", "sample_size",
            )
        ),
        tests=("tests/stats",),
    ),
    "splits": Subject(
        modules=("cnnbench.data.splits",), tests=("tests/data/test_splits.py", "tests/data/test_label_noise.py")
    ),
    "schedules": Subject(
        modules=("cnnbench.training.schedulers", "cnnbench.checks"),
        tests=("tests/training/test_schedulers.py", "tests/training/test_every_schedule.py", "tests/test_checks.py"),
    ),
    "geometry": Subject(modules=("cnnbench.augment.functional",), tests=("tests/augment/test_functional.py",)),
    "ledger": Subject(
        modules=("cnnbench.runs.sweep_dir", "cnnbench.runs.schema"),
        tests=("tests/runs/test_sweep_dir.py", "tests/runs/test_json_schema.py", "tests/cli/test_status.py"),
    ),
    "identity": Subject(
        modules=("cnnbench.config.identity", "cnnbench.config.schema", "cnnbench.text", "cnnbench.runs.run_dir"),
        names=(
            "Keys.as_dict",
            "Config.as_dict",
            "Config.identity_values",
            "Config.identity",
            "_outside",
            "OUTSIDE_IDENTITY",
            "identity_hash",
            "_digest",
            "canonical_json",
            "_integral_floats_to_int",
            "runs_of_identity",
        ),
        tests=(
            "tests/test_text.py",
            "tests/config/test_identity.py",
            "tests/augment/test_choices.py::test_steps_in_another_order_are_another_run",
            "tests/runs/test_run_dir.py",
            "tests/report/load/test_odd_folders.py::test_a_claim_about_1_is_about_1_point_0",
        ),
    ),
}  # fmt: skip

# By subject: old -> new. A key is the old name of a function, method or constant (`Class.method`), an identifier in the
# text of a mutated node, or the whole text of one.
RENAMED: dict[str, dict[str, str]] = {
    "statistics": {
        "_numbers": "finite_numbers",
        "_require_share": "require_fraction",
        "_require_pairs": "require_pairs",
        "_finite": "finite_array",
        "_right": "correct_array",
        "_scale": "largest_magnitude",
        "_mean_and_error": "mean_and_error",
        "resampled": "bootstrap_counts",
        "own": "probability",
        "hit": "is_correct",
        "right": "correct",
    },
    "splits": {
        "take": "size_indices",
        "thinned": "keep_fraction",
        "_train_beside": "_first_outside",
        "_first": "_first_outside",
        "free[:count]": "free[:size]",
    },
    "schedules": {
        "_require": "require_number",
        "not isinstance(value, int | float)": "not isinstance(value, int if integer else int | float)",
    },
    "ledger": {
        "SweepDir.held": "SweepDir.lock",
        "SweepDir.beat": "SweepDir.write_launcher",
        "SweepDir._live": "SweepDir._live_error",
        "SweepDir.write": "Record.to_json",  # which writes the text of every JSON file
        "row": "summary_row",
        "as_cell": "csv_value",
        "as_csv": "summary_csv",
        "by_cell": "group_by_cell",
        "_late": "_changed",
        "json.loads(self.record.read_text(encoding='utf-8'))": "SweepRecord.model_validate_json(self.record.read_bytes())",
        "name in result['metrics']": "name in result.metrics",
    },
    "identity": {
        "Config.deciding": "Config.identity_values",
        "UNDECISIVE": "OUTSIDE_IDENTITY",
        "canonical": "canonical_json",
        "_whole": "_integral_floats_to_int",
        "runs_of": "hashed_runs",
    },
}

# By subject: mutants whose code no longer exists, each as (old function, text of the node) with the test that checks the behaviour
# now. A mutant that is found is run all the same.
_SHAPES = "The shapes are pydantic models; test_json_schema.py: "
_MARKS = "The keys are marked in the schema; test_identity.py: test_the_keys_outside_the_identity_are_these."
_MIDDLE = (
    "torchvision finds the middle; test_functional.py: "
    "test_center_crop_takes_the_middle_along_both_sides_for_all_small_sizes."
)
GONE: dict[str, dict[tuple[str, str], str]] = {
    "geometry": {
        ("center_crop", "images.shape[-2:]"): _MIDDLE,
        ("_middle", "have >= wanted"): _MIDDLE,
    },
    "ledger": {
        ("Job.result", "result.get('metrics')"): (
            "The check is in Result.parse; test_sweep_dir.py: test_a_result_that_cannot_be_read_is_none."
        ),
        ("RECORD", "'question'"): _SHAPES + "test_the_wrong_field_of_a_sweep_is_named.",
        (
            "CLAIM",
            "{'says': str, 'of': dict, 'over': dict | None, 'metric': str | None, 'above': float | int | None, "
            "'below': float | int | None}",
        ): _SHAPES + "test_the_wrong_field_of_a_sweep_is_named.",
        ("misshapen.wrong", "not isinstance(values, dict)"): _SHAPES + "test_the_wrong_field_of_a_sweep_is_named.",
        ("misshapen.wrong", "not isinstance(values.get(key), kind)"): (
            _SHAPES + "test_files_of_earlier_versions_load_and_are_written_with_the_same_fields."
        ),
        ("misshapen", "(part := wrong(record, RECORD))"): (
            _SHAPES + "test_files_of_earlier_versions_load_and_are_written_with_the_same_fields."
        ),
        ("SweepDir.write", "{'schema': SCHEMA, **record, 'jobs': listed}"): (
            "The schema is a required field of SweepRecord; test_sweep_dir.py: "
            "test_a_sweep_json_of_another_version_is_refused, test_jobs_are_read_as_they_were_written."
        ),
        ("SweepDir.write", "'schema'"): (
            "The schema is a required field of SweepRecord; test_json_schema.py: "
            "test_files_of_earlier_versions_load_and_are_written_with_the_same_fields."
        ),
        ("SweepDir.jobs", "'setting'"): (
            "The setting is a field of JobRecord; test_sweep_dir.py: test_jobs_are_read_as_they_were_written."
        ),
        ("row", "'metrics'"): (
            "The metrics are a field of Result; test_sweep_dir.py: test_the_row_of_a_finished_job_has_its_numbers."
        ),
        ("row", "'samples_per_s'"): (
            "The speed is a field of Result; test_sweep_dir.py: test_the_row_of_a_finished_job_has_its_numbers."
        ),
    },
    "identity": {
        (
            "UNDECISIVE",
            "('runs_dir', 'name', 'resume', 'log', 'choices', 'swept', 'threads', 'trainer.devices', 'trainer.num_nodes', "
            "'data.root', 'data.pipeline', 'trainer.checkpoint_every_s', 'trainer.cuda_graph', 'channels_last')",
        ): _MARKS,
        ("UNDECISIVE", "'channels_last'"): _MARKS,
        ("runs_of", "Config.load(path / 'config.yaml')"): (
            "RunDir.readable_config loads the file; test_run_dir.py: "
            "test_a_run_whose_name_has_the_hash_and_whose_config_another_identity_is_left_out."
        ),
    },
}
