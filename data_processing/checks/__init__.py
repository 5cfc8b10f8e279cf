"""Checks as data: what each looks at (`catalogue`), conditions of rows (`row_checks`), queries on a
commit (`commit_checks`, `spike_sql`).
"""
