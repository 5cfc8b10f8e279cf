"""Terraform with the real provider of Google, applied to the fakes."""
