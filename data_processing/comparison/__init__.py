"""Compares the metrics table with another one: where they differ, and by which known rule."""
