"""Parses and checks the source of a Cloud Workflow, by the rules of Google and of this product."""
