"""Images of the jobs: their packages and the entry point of Cloud Run jobs."""
