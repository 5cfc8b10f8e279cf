"""Makes the generated pages and tables of the documentation: `python -m docs.generate`."""
