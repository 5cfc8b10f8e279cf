"""All checks of `doctor`, in the order in which they are printed."""

from __future__ import annotations

from cli.doctor.check import Check, DoctorResult
from cli.doctor.database import CLOCK, DATABASE, TABLES
from cli.doctor.machine import DISK, FOLDERS, MEMORY
from cli.doctor.raw_history import UNREAD_ROWS
from cli.doctor.runtime import RUNTIME_CHECKS
from config_spark import Settings

# from the machine up to the data: the first failure is usually the cause of the later ones
CHECKS: tuple[Check, ...] = (
    *RUNTIME_CHECKS,
    DISK,
    MEMORY,
    DATABASE,
    TABLES,
    CLOCK,
    FOLDERS,
    UNREAD_ROWS,
)


def run_checks(settings: Settings) -> list[DoctorResult]:
    """Return the result of every check."""
    return [check.run(settings) for check in CHECKS]
