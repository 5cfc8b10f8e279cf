"""Names of the two columns that distinguish task attempts in staging.

Imports nothing, because every Python worker loads it.
"""

PARTITION_TAG = "_partition"
ATTEMPT_TAG = "_attempt"
