"""Commands inside the private network: containers of a Cloud Run job, started and followed from
here.
"""
