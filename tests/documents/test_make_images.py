"""Tests `make images`: the picture is the first screen of a report, and a message names an absent
report.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from docs import make_images
from docs.make_images import HEIGHT, IMAGE, MAX_BYTES, WIDTH, make_image


def size_of(image: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header of a PNG file."""
    header = image.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", header[16:])
    return width, height


def test_the_picture_of_the_readme_is_small_and_of_the_size_that_the_script_makes() -> None:
    assert size_of(IMAGE) == (WIDTH, HEIGHT)
    assert IMAGE.stat().st_size <= MAX_BYTES


def test_an_absent_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"none\.html is no file: run the demo"):
        make_image(tmp_path / "none.html", tmp_path / "report.png")


@pytest.mark.usefixtures("processes")
def test_a_page_becomes_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        pytest.skip("chromium is not installed: apt install chromium")
    page = tmp_path / "page.html"
    page.write_text("<h1>Forecasts</h1><p style='height: 5000px'>long</p>")
    make_image(page, tmp_path / "images" / "report.png")
    assert size_of(tmp_path / "images" / "report.png") == (WIDTH, HEIGHT)
    monkeypatch.setattr(make_images, "MAX_BYTES", 100)
    with pytest.raises(SystemExit, match="allowed are 100"):
        make_image(page, tmp_path / "large.png")
    assert not (tmp_path / "large.png").exists()
