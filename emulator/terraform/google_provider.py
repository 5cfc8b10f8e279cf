"""Builds Google's Terraform provider from source, for a Terraform without a registry, and writes a
filesystem mirror with it. The executable is cached by version in the user's cache folder. The first
build takes 6 minutes and 3.4 GB of Go's caches.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from common.errors import EnvironmentNotReady
from common.files import locked

VERSION = "8.0.0"
SOURCE = "github.com/hashicorp/terraform-provider-google"
REVISION = "v1.20.1-0.20260828184646-f3721fb45fa3"
"""Go's version of the commit of VERSION. Tags from v2 on are rejected, because the module's path
has no /v8.
"""

NAME = "terraform-provider-google"
MIN_TERRAFORM = (1, 11)
"""First version with write-only arguments."""

Say = Callable[[str], object]


def cache_folder() -> Path:
    """Return the user's cache folder (XDG base directory specification)."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "yieldspark"


def cached_provider() -> Path:
    """Return the path of the built executable."""
    return cache_folder() / NAME / VERSION / NAME


@cache
def obstacle() -> str | None:
    """Return why Terraform cannot run here with the provider; None if it can."""
    if shutil.which("terraform") is None:
        return "Terraform is not installed"
    version = str(_terraform_version()["terraform_version"])
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < MIN_TERRAFORM:
        minimum = ".".join(map(str, MIN_TERRAFORM))
        return f"Terraform {version} is too old: {minimum} or newer"
    if not cached_provider().is_file() and shutil.which("go") is None:
        return f"Go is not installed, and the Google provider {VERSION} is not built yet"
    return None


def built_provider(say: Say) -> Path:
    """Return the executable; build it if it is missing. Concurrent processes wait for one build.

    Args:
        say: Receives a line before a build.

    Raises:
        EnvironmentNotReady: The build fails; has Go's error.
    """
    provider = cached_provider()
    provider.parent.mkdir(parents=True, exist_ok=True)
    with locked(provider.with_name("build.lock"), create=True):
        if not provider.is_file():
            say(f"building the Google provider {VERSION}: some 6 minutes, once")
            _build(provider)
    return provider


def write_mirror(folder: Path, provider: Path) -> Path:
    """Write a filesystem mirror with the provider.

    Args:
        folder: Receives the mirror.
        provider: The executable.

    Returns:
        A CLI configuration that names only the mirror, so that no registry is contacted.
    """
    platform = str(_terraform_version()["platform"])
    package = folder / "mirror" / _full_source() / VERSION / platform
    package.mkdir(parents=True)
    executable = package / f"{NAME}_v{VERSION}"
    try:
        executable.hardlink_to(provider)
    except OSError:
        # another file system
        shutil.copy2(provider, executable)
    configuration = folder / "terraform.rc"
    configuration.write_text(
        "provider_installation {\n  filesystem_mirror {\n"
        f"    path = {json.dumps(str(folder / 'mirror'))}\n"
        "  }\n}\n",
        encoding="utf-8",
    )
    return configuration


def _build(provider: Path) -> None:
    with tempfile.TemporaryDirectory(dir=provider.parent) as folder:
        process = subprocess.run(
            ["go", "install", "-p", "2", "-trimpath", "-ldflags", "-s -w", f"{SOURCE}@{REVISION}"],
            env={**os.environ, "GOBIN": folder},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            error_lines = "\n".join(process.stderr.splitlines()[-15:])
            raise EnvironmentNotReady(
                f"the Google provider {VERSION} can't be built, go install ended with"
                f" {process.returncode}:\n{error_lines}"
            )
        # by a rename: a partly built provider is never found
        (Path(folder) / NAME).replace(provider)


def _terraform_version() -> dict[str, object]:
    versions: dict[str, object] = json.loads(_terraform("version", "-json"))
    return versions


def _terraform(*arguments: str, folder: Path | None = None) -> str:
    """Run Terraform without the user's configuration, whose warnings would be in the output."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    process = subprocess.run(
        ["terraform", *arguments],
        cwd=folder,
        env={**variables, "CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout


def _full_source() -> str:
    """Return HOST/hashicorp/google, as Terraform completes the short name."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.tf").write_text(
            'terraform {\n  required_providers {\n    google = { source = "hashicorp/google" }\n'
            "  }\n}\n",
            encoding="utf-8",
        )
        output = _terraform("providers", folder=Path(folder))
    match = re.search(r"provider\[([^\]]+/hashicorp/google)\]", output)
    if match is None:
        raise EnvironmentNotReady(f"`terraform providers` shows no full name: {output!r}")
    return match[1]
