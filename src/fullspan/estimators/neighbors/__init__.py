"""Nearest neighbours: a kd-tree, matching of descriptors, and estimators that look at the nearest rows."""
