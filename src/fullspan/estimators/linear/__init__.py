"""Linear models: logistic regression, its solvers, and what its coefficients are known to be."""
