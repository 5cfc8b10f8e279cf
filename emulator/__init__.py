"""Emulator of the Google Cloud services that YieldSpark uses, on one machine: for tests, and to try
the configuration without an account. The product never imports it.
"""
