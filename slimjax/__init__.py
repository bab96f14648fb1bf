"""slimjax: networks that run at many widths, trained once, in JAX."""

__version__ = "0.1.0"
