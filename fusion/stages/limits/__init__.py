"""What would stop a run hours later, found before anything is computed; see `refuse`."""
