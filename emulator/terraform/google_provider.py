"""The real Google provider of Terraform, built here from its source, for a Terraform without a
registry.

In: Go and Terraform. Out: one executable, kept by version in the user's cache folder, and a
filesystem mirror with a CLI configuration that `TF_CLI_CONFIG_FILE` names. The first build takes
some 6 minutes and 3.4 GB of Go's own caches; nothing of it lies in the checkout.
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
"""Go's name of the commit that is released as VERSION: tags from v2 on are refused, because the
module's path has no /v8.
"""

NAME = "terraform-provider-google"
LEAST_TERRAFORM = (1, 11)
"""The first with write-only arguments."""

Say = Callable[[str], object]


def cache_folder() -> Path:
    """Where programs that are made once for a user are (XDG base directory specification)."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "yieldspark"


def cached_provider() -> Path:
    """Where the executable is, once it is built."""
    return cache_folder() / NAME / VERSION / NAME


@cache
def obstacle() -> str | None:
    """Why Terraform can't run here with the provider, or None."""
    if shutil.which("terraform") is None:
        return "Terraform is not installed"
    found = str(_terraform_version()["terraform_version"])
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < LEAST_TERRAFORM:
        least = ".".join(map(str, LEAST_TERRAFORM))
        return f"Terraform {found} is too old: {least} or newer"
    if not cached_provider().is_file() and shutil.which("go") is None:
        return f"Go is not installed, and the Google provider {VERSION} is not built yet"
    return None


def built_provider(say: Say) -> Path:
    """The executable; it is built where it is not there yet. Processes that ask at once wait for
    one build.

    Args: say gets a line before a build. Raises: EnvironmentNotReady with what Go said.
    """
    provider = cached_provider()
    provider.parent.mkdir(parents=True, exist_ok=True)
    with locked(provider.with_name("build.lock"), create=True):
        if not provider.is_file():
            say(f"building the Google provider {VERSION}: some 6 minutes, once")
            _build(provider)
    return provider


def write_mirror(folder: Path, provider: Path) -> Path:
    """Lay a filesystem mirror with the provider into the folder; returns the CLI configuration that
    names it and nothing else, so that no registry is asked.
    """
    platform = str(_terraform_version()["platform"])
    package = folder / "mirror" / _full_source() / VERSION / platform
    package.mkdir(parents=True)
    executable = package / f"{NAME}_v{VERSION}"
    try:
        executable.hardlink_to(provider)
    except OSError:  # another file system
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
        done = subprocess.run(
            ["go", "install", "-p", "2", "-trimpath", "-ldflags", "-s -w", f"{SOURCE}@{REVISION}"],
            env={**os.environ, "GOBIN": folder},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            words = "\n".join(done.stderr.splitlines()[-15:])
            raise EnvironmentNotReady(
                f"the Google provider {VERSION} can't be built, go install ended with"
                f" {done.returncode}:\n{words}"
            )
        (Path(folder) / NAME).replace(provider)


def _terraform_version() -> dict[str, object]:
    document: dict[str, object] = json.loads(_terraform("version", "-json"))
    return document


def _terraform(*words: str, folder: Path | None = None) -> str:
    """Terraform without the user's own configuration, whose warnings would be in the output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run(
        ["terraform", *words],
        cwd=folder,
        env={**kept, "CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _full_source() -> str:
    """HOST/hashicorp/google, as Terraform itself completes the short name."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.tf").write_text(
            'terraform {\n  required_providers {\n    google = { source = "hashicorp/google" }\n'
            "  }\n}\n",
            encoding="utf-8",
        )
        said = _terraform("providers", folder=Path(folder))
    found = re.search(r"provider\[([^\]]+/hashicorp/google)\]", said)
    if found is None:
        raise EnvironmentNotReady(f"`terraform providers` says no full name: {said!r}")
    return found[1]
