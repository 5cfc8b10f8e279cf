"""Roles of a model version, which are the names of its aliases in the registry too.

Imports no pandas: every command that looks at the registry needs them.
"""

from __future__ import annotations

CHAMPION, CHALLENGER = "champion", "challenger"
