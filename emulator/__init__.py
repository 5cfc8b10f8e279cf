"""Google Cloud on one machine, for tests and for people who try the configuration without an
account. The product never imports it.
"""
