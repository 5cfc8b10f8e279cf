"""Names of the two columns by which staging tells the attempts of a task apart.

The module imports nothing: every Python worker loads it.
"""

PARTITION_TAG = "_partition"
ATTEMPT_TAG = "_attempt"
