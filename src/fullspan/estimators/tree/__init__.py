"""CART: growing, pruning, exporting and plotting single trees."""
