"""Versions of the code in a bucket: what one consists of, publishing, the newest, and the
way back.
"""
