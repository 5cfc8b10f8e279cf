"""The picture of the report in the README: `python docs/make_images.py REPORT`, or `make images`.

In: the HTML file that the demo writes. Out: `docs/images/report.png`, the report's first screen,
`WIDTH` x `HEIGHT` pixels. Requires Chromium on PATH. Nothing is fetched from other hosts.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGE = Path(__file__).resolve().parent / "images" / "report.png"
WIDTH, HEIGHT = 900, 832
MAX_BYTES = 200_000
TIMEOUT_S = 300


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


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/make_images.py REPORT.html")
    make_image(Path(sys.argv[1]), IMAGE)
