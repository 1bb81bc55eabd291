"""mlray: one project file in, one monitored model out."""

__version__ = "0.1.0"
