"""Fakes of the APIs that Terraform and Cloud Build call: resources, policies, operations."""
