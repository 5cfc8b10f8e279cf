"""What people do with quarantined rows: list and show them (`queries`), replay or drop them
(`replay`), correct their values (`corrections`).
"""
