"""Selects the forecasting engine and checks its runtime before any row is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import ConfigurationError, EnvironmentNotReady
from config_spark import Settings
from forecasting.engines.engine import Engine
from forecasting.engines.model_parameters import model_parameters

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ENGINES = ("synapseml", "lightgbm")


def choose_engine(name: str, settings: Settings, spark: SparkSession | None) -> Engine:
    """Returns the named engine with the parameters of the settings.

    Args:
        spark: the session; None in a run without a JVM, which has the engine `lightgbm` only.

    Raises:
        ConfigurationError: the name is none of ENGINES.
        EnvironmentNotReady: the engine's runtime is missing.
    """
    parameters = model_parameters(settings)
    if name == "synapseml":
        assert spark is not None, "the engine is Spark's"
        from forecasting.engines.synapseml_engine import SynapsemlEngine, check_runtime

        check_runtime(spark)
        return SynapsemlEngine(parameters)
    if name == "lightgbm":
        try:
            from forecasting.engines.lightgbm_engine import LightgbmEngine
        except (ImportError, OSError) as error:
            raise EnvironmentNotReady(
                f"native LightGBM does not load ({error}): it needs the package lightgbm and the"
                " library libgomp1; `doctor` checks both"
            ) from error
        return LightgbmEngine(parameters)
    raise ConfigurationError(f"engine {name!r} is unknown: allowed are {' and '.join(ENGINES)}")
