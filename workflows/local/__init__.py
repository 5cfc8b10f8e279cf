"""A cloud on this machine: the services that YieldSpark uses, speaking their real protocols on
loopback, and really running the jobs.
"""
