"""A load over HTTP keep-alive: ``python -m bench.http_load HOST PORT IN_FLIGHT SECONDS`` prints requests a second.

Plain asyncio streams: a client library would take more of the two processors than the server under test.
"""

import asyncio
import sys
import time

BODY = b'{"prompt": "a red circle", "size": "64x64", "num_inference_steps": 4}'


async def lane(host: str, port: int, end: float) -> int:
    """One connection until ``end``; returns how many requests succeeded in time."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    count = 0
    try:
        while True:
            writer.write(request)
            status, length = 0, 0
            while (line := await reader.readline()) not in (b"\r\n", b""):
                if line.startswith(b"HTTP/"):
                    status = int(line.split()[1])
                elif line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            await reader.readexactly(length)
            if status != 200:
                msg = f"answer {status}"
                raise RuntimeError(msg)
            if time.perf_counter() > end:
                return count
            count += 1
    finally:
        writer.close()


async def main() -> None:
    """Entry point."""
    host, port, in_flight, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    end = time.perf_counter() + seconds
    counts = await asyncio.gather(*(lane(host, port, end) for _ in range(in_flight)))
    print(sum(counts) / seconds)


if __name__ == "__main__":
    asyncio.run(main())
