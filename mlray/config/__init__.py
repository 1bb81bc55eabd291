"""The project file: one frozen class per section, errors with file:line, `a.b=value` overrides."""

from mlray.config.explaining import explain_section, schema, whole_file
from mlray.config.fields import Budget, duration_s, size_bytes
from mlray.config.loading import load
from mlray.config.sections import Project, with_sections

__all__ = [
    "Budget",
    "Project",
    "duration_s",
    "explain_section",
    "load",
    "schema",
    "size_bytes",
    "whole_file",
    "with_sections",
]
