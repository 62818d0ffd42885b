"""Run a suite, or care for the results of all.

python -m benchmarks                       list the suites
python -m benchmarks NAME [PART] --help    the purpose of a suite, and its options
python -m benchmarks NAME [PART] --quick   little of everything, into runs/quick
python -m benchmarks index [--check]       write INDEX.md, or check that it is up to date
python -m benchmarks stamp FILE COMMAND    put a header on a result that is not written here
python -m benchmarks supersede DIR REASON  say of results that what they measured is replaced
python -m benchmarks mend                  put new numbers of results where documents have old ones
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from asymflow.io.files import write_text
from benchmarks import claims, index, results
from benchmarks.registry import SUITES, Suite

WIDTH = max(len(suite.name) for suite in SUITES) + 2


def main() -> None:
    typed = sys.argv[1:]
    if typed and typed[0] in TOOLS:
        TOOLS[typed[0]](typed[1:])
        return
    suite = next((each for each in SUITES if each.module and called(each, typed)), None)
    if suite is None:
        listing = "\n".join(f"  {each.name:{WIDTH}}{each.claim}" for each in SUITES if each.module)
        text = f"{__doc__}\nSuites:\n{listing}\n"
        if typed and typed[0] not in ("-h", "--help"):
            sys.exit(f"There is no suite {' '.join(typed[:2])!r}.\n\n{text}")
        print(text)
        return
    rest = typed[len(suite.name.split()) :]
    module = importlib.import_module(suite.module)
    module.run(parser_of(suite, quick="--quick" in rest).parse_args(rest))


def called(suite: Suite, typed: list[str]) -> bool:
    words = suite.name.split()
    return typed[: len(words)] == words


def parser_of(suite: Suite, *, quick: bool = False) -> argparse.ArgumentParser:
    """The options of a suite; `quick` changes what they are where they are not given."""
    module = importlib.import_module(suite.module)
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {suite.name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    if hasattr(module, "QUICK"):
        parser.add_argument(
            "--quick", action="store_true", help=f"little of everything, into {results.QUICK}"
        )
        if quick:
            parser.set_defaults(**{"out": results.QUICK, **module.QUICK})
    return parser


def _index(typed: list[str]) -> None:
    wanted = index.text()
    if typed == ["--check"]:
        if index.PATH.read_text("utf-8") != wanted:
            sys.exit(f"{index.PATH} is not up to date: python -m benchmarks index")
    else:
        write_text(index.PATH, wanted)


def _stamp(typed: list[str]) -> None:
    path, command = typed
    results.stamp(Path(path), command, [results.shipped()])


def _supersede(typed: list[str]) -> None:
    folder, reason = typed
    for path in results.supersede(Path(folder), reason):
        print(path)


def _mend(typed: list[str]) -> None:
    if typed:
        sys.exit(f"mend takes no arguments, and was given {' '.join(typed)!r}.")
    importlib.import_module("benchmarks.documents")  # declares what the pages have
    for page in sorted({each.page for each in claims.WRITTEN}):
        path = results.ROOT / page
        old = path.read_text("utf-8")
        new = claims.mended(old, claims.texts(page))
        if new != old:
            write_text(path, new)
            print(page)


TOOLS: dict[str, Callable[[list[str]], None]] = {
    "index": _index,
    "mend": _mend,
    "stamp": _stamp,
    "supersede": _supersede,
}

if __name__ == "__main__":
    main()
