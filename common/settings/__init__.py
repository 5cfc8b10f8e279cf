"""The settings in sections, one file each; `config_spark.Settings` is all of them together.

A field's description is its row in docs/reference/settings.md: what it means, with its unit.
"""
