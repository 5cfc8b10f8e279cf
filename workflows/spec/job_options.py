"""Options that a batch passes to its job's command line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from common.errors import ConfigurationError
from common.jobs import job_spec


@dataclass(frozen=True)
class JobOptions:
    """Options of one job's command line. Days are UTC; `end` is exclusive."""

    start: date | None = None
    end: date | None = None
    full_refresh: bool = False
    as_of: date | None = None

    def arguments(self, job: str) -> list[str]:
        """Return the arguments of the job's command line.

        Raises:
            ConfigurationError: the job has no such option.
        """
        options = {option.name: option for option in job_spec(job).options}
        arguments = []
        for name, value in vars(self).items():
            if not value:
                continue
            if name not in options:
                flags = [options[key].flag for key in vars(self) if key in options]
                raise ConfigurationError(
                    f"--{name.replace('_', '-')} is no option of {job}; allowed:"
                    f" {', '.join(flags) or 'none'}"
                )
            option = options[name]
            arguments += [option.flag, str(value)] if option.has_value else [option.flag]
        return arguments
