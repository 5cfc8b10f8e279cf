"""This machine: its Java, its jars, its health. Nothing here opens a Spark session."""
