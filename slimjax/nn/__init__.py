"""Slimmable layers: widths, feature maps, layers, and what follows from one trace of them."""
