"""Native LightGBM with its environment: import it as `from forecasting.engines.native import
lightgbm`.

Import it where it is used: the package needs the system library libgomp1, which other commands do
not have to have.
"""

from __future__ import annotations

import os

# OpenMP reads it when the library is loaded; spinning threads on busy cores cost minutes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightgbm

__all__ = ["lightgbm"]
