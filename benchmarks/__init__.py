"""Figures, each beside a peer or a floor in the same run; kept in `results/` with their conditions."""
