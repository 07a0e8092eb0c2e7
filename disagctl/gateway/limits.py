"""What one client, or a thousand of them, may take from the gateway."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one HTTP server. Seconds are of silence or of one phase, never of computing: a picture may take hours."""

    max_body: int = 20 * MIB
    max_buffered: int = 256 * MIB  # bodies of all requests that are being read or checked at this moment
    max_connections: int = 8192  # fewer when the process may not open so many files
    max_head: int = 32 << 10  # request line and headers of one request
    max_headers: int = 100
    max_pipelined: int = 8
    head_s: float = 10.0  # from the first byte (or the connection) to the end of the headers
    body_s: float = 60.0
    keep_alive_s: int = 75  # longer than the 60 s that proxies keep an idle connection, so that they close first
    stall_s: float = 60.0  # a reader that takes less than 1 KiB/s for so long is let go
    grace_s: float = 5.0  # at shutdown, for answers under way
    poll_ms: tuple[int, int] = (250, 5000)  # least and most that ``openai-poll-after-ms`` says
    wait_slice_s: float = 60.0
