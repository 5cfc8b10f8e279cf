"""Terraform with Google's real provider, applied to the fakes."""
