"""What an operator does inside the private network: commands in a container of a Cloud Run job,
started and followed from a laptop.
"""
