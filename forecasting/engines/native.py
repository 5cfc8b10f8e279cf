"""Native LightGBM, as every module here takes it: `from forecasting.engines.native import
lightgbm`, where it is first needed.

The package needs the system's libgomp1, so that whoever needs none of it must not import it.
"""

from __future__ import annotations

import os

# OpenMP reads it when the library is loaded: spinning threads on busy cores cost minutes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightgbm

__all__ = ["lightgbm"]
