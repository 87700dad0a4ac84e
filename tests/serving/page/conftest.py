"""A browser, and a service whose page it opens."""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.ports import server_ports
from tests.serving.demo_service import DemoService, demo_service

# Many times what it takes, since other work may go on beside it.
PATIENCE_MS = 20000
expect.set_options(timeout=PATIENCE_MS)


def free_port() -> int:
    """Of those that are set aside for servers of this process."""
    for port in reversed(server_ports()):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")


# No longer than a file: as long as it is there a loop runs in this thread, where others can't.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    path = shutil.which("chromium")
    if path is None:
        message = "the page needs chromium in a folder of PATH"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoService]:
    """One service for all tests, with whatever they make."""
    folder = tmp_path_factory.mktemp("service") / "run"
    with demo_service(folder, free_port(), queue={"max_jobs": 6}) as service:
        yield service


@pytest.fixture
def service(running: DemoService) -> Iterator[DemoService]:
    """The service, at work quickly, and without jobs of other tests."""
    running.pool.step_s = 0.02
    yield running
    running.pool.step_s = 0.0
    running.clear()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A profile of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the browser complains about: a test fails with it, unless it expects and removes it."""
    complaints: list[str] = []
    yield complaints
    assert complaints == []


@pytest.fixture
def page(service: DemoService, context: BrowserContext, complaints: list[str]) -> Page:
    """The page, opened."""
    page = context.new_page()
    listen(page, complaints)
    open_page(page, service)
    return page


def listen(page: Page, complaints: list[str]) -> None:
    """Note what a page's console says from now on.

    A status that the service refuses with is logged by the browser itself, and is no fault.
    """
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type in ("error", "warning") and "status of 4" not in message.text
            else None
        ),
    )


def until(page: Page, condition: str) -> None:
    """Wait for a condition, in JavaScript; the page's policy forbids the browser to wait itself."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"this did not become true: {condition}"
        page.wait_for_timeout(20)


def open_page(page: Page, service: DemoService) -> None:
    """Go to the page, and wait until it has looked for earlier clips."""
    page.goto(f"{service.url}/")
    page.locator(".tile, #empty:not([hidden])").first.wait_for()


def picture(folder: Path, name: str = "start.png") -> Path:
    """A small image file."""

    path = folder / name
    Image.new("RGB", (96, 64), (200, 80, 20)).save(path)
    return path


def write(page: Page, prompt: str, *, seconds: str = "0.4") -> None:
    """Fill in the form for a clip that is drawn in no time."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Size").select_option("256x192")
    page.get_by_label("Seconds").fill(seconds)
