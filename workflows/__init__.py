"""YieldSpark on Google Cloud: releases, batches, the nightly workflow, and a cloud on this machine
to try them on. Imports no Spark.
"""
