"""Searching widths on the host: what to try next, given the scores of what was tried. NumPy only."""
