"""Small real documents: a page of PDF and a picture in PNG, the same bytes each time."""

from __future__ import annotations

import struct
import zlib

_SIDE = 96


def manual(title: str) -> bytes:
    """Return a PDF of one page that shows the title (ISO 32000-1, 7.5)."""
    text = f"BT /F1 24 Tf 72 720 Td (Operations manual: {title}) Tj ET".encode()
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(text), text),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    page, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, start=1):
        offsets.append(len(page))
        page += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    rows = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    table = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(bodies) + 1, rows)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, len(page))
    return page + table + trailer


def picture(colour: tuple[int, int, int]) -> bytes:
    """Return a PNG of a tail fin in a colour (PNG specification, third edition, 11.2)."""
    white = b"\xff\xff\xff"
    lines = b"".join(
        b"\0" + white * (_SIDE - row) + bytes(colour) * row for row in range(_SIDE)
    )  # each line begins with its filter, 0 for none
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
