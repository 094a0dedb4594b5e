"""A Kubernetes control plane with KServe and KEDA on this machine, for the tests and for a person to play with."""

from __future__ import annotations
