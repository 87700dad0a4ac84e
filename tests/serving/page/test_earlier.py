"""Earlier jobs: pages of them, a filter, a search; and the key that they may need."""

from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect

from tests.serving.demo_service import DemoService, demo_service
from tests.serving.page.conftest import free_port, listen, open_page, until, write


def test_earlier_jobs_come_a_page_at_a_time(page: Page, service: DemoService):
    service.pool.step_s = 0.0
    names = [f"Number {number:02d}" for number in range(14)]
    for name in names:
        service.finish(service.create(name))
    open_page(page, service)
    tiles = page.locator(".tile .title")
    expect(tiles).to_have_text(names[:1:-1])
    page.get_by_role("button", name="Show more").click()
    expect(tiles).to_have_text(names[::-1])
    expect(page.locator(".tile").nth(12)).to_be_focused()
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_earlier_jobs_are_searched_and_filtered(page: Page, service: DemoService):
    service.finish(*(service.create(name) for name in ("A pier", "A broken pier", "A lake")))
    open_page(page, service)
    tiles = page.locator(".tile .title")
    page.get_by_label("Search prompts").fill("pier")
    expect(tiles).to_have_text(["A broken pier", "A pier"])
    page.get_by_label("Status").select_option("Failed")
    expect(tiles).to_have_text(["A broken pier"])
    page.get_by_label("Search prompts").fill("ocean")
    expect(page.get_by_text("No clip matches.")).to_be_visible()


def test_an_earlier_clip_has_a_picture_and_plays(page: Page, service: DemoService):
    service.finish(service.create("A pier"))
    open_page(page, service)
    until(page, "document.querySelector('.tile img')?.naturalWidth > 0")
    page.get_by_role("button", name="A pier").click()
    until(page, "document.querySelector('dialog video').readyState >= 1")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="A pier")).to_be_focused()


def test_a_clip_is_deleted_once_that_is_confirmed(page: Page, service: DemoService):
    service.finish(service.create("A pier"))
    open_page(page, service)
    page.get_by_role("button", name="A pier").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Keep it").click()
    assert len(service.made()) == 1
    page.get_by_role("button", name="Delete").click()
    page.locator("#confirm").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Clips that you make will be kept here.")).to_be_visible()
    assert service.made() == []


def test_a_clip_is_downloaded(page: Page, service: DemoService):
    job_id = service.create("A pier")
    service.finish(job_id)
    open_page(page, service)
    page.get_by_role("button", name="A pier").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == f"{job_id}.mp4"
    assert b"ftyp" in Path(download.value.path()).read_bytes()[:16]


def test_a_key_is_asked_for_and_used_for_everything(
    context: BrowserContext, complaints: list[str], tmp_path: Path
):
    with demo_service(tmp_path / "run", free_port(), keys=True) as service:
        _, secret = service.service.store.add_key("me")
        page = context.new_page()
        listen(page, complaints)
        page.goto(f"{service.url}/")
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("This service wants a key").fill("rr_wrong")
        dialog.get_by_role("button", name="Continue").click()
        expect(dialog.get_by_text("The service does not know this key.")).to_be_visible()
        dialog.get_by_label("This service wants a key").fill(secret)
        dialog.get_by_label("This service wants a key").press("Enter")
        expect(page.get_by_text("Clips that you make will be kept here.")).to_be_visible()
        write(page, "With a key.")
        page.get_by_role("button", name="Create").click()
        until(page, "document.querySelector('video')?.readyState >= 1")
        page.reload()
        expect(page.get_by_role("button", name="With a key.")).to_be_visible()
        until(page, "document.querySelector('.tile img')?.naturalWidth > 0")
        page.get_by_role("button", name="Forget key").click()
        expect(dialog).to_be_visible()
        page.close()
