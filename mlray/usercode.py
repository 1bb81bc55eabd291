"""The user's own functions and classes, named by import path in the project file."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from typing import Any

from mlray.errors import ConfigError


def resolve(path: str, folder: str | None = None) -> Any:
    """What `module:name` names.

    Args:
        path: `module:name`.
        folder: folder of the project file; modules beside it are found first.

    Raises:
        ConfigError: there is no such module or no such name in it.
    """
    module_name, _, name = path.partition(":")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"no module for `{path}` ({error})",
            do=f"put {module_name.replace('.', '/')}.py beside the project file or install it",
        ) from error
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(
            f"module `{module_name}` has no `{name}`", allowed=", ".join(public) or "nothing"
        )
    return getattr(module, name)


def version(path: str, folder: str | None = None) -> str:
    """SHA-256 of the source of the module that `path` names: changes when the code does."""
    module = inspect.getmodule(resolve(path, folder))
    source = inspect.getsource(module) if module else path
    return hashlib.sha256(source.encode()).hexdigest()
