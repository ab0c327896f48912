"""The main job: a thousand Chinese characters become flashcards. `python -m examples.demo --help`.

Exit codes: 0 all done, 1 some failed, 2 a question of usage, 130 stopped by the user (run it again to go on).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        # The libraries take a second or two: late, so that --help does not wait and Ctrl-C meanwhile ends
        # well, too.
        from examples import run

        return run.main(options)
    except KeyboardInterrupt:
        print("Stopped. What is saved stays saved: the same command goes on from there.", file=sys.stderr)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Turn Chinese characters into flashcards, as fast as the text service's quota allows.",
        epilog="Runs against a stand-in of the text service: no key needed, nothing to pay.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--size", type=int, default=1000, metavar="N", help="the first N of HSK (default 1000)")
    what.add_argument("--file", type=Path, help="the Chinese characters in this file: text, CSV, one a line")
    parser.add_argument("--encoding", help="of the file, if it is not UTF-8: gb18030, big5, ...")
    parser.add_argument(
        "--database", metavar="FILE_OR_URL", help="where the cards go (default flashcards.db)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the closing report as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the closing report")
    parser.add_argument(
        "--speed", type=speed, default=1.0, metavar="S", help="seconds of the stand-in's in one"
    )
    parser.add_argument("--service", choices=["stand-in", "openai"], default="stand-in")
    parser.add_argument("--standin", metavar="URL", help="a stand-in that runs already, at the speed given")
    return parser


def speed(text: str) -> float:
    """A speed of the stand-in."""
    number = float(text)
    if not 0.1 <= number <= 1000:
        raise argparse.ArgumentTypeError("choose a speed from 0.1 to 1000")
    return number


if __name__ == "__main__":
    sys.exit(main())
