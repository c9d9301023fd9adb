"""Principal components: of all rows at once, in batches, and in a kernel's feature space."""
