"""How large the pieces are in which files are digested, fetched and verified."""

CHUNK_SIZE = 8 * 1024 * 1024
"""Bytes per BLAKE3 chunk in the manifests that are written today; a manifest says which size it uses."""
