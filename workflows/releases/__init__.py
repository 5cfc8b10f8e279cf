"""Versions of the code in the bucket: build, publish, list, roll back and delete them."""
