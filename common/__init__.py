"""Errors, logging, settings, files and names that all other packages use. Imports none of them."""
