"""A picture for a prompt: a small symmetrical pattern, another one for every prompt. A valid PNG."""

import hashlib
import struct
import zlib

CELLS, PIXELS = 8, 4  # cells in a row, pixels in a cell
SIDE = CELLS * PIXELS  # pixels
SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGB = 2  # the colour type


def draw(prompt: str) -> bytes:
    """The file."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, RGB, 0, 0, 0)
    rows = b"".join(row(prompt, y // PIXELS) for y in range(SIDE))
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def row(prompt: str, y: int) -> bytes:
    """One line of pixels, after the byte that says that it is not filtered."""
    red, green, blue, *bits = hashlib.sha256(prompt.encode()).digest()
    left = [bits[y] >> x & 1 for x in range(CELLS // 2)]
    colours = [bytes((red, green, blue)) if bit else b"\xff\xff\xff" for bit in (*left, *reversed(left))]
    return b"\0" + b"".join(colour * PIXELS for colour in colours)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of the file, with its length before and its checksum behind."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
