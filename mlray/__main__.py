"""`python -m mlray` and the console script `mlray`."""

from __future__ import annotations


def main() -> None:
    """Run the command line; errors that a user can act on are shown without a traceback."""
    import sys

    from mlray.cli import app
    from mlray.errors import MlrayError

    try:
        app()
    except MlrayError as error:
        print(f"mlray: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("mlray: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
