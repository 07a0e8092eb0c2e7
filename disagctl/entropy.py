"""Random bytes of the operating system, a page at a time: a system call for each id would be a good part of accepting one."""

import os
from typing import Final

PAGE_BYTES: Final = 4096

_page = b""
_used = 0


def token_bytes(count: int) -> bytes:
    """``count`` random bytes (at most a page), each given out once. On the event loop's thread only, never after a fork."""
    global _page, _used  # noqa: PLW0603  # the page is the point
    if _used + count > len(_page):
        _page, _used = os.urandom(PAGE_BYTES), 0
    _used += count
    return _page[_used - count : _used]
