"""What puts questions to a model and writes results."""
