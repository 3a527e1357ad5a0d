"""Command line: `jaxinf demo`, `jaxinf influence`, `jaxinf doctor`.

Importing this package is light; the commands' own dependencies (the extra `cli`) are imported
by `main`, which says in one line what to install when they are missing.
"""

import sys

from jaxinf.errors import MissingExtraError, require_extra


def main() -> None:
    """Run the command line: the console script `jaxinf`.

    Exit codes: 0 done; 1 a self-check failed, or an extra is missing; 2 something about the
    input must change, in one line on stderr.
    """
    try:
        require_extra("typer", "cli")
    except MissingExtraError as error:
        sys.stderr.write(f"jaxinf: {error}\n")
        raise SystemExit(1) from None
    from jaxinf.cli.app import app

    app(prog_name="jaxinf")
