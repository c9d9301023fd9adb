"""Language models on a CPU: packed weights, paged caches, and one primitive, a step over some tokens."""
