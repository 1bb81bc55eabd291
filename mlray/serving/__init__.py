"""The champion behind an HTTP API, on Ray Serve."""

from mlray.serving.service import Service, serve

__all__ = ["Service", "serve"]
