"""Settings by section, one file each; `config_spark.Settings` has all of them.

A field's description is its row in docs/reference/settings.md: the meaning, with its unit.
"""
