"""Time series of runs: the table of series, points of a run, and what writes them."""
