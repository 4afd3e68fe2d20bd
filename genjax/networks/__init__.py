"""Networks: the only folder that imports flax."""
