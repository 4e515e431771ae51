"""A merged model beside its inputs and its base, on held-out examples or on suites of benchmarks."""
