"""What may be said of results: metrics, intervals, the gap, the guard."""
