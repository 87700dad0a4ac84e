"""From a prompt to a clip that plays, in a real browser."""

import re
import subprocess
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect

from tests.serving.demo_service import DemoService
from tests.serving.page.conftest import open_page, picture, until, write

RUNNING = re.compile(r"step \d+ of \d+")


def test_a_prompt_becomes_a_clip_that_plays(page: Page, service: DemoService):
    service.pool.step_s = 0.1
    write(page, "A heron lifts off a lake.")
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="A heron lifts off a lake.")
    expect(card.get_by_text(RUNNING)).to_be_visible()
    expect(card.get_by_role("progressbar", name="Progress")).to_be_visible()
    video = card.locator("video")
    video.wait_for()
    video.evaluate("video => { video.muted = true; return video.play(); }")
    until(page, "document.querySelector('video').currentTime > 0.1")
    assert video.evaluate("video => video.readyState") >= 2
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [256, 192]
    expect(page.get_by_role("status")).to_have_text("Ready: A heron lifts off a lake.")


def test_a_running_job_is_seen_where_its_clip_will_be(page: Page, service: DemoService):
    service.pool.step_s = 0.4
    write(page, "A slow one.")
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="A slow one.")
    image = card.get_by_role("img", name="Preview: A slow one.")
    expect(image).to_be_visible()
    until(page, "document.querySelector('.media img').naturalWidth === 160")
    first, place = image.get_attribute("src"), image.bounding_box()
    until(page, f"document.querySelector('.media img').src !== '{first}'")
    assert image.bounding_box() == place
    service.pool.step_s = 0.0
    expect(card.locator("video")).to_be_visible()
    expect(image).to_be_hidden()
    assert card.locator("video").bounding_box() == place


def test_the_preview_of_a_cancelled_job_goes(page: Page, service: DemoService):
    service.pool.step_s = 0.4
    write(page, "Not this one.")
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="Not this one.")
    expect(card.get_by_role("img", name="Preview: Not this one.")).to_be_visible()
    card.get_by_role("button", name="Cancel").click()
    expect(card.get_by_text("Cancelled", exact=True)).to_be_visible()
    expect(card.get_by_role("img")).to_have_count(0)


def test_a_dropped_image_is_shown_and_sent_and_can_be_removed(
    page: Page, service: DemoService, tmp_path: Path
):
    data = [*picture(tmp_path).read_bytes()]
    drop = """([data, name, type]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(data)], name, { type }));
        for (const kind of ["dragenter", "dragover", "drop"])
            document.querySelector("#drop, main").dispatchEvent(
                new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(drop, [[1, 2], "notes.txt", "text/plain"])
    expect(page.locator("#image-error")).to_have_text("notes.txt is no image.")
    page.evaluate(drop, [data, "start.png", "image/png"])
    expect(page.get_by_role("img", name="Start image: start.png")).to_be_visible()
    page.get_by_role("button", name="Remove image").click()
    expect(page.get_by_role("img", name="Start image: start.png")).to_be_hidden()
    page.evaluate(drop, [data, "start.png", "image/png"])
    write(page, "From a picture.")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("article", name="From a picture.").wait_for()
    (job,) = service.made()
    assert [image.frame for image in job.request.images] == [0]
    assert Path(job.request.images[0].path).read_bytes() == bytes(data)


def test_a_running_job_is_cancelled(page: Page, service: DemoService):
    service.pool.step_s = 0.5
    write(page, "A long one.")
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="A long one.")
    expect(card.get_by_text(RUNNING)).to_be_visible()
    card.get_by_role("button", name="Cancel").click()
    expect(card.get_by_text("Cancelled", exact=True)).to_be_visible()
    expect(card.get_by_role("button", name="Cancel")).to_be_hidden()
    assert service.made()[0].state == "cancelled"


def test_queued_jobs_say_how_many_are_ahead(page: Page, service: DemoService):
    service.pool.step_s = 0.5
    for number in range(3):
        service.create(f"Number {number}")
    write(page, "The last one.")
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="The last one.")
    expect(card.locator(".state")).to_have_text(re.compile(r"^Queued · \d jobs? ahead · about"))


def test_a_reload_goes_on_with_what_runs(page: Page, service: DemoService):
    service.pool.step_s = 0.5
    service.create("Still at it.")
    open_page(page, service)
    card = page.get_by_role("article", name="Still at it.")
    expect(card.get_by_text(RUNNING)).to_be_visible()
    page.reload()
    expect(card.get_by_text(RUNNING)).to_be_visible()
    service.pool.step_s = 0.0
    expect(card.locator("video")).to_be_visible()


def test_events_are_followed_again_after_the_connection_was_lost(
    page: Page, service: DemoService, complaints: list[str]
):
    service.pool.step_s = 0.3
    lost: list[str] = []

    def lose(route):
        if len(lost) < 2:
            lost.append(route.request.url)
            route.fulfill(status=502, body="bad gateway")
        else:
            route.continue_()

    page.route("**/events", lose)
    write(page, "Through thick and thin.")
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="Through thick and thin.")
    expect(card.get_by_text("connection lost")).to_be_visible()
    expect(card.get_by_text(RUNNING)).to_be_visible()
    service.pool.step_s = 0.0
    expect(card.locator("video")).to_be_visible()
    assert ["502" in complaint for complaint in complaints] == [True, True]
    complaints.clear()


def test_more_jobs_than_streams_all_become_clips(page: Page, service: DemoService):
    # None of them is done before the page is there.
    service.pool.step_s = 3
    for number in range(4):
        service.create(f"Number {number}")
    open_page(page, service)
    service.pool.step_s = 0.05
    expect(page.locator("article[data-status=completed]")).to_have_count(4)


def test_a_clip_is_continued(page: Page, service: DemoService):
    first = service.create("The first part.")
    service.finish(first)
    open_page(page, service)
    page.get_by_role("button", name="The first part.").click()
    page.get_by_role("dialog").get_by_role("button", name="Continue this clip").click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    expect(page.get_by_label("Size")).to_be_hidden()
    page.get_by_label("Prompt", exact=True).fill("The second part.")
    page.get_by_label("Seconds").fill("0.4")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("article", name="The second part.").wait_for()
    extend = service.made()[0].request.extend
    assert extend is not None
    assert first in (extend.clip, Path(extend.path or "").stem)


def test_a_request_copied_as_curl_makes_the_same_job(
    page: Page, service: DemoService, context: BrowserContext
):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    prompt = 'It\'s "quoted"; $HOME `id` \\ and\na line; type=text/html'
    write(page, prompt)
    page.get_by_label("Seed").fill("9007199254740993")
    page.get_by_role("button", name="Create").click()
    # Buttons are others once the clip is there.
    page.locator("video").wait_for()
    page.get_by_role("button", name="Copy as curl").click()
    page.get_by_role("button", name="Copied").wait_for()
    command = page.evaluate("navigator.clipboard.readText()")
    subprocess.run(["sh", "-c", command + " --fail --silent"], check=True, timeout=20)
    again, first = service.made()
    assert again.request == first.request
    assert (again.request.prompt, again.request.seed) == (prompt, 9007199254740993)


def test_a_request_with_an_image_copied_as_curl_makes_the_same_job(
    page: Page, service: DemoService, context: BrowserContext, tmp_path: Path
):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    image = picture(tmp_path, "it's; a picture.png")
    write(page, "From a picture; type=text/html")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Add a start image").set_input_files(image)
    page.get_by_role("button", name="Create").click()
    # Buttons are others once the clip is there.
    page.locator("video").wait_for()
    page.get_by_role("button", name="Copy as curl").click()
    page.get_by_role("button", name="Copied").wait_for()
    command = page.evaluate("navigator.clipboard.readText()")
    assert "-F 'input_reference=@" in command
    subprocess.run(["sh", "-c", command + " --fail --silent"], check=True, timeout=20, cwd=tmp_path)
    again, first = service.made()
    assert again.request.prompt == first.request.prompt == "From a picture; type=text/html"
    copies = [Path(job.request.images[0].path).read_bytes() for job in (again, first)]
    assert copies == [image.read_bytes()] * 2


def test_without_a_clipboard_the_command_is_shown(page: Page, service: DemoService):
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    write(page, "For a shell.")
    page.get_by_role("button", name="Create").click()
    # Buttons are others once the clip is there.
    page.locator("video").wait_for()
    page.get_by_role("button", name="Copy as curl").click()
    command = page.get_by_label("The request as curl")
    expect(command).to_be_focused()
    expect(command).to_contain_text(f"curl '{service.url}/v1/videos'")


def test_a_prompt_is_written_out_and_shown(page: Page, service: DemoService):
    write(page, "A pier.")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Write the prompt out first").check()
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="A pier.")
    card.get_by_text("Written prompt").click()
    expect(card.get_by_text("A pier. Golden light, slow camera.")).to_be_visible()


def test_a_failed_job_says_why(page: Page, service: DemoService):
    write(page, "A broken one.")
    page.get_by_role("button", name="Create").click()
    card = page.get_by_role("article", name="A broken one.")
    expect(card.get_by_text("Failed", exact=True)).to_be_visible()
    expect(card.locator(".error")).to_contain_text("not finite after step 3")


def test_the_form_begins_with_what_the_service_makes_by_itself(page: Page, service: DemoService):
    models = {"data": [{"id": "rayreel", "size": "128x192", "seconds": 1.04}]}
    page.route("**/v1/models", lambda route: route.fulfill(json=models))
    open_page(page, service)
    expect(page.get_by_label("Size")).to_have_value("128x192")
    expect(page.get_by_label("Seconds")).to_have_value("1.04")
    page.get_by_label("Size").select_option("")
    expect(page.get_by_label("Width")).to_have_value("128")
    expect(page.get_by_label("Height")).to_have_value("192")
