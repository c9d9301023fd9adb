"""Several commands made into one job."""
