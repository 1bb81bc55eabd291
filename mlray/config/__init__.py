"""The project file: one frozen class per section, errors with file:line, `a.b=value` overrides."""

from mlray.config.explaining import explain_section, schema, whole_file
from mlray.config.loading import load
from mlray.config.sections import Budget, Project, duration_s, with_sections

__all__ = [
    "Budget",
    "Project",
    "duration_s",
    "explain_section",
    "load",
    "schema",
    "whole_file",
    "with_sections",
]
