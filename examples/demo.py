"""The main job: a thousand Chinese characters become flashcards. `python -m examples.demo --help`.

Exit codes: 0 all done, 1 some failed, 2 a question of usage, 130 stopped by the user (run it again to go on).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

SPEED = 15.0  # of the stand-in: 1,000 pictures at 1/s in little more than a minute
INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = parser().parse_args(arguments)
    options.speed = options.speed or (SPEED if options.service == "stand-in" else 1.0)
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
        description="Turn Chinese characters into flashcards, as fast as the quotas of three services allow.",
        epilog="A small fleet does the work: workers for texts and for decks, a queue, and a stand-in of the "
        "services. No key needed, nothing to pay. `--speed 1` is the quotas' own speed.",
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
    parser.add_argument("--texts-only", action="store_true", help="leave out pictures and sounds")
    parser.add_argument(
        "--speed", type=speed, metavar="S", help="seconds of the stand-in's in one (default 15)"
    )
    parser.add_argument("--service", type=service, choices=["stand-in", "real"], default="stand-in")
    parser.add_argument("--standin", metavar="URL", help="a stand-in that runs already, at the speed given")
    return parser


def speed(text: str) -> float:
    """A speed of the stand-in."""
    number = float(text)
    if not 0.1 <= number <= 1000:
        raise argparse.ArgumentTypeError("choose a speed from 0.1 to 1000")
    return number


def service(text: str) -> str:
    """Whom to ask; the real ones went by another name before there were pictures and sounds."""
    return "real" if text == "openai" else text


if __name__ == "__main__":
    sys.exit(main())
