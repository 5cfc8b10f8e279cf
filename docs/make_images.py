"""The pictures of the README and the guides: `python -m docs.make_images REPORT`, or `make images`.

In: the HTML file that the demo writes, and the demo's database. Out: `docs/images/report.png`, the
report's first screen, `WIDTH` x `HEIGHT` pixels, and the pages of DASHBOARD_IMAGES. Requires
Chromium on PATH and the packages of the tests. Nothing is fetched from other hosts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

IMAGE = Path(__file__).resolve().parent / "images" / "report.png"
WIDTH, HEIGHT = 900, 832
MAX_BYTES = 200_000
TIMEOUT_S = 300


@dataclass(frozen=True)
class DashboardImage:
    """A picture of a page of the dashboard.

    Attributes:
        path: of the page's address.
        width, height: pixels.
        first: heading that is at the top of the picture; empty for the top of the page.
    """

    name: str
    path: str
    width: int
    height: int
    theme: Literal["light", "dark"] = "light"
    first: str = ""


DASHBOARD_IMAGES = (
    DashboardImage("dashboard-tomorrow.png", "", 1280, 1000),
    DashboardImage("dashboard-pool.png", "pool", 1280, 1000),
    DashboardImage("dashboard-quality.png", "quality", 1280, 1000),
    DashboardImage("dashboard-runs.png", "runs", 1280, 1000),
    DashboardImage("dashboard-data.png", "data", 1280, 760, first="Gaps by pool"),
    DashboardImage("dashboard-phone.png", "pool", 390, 844, theme="dark"),
)


def make_image(report: Path, image: Path) -> None:
    """Render the first screen of `report` as a PNG file.

    Raises: SystemExit, with a message, if the report, Chromium or the image is missing, or if the
    image is larger than `MAX_BYTES`.
    """
    if not report.is_file():
        sys.exit(f"{report} is no file: run the demo, python run_spark_local.py, first")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("chromium is not on PATH: apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        rendered = Path(folder) / "report.png"
        command = [
            browser,
            "--headless",
            "--no-sandbox",  # as root, Chromium starts only without it; the page is our own
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-sync",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--screenshot={rendered}",
            report.resolve().as_uri(),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        if done.returncode or not rendered.is_file():
            sys.exit(f"{browser} made no image of {report}: {done.stderr.strip()[-300:]}")
        size = rendered.stat().st_size
        if size > MAX_BYTES:
            sys.exit(f"the image has {size:,} bytes, allowed are {MAX_BYTES:,}: lower HEIGHT")
        image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(rendered, image)
    print(f"{image}: {size:,} bytes")


def make_dashboard_images(folder: Path) -> None:
    """Render the pages of DASHBOARD_IMAGES from the database of the environment's settings.

    Raises: SystemExit, with a message, if an image is larger than `MAX_BYTES`.
    """
    # only here: the picture of the report needs no package
    from benchmarks.dashboard_browser import browser, dashboard_process, opened, wait_until_idle

    with dashboard_process(os.environ) as dashboard, browser() as chrome:
        for image in DASHBOARD_IMAGES:
            address = f"{dashboard.url}/{image.path}"
            with opened(
                chrome, address, width=image.width, height=image.height, theme=image.theme
            ) as (page, findings):
                if image.first:
                    heading = page.get_by_role("heading", name=image.first)
                    heading.evaluate("element => element.scrollIntoView({block: 'start'})")
                if image.path == "quality":
                    # the server computes the scores in the background
                    page.locator(".st-key-segments").wait_for()
                wait_until_idle(page)
                # charts are drawn after Streamlit's own part
                page.wait_for_timeout(2000)
                if findings.errors:
                    sys.exit(f"{address} reported {findings.errors}")
                picture = page.screenshot()
            if len(picture) > MAX_BYTES:
                sys.exit(f"{image.name} has {len(picture):,} bytes, allowed are {MAX_BYTES:,}")
            (folder / image.name).write_bytes(picture)
            print(f"{folder / image.name}: {len(picture):,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m docs.make_images REPORT.html")
    make_image(Path(sys.argv[1]), IMAGE)
    make_dashboard_images(IMAGE.parent)
