"""Ghost products: what per-example gradients are for, without forming them."""
