"""Checks as data: messages and severities (`catalogue`) and conditions of rows (`row_checks`)."""
