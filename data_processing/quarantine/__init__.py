"""Rows that must not be used: how they get there (`rejected_rows`), what became of them
(`resolution`), and what people do with them (`review`, `replay` with `corrections`).
"""
