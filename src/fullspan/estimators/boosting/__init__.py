"""Gradient boosting with second-order trees: growth, prediction, model files and explanations."""
