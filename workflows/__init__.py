"""YieldSpark on Google Cloud: releases, batches, the workflow of the daily run, and their costs.
Imports no Spark.
"""
