"""Checks of `doctor` on the machine: disk, memory, and YieldSpark's folders. Sizes are in GiB."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from cli.doctor.check import Check, Finding, Result
from common.private_files import find_shared_paths
from config_spark import Settings

GIB = 1024**3
ENOUGH_DISK_GIB = 2.0
LEAST_DISK_GIB = 0.5
ENOUGH_MEMORY_GIB = 4.0
# Folders of YIELDSPARK_HOME that only their owner may read: logs, models, releases
STATE_FOLDERS = ("logs", "mlflow", "cloud", "emulator")
SHOWN_PATHS = 3


def disk(settings: Settings) -> Finding:
    """Check the free space of YIELDSPARK_HOME."""
    folder = nearest_existing_folder(settings.yieldspark_home)
    free = shutil.disk_usage(folder).free / GIB
    observation = f"{free:.1f} GiB free in {folder}"
    if free >= ENOUGH_DISK_GIB:
        return Finding("ok", observation)
    result: Result = "warn" if free >= LEAST_DISK_GIB else "fail"
    return Finding(
        result,
        observation,
        f"free {ENOUGH_DISK_GIB:.0f} GiB there, or set YIELDSPARK_HOME to a larger disk",
    )


def memory(_: Settings) -> Finding:
    """Check the memory of the machine or container."""
    size = memory_gib()
    if size >= ENOUGH_MEMORY_GIB:
        return Finding("ok", f"{size:.1f} GiB")
    return Finding(
        "warn",
        f"{size:.1f} GiB",
        f"give the machine or container {ENOUGH_MEMORY_GIB:.0f} GiB, or set SPARK_DRIVER_MEMORY=1g",
    )


def folders(settings: Settings) -> Finding:
    """Check that YieldSpark's folders can be written, and that their secrets are private."""
    paths = {"YIELDSPARK_HOME": settings.yieldspark_home, "REPORT_DIR": settings.report_dir}
    if settings.jars_dir:
        paths["JARS_DIR"] = settings.jars_dir
    closed = [f"{variable}={folder}" for variable, folder in paths.items() if not can_write(folder)]
    if closed:
        return Finding(
            "fail",
            f"can't be written: {', '.join(closed)}",
            "set these variables to folders you may write, or change the folders' rights",
        )
    if public := _public_state(settings.yieldspark_home):
        paths_to_fix = [str(path) for path in public[:SHOWN_PATHS]]
        more = f" and {len(public) - SHOWN_PATHS} more" if len(public) > SHOWN_PATHS else ""
        return Finding(
            "warn",
            f"other accounts of this machine may read or change {', '.join(paths_to_fix)}{more}",
            f"chmod -R go= {' '.join(sorted(set(paths_to_fix)))}",
        )
    return Finding("ok", ", ".join(str(folder) for folder in paths.values()))


def _public_state(home: Path) -> list[Path]:
    """Return private files that others may read, and the home if others may write to it."""
    secrets = [path for path in (home / "server").glob("password") if find_shared_paths(path)]
    states: list[Path] = []
    for name in STATE_FOLDERS:
        states += find_shared_paths(home / name)
    # a folder that others may write to lets them replace private files in it
    writable = home.exists() and home.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return [*([home] if writable else []), *secrets, *states]


def nearest_existing_folder(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    absolute = folder.expanduser().absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())


def can_write(folder: Path) -> bool:
    """Return whether a file can be created in the folder or, before it exists, above it."""
    # tried, because rights do not show a read-only disk or root
    try:
        with tempfile.TemporaryFile(dir=nearest_existing_folder(folder)):
            return True
    except OSError:
        return False


def memory_gib() -> float:
    """Return the memory in GiB: the machine's, or the container's limit if it is lower."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    # control groups 2, then 1
    for limit in (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ):
        if limit.exists() and (size := limit.read_text(encoding="utf-8").strip()).isdigit():
            sizes.append(int(size))
    return min(sizes) / GIB


DISK = Check("disk", disk, "set YIELDSPARK_HOME to a disk with room")
MEMORY = Check("memory", memory, "")
FOLDERS = Check("folders", folders, "set YIELDSPARK_HOME and REPORT_DIR to folders you may write")
