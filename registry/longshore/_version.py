"""The version of both packages, and of the images that are built from them."""

__version__ = "0.1.0"
