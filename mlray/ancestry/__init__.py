"""Where a version comes from, and what changed between two of them."""

from mlray.ancestry.comparing import Change, Changes, changes
from mlray.ancestry.lineage import Lineage, lineage_of

__all__ = ["Change", "Changes", "Lineage", "changes", "lineage_of"]
