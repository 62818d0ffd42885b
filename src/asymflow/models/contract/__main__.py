"""`python -m asymflow.models.contract NAME`: check a model that an installed package offers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from asymflow.core.errors import AsymflowError
from asymflow.models import contract, loading


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found of every property.

    Returns:
        0 if all are kept, 1 if one is broken, 2 if nothing can be checked.
    """
    parser = argparse.ArgumentParser("python -m asymflow.models.contract", description=__doc__)
    parser.add_argument("name", help="of the model, as in asymflow.load(NAME)")
    parser.add_argument(
        "--tolerance", type=float, default=contract.TOLERANCE,
        help="how far the same answer may be apart in other batches, default %(default)g",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        adapter = loading.load(given.name)
        report = contract.check(
            adapter, tolerance=given.tolerance, again=lambda: loading.load(given.name)
        )
    except AsymflowError as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(main())
