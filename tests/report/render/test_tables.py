"""The tables of a report: which rows and columns they have, and how numbers are written."""

from __future__ import annotations

from cnnbench.report.analysis.claims import Verdict
from cnnbench.report.render import markdown, terminal
from cnnbench.report.render.tables import Row, Table, cells_table, claims_table, effects_table
from made_reviews import review_of

BASELINE = {"model": "a"}


def column(table: Table, name: str) -> list[str]:
    return [row.texts[table.columns.index(name)] for row in table.rows]


def two_models(**asked):
    return review_of([(BASELINE, [0.80, 0.82, 0.84]), ({"model": "b"}, [0.90, 0.93, 0.93])], baseline=BASELINE, **asked)


def test_a_setting_has_one_row_with_mean_and_difference_from_the_baseline():
    table = cells_table(two_models())
    assert column(table, "setting") == ["a", "b"]
    assert column(table, "mean") == ["0.8200", "★ 0.9200"]
    assert column(table, "difference") == ["", "+10.0"]


def test_a_failed_seed_shows_in_n():
    table = cells_table(review_of([(BASELINE, [0.5, None]), ({"model": "b"}, [0.5, 0.6])]))
    assert column(table, "n") == ["1/2", "2"]


def test_columns_of_numbers_sort_by_number_and_others_by_text():
    table = cells_table(two_models())
    for row in table.rows:
        assert len(row.texts) == len(row.sort) == len(table.columns)
        assert all(value is None or number in table.numbers for number, value in enumerate(row.sort))


def test_crossed_factors_have_a_row_per_variant_and_one_per_pair():
    cells = [
        ({"depth": depth, "norm": norm}, [0.5 + 0.1 * depth + 0.05 * (norm == "batch")] * 2)
        for depth in (1, 2)
        for norm in ("none", "batch")
    ]
    table = effects_table(review_of(cells, baseline={"depth": 1, "norm": "none"}))
    assert column(table, "factor") == ["depth", "norm", "both"]
    assert column(table, "difference")[:2] == ["+10.0", "+5.0"]
    assert table.columns[:3] == ["factor", "variant", "against"]
    assert table.rows[2].texts[1:3] == ["effect of depth 2 at norm batch", "effect of depth 2 at norm none"]


def test_a_claim_has_its_measured_value_and_verdict():
    verdict = Verdict("deeper is better", "above 0", "reproduced", 0.01234, (0.005, 0.02), 3)
    [row] = claims_table([verdict]).rows
    assert row.texts == ["deeper is better", "above 0", "0.0123", "0.0050 to 0.0200", "3", "reproduced"]


def test_empty_columns_are_left_out_of_text_tables():
    table = Table(["name", "empty", "value"], frozenset({2}), [Row(["x", "", "1"]), Row(["y", "", "2"])])
    assert markdown.table_text(table).splitlines() == ["| name | value |", "|---|--:|", "| x | 1 |", "| y | 2 |"]
    assert [str(column.header) for column in terminal.rich_table(table).columns] == ["name", "value"]
