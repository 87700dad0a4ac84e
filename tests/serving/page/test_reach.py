"""The page without a mouse, without sight, on a phone, in the dark."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.serving.demo_service import DemoService
from tests.serving.page.conftest import PATIENCE_MS, listen, open_page, write

CONTROLS = ("button", "link", "textbox", "searchbox", "combobox", "spinbutton", "checkbox")


def test_all_goes_by_keyboard(page: Page, service: DemoService):
    service.pool.step_s = 0.3
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    page.keyboard.type("Without a mouse.")
    tab_to(page, "#size")
    page.keyboard.type("Small")
    tab_to(page, "#seconds")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("0.4")
    tab_to(page, "#create")
    page.keyboard.press("Enter")
    card = page.get_by_role("article", name="Without a mouse.")
    card.wait_for()
    tab_to(page, "article button")
    page.keyboard.press("Enter")
    expect(card.get_by_text("Cancelled", exact=True)).to_be_visible()
    expect(card).to_be_focused()
    tab_to(page, "article button:text('Delete')")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#confirm")).to_be_hidden()
    expect(card.get_by_role("button", name="Delete")).to_be_focused()


def test_the_focus_stays_when_a_job_starts(page: Page, service: DemoService):
    service.pool.step_s = 0.8
    first = service.create("Before it.")
    write(page, "Then this one.")
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="Then this one.")
    card.get_by_role("button", name="Cancel").focus()
    expect(card).to_have_attribute("data-status", "queued")
    service.service.store.ask_cancel(first)
    expect(card).to_have_attribute("data-status", "in_progress")
    expect(card.get_by_role("button", name="Cancel")).to_be_focused()


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus, which is then to be seen."""
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = page.locator("*:focus")
        if focused.count() and page.locator(selector).first.evaluate(
            "element => element === document.activeElement"
        ):
            width = focused.evaluate(
                "element => parseFloat(getComputedStyle(element).outlineWidth)"
            )
            assert width >= 2, f"{selector} does not show that it has the focus"
            return
    raise AssertionError(f"Tab does not reach {selector}")


def test_all_that_can_be_used_has_a_name(page: Page, service: DemoService):
    service.finish(service.create("A pier"), service.create("A broken one"))
    service.pool.step_s = 0.5
    service.create("Still at it")
    open_page(page, service)
    page.get_by_text("More", exact=True).click()
    page.get_by_role("article", name="Still at it").wait_for()
    nameless = [node for node in accessibility_tree(page) if not node["name"]]
    assert nameless == []
    assert len(accessibility_tree(page)) > 15
    page.get_by_role("button", name="A pier").click()
    page.locator("dialog video").wait_for()
    assert [node for node in accessibility_tree(page) if not node["name"]] == []


def accessibility_tree(page: Page) -> list[dict[str, Any]]:
    """What can be used, as Chromium tells a screen reader."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    roles = {*CONTROLS, "image", "img", "progressbar", "ProgressIndicator", "Video", "dialog"}
    return [
        {"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")}
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in roles
    ]


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_nothing_is_wider_than_the_window(
    browser: Browser, service: DemoService, complaints: list[str], width: int
):
    service.finish(service.create("Averylongword" * 30), service.create("A broken one"))
    context = browser.new_context(viewport={"width": width, "height": 640})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    listen(page, complaints)
    open_page(page, service)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Size").select_option("")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator(".tile").last.click()
    page.locator("dialog video").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#viewer").evaluate("box => box.scrollWidth <= box.clientWidth")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(page: Page, scheme: str):
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    pairs = [
        ("--text", "--back"),
        ("--text", "--card"),
        ("--soft", "--back"),
        ("--soft", "--card"),
        ("--soft", "--sunk"),
        ("--bad", "--back"),
        ("--bad", "--card"),
        ("--bad", "--sunk"),
        ("--text", "--tint"),
        ("--soft", "--tint"),
        ("--on-accent", "--accent"),
    ]
    style = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    weak = {
        (front, back): ratio
        for front, back in pairs
        if (ratio := contrast(page.evaluate(style, front), page.evaluate(style, back))) < 4.5
    }
    assert weak == {}


def contrast(one: str, other: str) -> float:
    """Ratio of two ``#rrggbb`` colours as of WCAG 2."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour.strip()[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_little_moves_for_those_who_asked_for_that(page: Page, service: DemoService):
    page.emulate_media(reduced_motion="reduce")
    service.pool.step_s = 0.5
    service.create("Still at it")
    open_page(page, service)
    progress = page.get_by_role("progressbar")
    expect(progress).to_be_visible()
    assert progress.evaluate("bar => getComputedStyle(bar).animationName") == "none"
