"""Fakes of the Google services that jobs and workflows call; batches run as real processes."""
