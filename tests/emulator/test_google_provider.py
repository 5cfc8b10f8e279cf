"""Tests the build of Terraform's Google provider: built once, cached by version, and the reasons
why a machine cannot have it.
"""

from __future__ import annotations

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import EnvironmentNotReady
from emulator.terraform.google_provider import (
    NAME,
    REVISION,
    VERSION,
    built_provider,
    cached_provider,
    obstacle,
    write_mirror,
)

without_cache = obstacle.__wrapped__

GO = """#!/usr/bin/env bash
# Stands in for Go, whose build takes minutes: writes down what it is asked, and makes the program.
echo "$*" >> "$HOME/calls"
[[ -n ${GO_FAILS:-} ]] && { echo "go: no space left on device" >&2; exit 1; }
sleep 0.2; echo built > "$GOBIN/terraform-provider-google"
"""
TERRAFORM = """#!/bin/bash
echo '{"terraform_version": "1.9.8", "platform": "linux_amd64"}'
"""


@pytest.fixture
def programs(processes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH; home and caches are empty."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return folder


def _put(folder: Path, name: str, text: str) -> None:
    program = folder / name
    program.write_text(text, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_processes_that_ask_at_once_get_one_build(programs: Path, tmp_path: Path) -> None:
    _put(programs, "go", GO)
    output: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        created = list(pool.map(lambda _: built_provider(output.append), range(3)))
    assert created == [cached_provider()] * 3
    assert created[0].is_relative_to(tmp_path / "caches" / "yieldspark" / NAME / VERSION)
    assert created[0].read_text(encoding="utf-8") == "built\n"
    assert len(output) == 1
    (call,) = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert call.startswith("install -p 2 -trimpath -ldflags -s -w ")
    assert call.endswith(f"@{REVISION}")
    assert sorted(path.name for path in created[0].parent.iterdir()) == ["build.lock", NAME]


def test_a_failed_build_reports_gos_error(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(programs, "go", GO)
    monkeypatch.setenv("GO_FAILS", "1")
    with pytest.raises(EnvironmentNotReady, match=r"ended with 1:\ngo: no space left on device"):
        built_provider(print)
    assert not cached_provider().exists()


def test_an_old_terraform_is_an_obstacle(programs: Path) -> None:
    _put(programs, "terraform", TERRAFORM)
    assert without_cache() == "Terraform 1.9.8 is too old: 1.11 or newer"


def test_missing_tools_are_reported(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    assert without_cache() == "Terraform is not installed"
    _put(programs, "terraform", TERRAFORM.replace("1.9.8", "1.11.4"))
    assert without_cache() == (
        f"Go is not installed, and the Google provider {VERSION} is not built yet"
    )
    cached_provider().parent.mkdir(parents=True)
    cached_provider().write_text("built before", encoding="utf-8")
    assert without_cache() is None


@pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))
@pytest.mark.usefixtures("processes")
def test_terraform_uses_only_the_mirror(tmp_path: Path) -> None:
    provider = tmp_path / NAME
    provider.write_text("the provider", encoding="utf-8")
    configuration = write_mirror(tmp_path / "for-terraform", provider)
    (program,) = (tmp_path / "for-terraform" / "mirror").rglob(f"{NAME}_v{VERSION}")
    assert program.read_text(encoding="utf-8") == "the provider"
    text = configuration.read_text(encoding="utf-8")
    assert re.findall(r"(\w+) \{", text) == ["provider_installation", "filesystem_mirror"]
    assert str(tmp_path / "for-terraform" / "mirror") in text
