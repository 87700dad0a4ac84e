"""What the service refuses is shown where it belongs."""

import re

import httpx
from playwright.sync_api import Page, expect

from tests.serving.demo_service import DemoService
from tests.serving.page.conftest import open_page, write


def test_an_error_of_the_service_is_shown_at_its_field(page: Page):
    write(page, "Too long.", seconds="90000")
    page.get_by_role("button", name="Create").click()
    seconds = page.get_by_label("Seconds")
    expect(seconds).to_have_attribute("aria-invalid", "true")
    expect(seconds).to_be_focused()
    expect(page.locator("#seconds-error")).to_contain_text("86400")
    seconds.fill("1")
    expect(page.locator("#seconds-error")).to_be_hidden()


def test_a_size_that_does_not_fit_is_shown_at_its_field(page: Page):
    write(page, "Crooked.")
    page.get_by_label("Size").select_option("")
    page.get_by_label("Width").fill("100")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#width-error")).to_contain_text("100")


def test_an_adapter_that_is_gone_is_shown_at_its_field(page: Page, service: DemoService):
    models = {"data": [{"id": "rayreel"}, {"id": "film-grain", "parent": "rayreel"}]}
    page.route("**/v1/models", lambda route: route.fulfill(json=models))
    open_page(page, service)
    write(page, "Grainy.")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Adapter").select_option("film-grain")
    page.get_by_text("More", exact=True).click()
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#adapter-error")).to_contain_text("film-grain")


def test_what_is_missing_is_said_before_anything_is_sent(page: Page, service: DemoService):
    page.get_by_label("Seed").fill("a lot")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#prompt-error")).to_have_text("Say what the clip shows.")
    expect(page.locator("#seed-error")).to_have_text("Expected a whole number, or nothing.")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    assert service.made() == []


def test_a_full_queue_says_when_to_try_again(page: Page, service: DemoService):
    service.pool.step_s = 1.0
    for number in range(10):
        body = {"prompt": f"Number {number}", "size": "128x128", "num_frames": 9}
        if httpx.post(f"{service.url}/v1/videos", json=body).status_code == 429:
            break
    write(page, "One too many.")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_have_text(re.compile(r"Try again in \d+ s\.$"))
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("One too many.")


def test_a_lost_answer_and_another_try_make_one_job(
    page: Page, service: DemoService, complaints: list[str]
):
    def lose(route):
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch().status)
            route.abort()
        else:
            route.continue_()

    lost: list[int] = []
    page.route("**/v1/videos", lose)
    write(page, "Only once.")
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("article", name="Only once.").wait_for()
    assert lost == [200]
    assert complaints.pop() == "Failed to load resource: net::ERR_FAILED"
    assert [job.request.prompt for job in service.made()] == ["Only once."]


def test_a_prompt_with_html_in_it_stays_text(page: Page, service: DemoService):
    page.evaluate("window.stung = 0")
    prompt = "<img src=x onerror='stung=1'><script>stung=1</script><b>bold</b>"
    write(page, prompt)
    page.get_by_role("button", name="Create").click()
    card = page.locator("article").first
    expect(card.locator(".prompt")).to_have_text(prompt)
    card.locator("video").wait_for()
    card.get_by_role("button", name="Put away").click()
    tile = page.locator(".tile").first
    expect(tile).to_contain_text(prompt)
    tile.click()
    expect(page.get_by_role("dialog").locator(".prompt")).to_have_text(prompt)
    assert page.evaluate("window.stung") == 0
    assert page.locator("b, script:not([src])").count() == 0
