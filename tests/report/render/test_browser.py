"""The report page in Chromium: no errors, no requests; sorting, hiding, choosing, copying; names are shown as text."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import made_sweeps as made
from cnnbench.__main__ import main

CHROMIUM = Path("/usr/bin/chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}"),
]
HOSTILE = """<script>document.title='broken'</script><img src=x onerror="document.title='broken'">"'&amp;é★"""
MODELS = ("plain", HOSTILE, "résnet")
TARGETS = [0, 1, 2, 0, 1, 2, 0, 1]
PREDICTED = {"plain": [0, 1, 2, 0, 0, 0, 0, 0], HOSTILE: [1, 1, 2, 0, 1, 0, 0, 0], "résnet": [0, 0, 2, 0, 1, 2, 0, 0]}
ACCURACY = {"plain": 0.5, HOSTILE: 0.75, "résnet": 0.625}


def outcome(model, seed):
    return {
        "accuracy": ACCURACY[model] + 0.01 * seed, "logits": made.logits_for(PREDICTED[model], 3), "targets": TARGETS,
        "epochs": made.epochs([1.0, 0.5 + 0.1 * seed], [0.3, 0.6]),
        "images": {at: np.full((8, 8, 1), 30 * at, np.uint8) for at in range(8)},
        "result": {"params": 1000 * (1 + len(model)), "classes": ["cat", HOSTILE, "dog"]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    cells = [({"model": model}, {seed: outcome(model, seed) for seed in range(3)}) for model in MODELS]
    folder = made.sweep(
        tmp_path_factory.mktemp("made") / "mine <b>", cells, question=HOSTILE, baseline={"model": "plain"}
    )
    assert main(["report", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser, folder, tmp_path_factory):
    """The page, copied alone to another folder, its console errors, its requests, its dialogs, its path."""
    alone = tmp_path_factory.mktemp("alone") / "report.html"
    shutil.copy(folder / "report.html", alone)
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    errors, asked, dialogs = [], [], []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(alone.as_uri())
    for place in page.query_selector_all("[data-plot]"):
        place.scroll_into_view_if_needed()
        page.wait_for_function("place => place.querySelector('.main-svg')", arg=place)
    return page, errors, asked, dialogs, alone


@pytest.fixture
def page(opened):
    return opened[0]


def column(page, table, number):
    return page.eval_on_selector_all(
        f"#{table} tbody tr", f"rows => rows.map(row => row.cells[{number}].textContent.trim())"
    )


def click_head(page, table, number):
    page.click(f"#{table} th:nth-child({number + 1}) button")


def settings_drawn(page, plot):
    """Labels on the vertical axis of the plot of cells, or how many traces another has."""
    return page.eval_on_selector(f'[data-plot="{plot}"]', "place => place.data.length")


# ---- errors ------------------------------------------------------------------------------------------------------------------


def test_every_plot_is_drawn(page):
    assert page.eval_on_selector_all("[data-plot]", "places => places.every(place => place.querySelector('.main-svg'))")


def test_names_are_shown_as_text(opened):
    page, _, _, dialogs, _ = opened
    assert page.title() == "mine <b>"
    assert page.inner_text("h1") == HOSTILE
    assert HOSTILE in column(page, "cells-table", 0)[1]
    assert page.query_selector_all("img[src='x'], [onerror]") == []
    assert dialogs == []


def test_plots_show_names_as_text(page):
    labels = page.eval_on_selector_all(
        '[data-plot="cells"] .ytick text', "ticks => ticks.map(tick => tick.textContent)"
    )
    assert any(label.startswith("<script>") for label in labels)


# ---- tables ------------------------------------------------------------------------------------------------------------------


def test_a_click_on_a_heading_sorts_by_number_and_a_second_one_reverses(page):
    click_head(page, "cells-table", 2)
    up = column(page, "cells-table", 2)
    click_head(page, "cells-table", 2)
    assert [text.split()[-1] for text in up] == ["0.5100", "0.6350", "0.7600"]
    assert column(page, "cells-table", 2) == up[::-1]
    assert page.get_attribute("#cells-table th:nth-child(3)", "aria-sort") == "descending"


def test_numbers_with_commas_sort_as_numbers(page):
    click_head(page, "cells-table", 8)
    found = [int(text.replace(",", "")) for text in column(page, "cells-table", 8)]
    assert found == sorted(found)


def test_empty_cells_stay_at_the_bottom_in_both_orders(page):
    for _ in range(2):
        click_head(page, "cells-table", 5)
        assert column(page, "cells-table", 5)[-1] == ""


# ---- curves ------------------------------------------------------------------------------------------------------------------


def test_a_click_in_the_legend_hides_a_setting_in_every_plot_and_a_second_one_shows_it(page):
    before = {plot: settings_drawn(page, plot) for plot in ("cells", "curve", "cost")}
    button = page.locator("[data-legend] button").nth(1)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert all(settings_drawn(page, plot) < before[plot] for plot in before)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert {plot: settings_drawn(page, plot) for plot in before} == before


def test_the_horizontal_axis_can_be_seconds(page):
    def across():
        return page.eval_on_selector('[data-plot="curve"]', "place => Array.from(place.data.at(-1).x)")

    assert across() == [1, 2]
    page.click('[data-axis="seconds"]')
    assert across() == [2, 4]
    assert page.get_attribute('[data-axis="epochs"]', "aria-pressed") == "false"
    page.click('[data-axis="epochs"]')


def test_single_runs_can_be_shown_with_their_names(page):
    before = settings_drawn(page, "curve")
    page.check("[data-single]")
    assert settings_drawn(page, "curve") == before + 9
    texts = page.eval_on_selector('[data-plot="curve"]', "place => place.data.flatMap(trace => trace.text ?? [])")
    assert any("plain_seed0_" in text and "epoch 2: 0.5" in text for text in texts)
    page.uncheck("[data-single]")


# ---- errors ------------------------------------------------------------------------------------------------------------------


def gallery(page, name):
    return page.eval_on_selector_all(f'[data-gallery="{name}"] figure', "tiles => tiles.map(tile => tile.title)")


def images(page, name):
    return sorted(int(title.split("\n")[0].split()[-1]) for title in gallery(page, name))


def wanted(ours, theirs):
    return [
        at
        for at, (one, other) in enumerate(zip(PREDICTED[ours], PREDICTED[theirs], strict=True))
        if one == TARGETS[at] != other
    ]


def test_the_gallery_follows_the_chosen_settings(page):
    for model in (HOSTILE, "résnet"):
        page.select_option('[data-setting="a"]', str(MODELS.index(model)))
        page.select_option('[data-setting="b"]', "0")
        assert images(page, "a") == wanted(model, "plain")
        assert images(page, "b") == wanted("plain", model)


def test_the_sentence_on_the_same_images_follows_the_choice(page):
    page.select_option('[data-setting="a"]', "2")
    page.select_option('[data-setting="b"]', "0")
    assert page.inner_text("[data-mcnemar]").startswith(
        "Of 8 images, 2 are correct in a larger share of runs with résnet, 1 with plain: "
    )
    page.select_option('[data-setting="b"]', "1")
    assert page.inner_text("[data-mcnemar]").endswith(" after Holm over all pairs.")


def test_an_image_shows_its_true_and_predicted_classes(page):
    page.select_option('[data-setting="a"]', "2")
    page.select_option('[data-setting="b"]', "0")
    (title,) = [title for title in gallery(page, "a") if title.startswith("test image 5\n")]
    assert title.split("\n")[1:] == ["true class dog", "résnet: dog, 100 % right", "plain: cat, 0 % right"]


def test_images_are_loaded(page):
    page.locator('[data-gallery="missed"]').scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('[data-gallery=missed] img')].every(image => image.naturalWidth === 8)"
    )
    assert images(page, "missed")[-1] == 7


# ---- the rest ----------------------------------------------------------------------------------------------------------------


def test_the_copy_button_puts_the_command_on_the_clipboard(page):
    button = page.locator("button.copy").first
    button.click()
    page.wait_for_function("document.querySelector('button.copy').textContent === 'copied'")
    command = button.get_attribute("data-copy")
    assert page.evaluate("navigator.clipboard.readText()") == command
    assert command.startswith("cnnbench ")


def test_dark_mode_redraws_the_plots(page):
    def ink():
        return page.eval_on_selector('[data-plot="cells"]', "place => place.layout.font.color")

    page.emulate_media(color_scheme="light")
    light = ink()
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "before => document.querySelector('[data-plot=cells]').layout.font.color !== before", arg=light
    )
    page.emulate_media(color_scheme="light")
    page.wait_for_function(
        "before => document.querySelector('[data-plot=cells]').layout.font.color === before", arg=light
    )


def test_a_phone_needs_no_sideways_scrolling(page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1200, "height": 900})


def test_no_console_errors_and_no_requests_occurred(opened):
    _, errors, asked, _, alone = opened
    assert errors == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [alone.as_uri()]
