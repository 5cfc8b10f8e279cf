"""The version of the product. Imports nothing: `--help` and `--version` need no settings."""

PRODUCT_VERSION = "0.1.0"
