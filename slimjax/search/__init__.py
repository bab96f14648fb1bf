"""Host-side search over widths, in NumPy and SciPy float64. It knows neither JAX nor networks."""
