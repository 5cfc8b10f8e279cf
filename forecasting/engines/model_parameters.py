"""LightGBM parameters of both engines, and the file that overrides them (MODEL_PARAMETERS_FILE).

Reads a JSON file with `parameters`, as `tune` writes it; returns `ModelParameters`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from common.errors import ConfigurationError
from config_spark import Settings


@dataclass(frozen=True)
class ModelParameters:
    """A small model with absolute loss.

    Squared loss and more trees did worse than persistence.
    """

    seed: int
    threads: int
    rounds: int = 200
    learning_rate: float = 0.05
    leaves: int = 15
    min_data_in_leaf: int = 60
    feature_fraction: float = 0.5
    bagging_fraction: float = 0.7
    lambda_l2: float = 5.0
    max_bin: int = 127


LIMITS: dict[str, tuple[float, float]] = {
    "rounds": (1, 5_000),
    "learning_rate": (1e-4, 1.0),
    "leaves": (2, 1_024),
    "min_data_in_leaf": (1, 100_000),
    "feature_fraction": (0.01, 1.0),
    "bagging_fraction": (0.01, 1.0),
    "lambda_l2": (0.0, 10_000.0),
}
# parameters of the file; the bins are not among them, because all fits of a fold share them
TUNED = tuple(LIMITS)


def model_parameters(settings: Settings) -> ModelParameters:
    """Returns the settings' seed and threads, with the parameters of MODEL_PARAMETERS_FILE.

    Raises:
        ConfigurationError: the file can't be read, or a parameter is outside its limits.
    """
    parameters = ModelParameters(settings.model_seed, settings.model_threads)
    path = settings.model_parameters_file
    return replace(parameters, **_read(path)) if path else parameters


def _read(path: Path) -> Mapping[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["parameters"].items()
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        RecursionError,
    ) as error:
        raise ConfigurationError(
            f"MODEL_PARAMETERS_FILE={path} can't be read ({type(error).__name__}): it must contain"
            ' {"parameters": {..}}, as `tune` writes it'
        ) from error
    kinds = {
        field.name: {"int": int, "float": (int, float)}[str(field.type)]
        for field in fields(ModelParameters)
    }
    for name, value in entries:
        # the limits of an unknown name allow no value
        low, high = LIMITS.get(name, (1.0, 0.0))
        if (
            isinstance(value, bool)
            or not isinstance(value, kinds.get(name, ()))  # type: ignore[arg-type]
            or not low <= value <= high
        ):
            allowed = ", ".join(
                f"{parameter} {least:g} to {most:g}" for parameter, (least, most) in LIMITS.items()
            )
            raise ConfigurationError(
                f"MODEL_PARAMETERS_FILE={path}: {name}={value!r} is wrong; allowed are {allowed}"
            )
    return dict(entries)
