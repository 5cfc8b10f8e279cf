"""The images that the jobs run in: their packages and, for Cloud Run, Java and Spark. The jobs'
code comes as a release's zip.
"""
