"""The peer: Ray Serve with three composed deployments, as a Python user would write it. Runs in an environment of its own.

    python bench/ray_chain.py SECONDS        (with the interpreter of an environment that has ray[serve])

prints one JSON object: requests a second with 64 in flight through the deployment handle and over HTTP, the median latency
with one in flight, and requests a second with 8 MiB passed between the deployments and 8 in flight. It imports nothing of ours.
"""

# mypy: ignore-errors
# ray is not in the development environment: nothing here can be checked against it.

import asyncio
import json
import os
import statistics
import sys
import time
import urllib.request

import ray
from ray import serve

BODY = b'{"prompt": "a red circle", "size": "64x64", "num_inference_steps": 4}'
MIB8 = 8 << 20


@serve.deployment(max_ongoing_requests=128)
class Encode:
    def __call__(self, size: int) -> bytes:
        return bytes(size)


@serve.deployment(max_ongoing_requests=128)
class Denoise:
    def __call__(self, data: bytes) -> bytes:
        return bytes(len(data))


@serve.deployment(max_ongoing_requests=128)
class Decode:
    def __call__(self, data: bytes) -> int:
        return len(data)


@serve.deployment(max_ongoing_requests=256)
class Chain:
    """Stage by stage; what a stage returns is handed on by reference, so that it need not pass through here."""

    def __init__(self, encode, denoise, decode) -> None:
        self.encode, self.denoise, self.decode = encode, denoise, decode

    async def run(self, size: int) -> int:
        return await self.decode.remote(self.denoise.remote(self.encode.remote(size)))

    async def __call__(self, request) -> str:
        await request.json()
        return str(await self.run(64))


async def drive(one, in_flight: int, seconds: float) -> list[float]:
    """Latencies of the calls that ended in time, ``in_flight`` at once."""
    latencies, end = [], time.perf_counter() + seconds

    async def lane() -> None:
        while True:
            begin = time.perf_counter()
            await one()
            now = time.perf_counter()
            if now > end:
                return
            latencies.append(now - begin)

    await asyncio.gather(*(lane() for _ in range(in_flight)))
    return latencies


async def http(port: int, in_flight: int, seconds: float) -> float:
    """Requests a second over keep-alive connections."""
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(in_flight)]

    async def one() -> None:
        reader, writer = streams.pop()
        writer.write(head.encode() + BODY)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in answer:
            await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readexactly(int(answer.split(b"content-length:")[1].split(b"\r\n")[0]))
        streams.append((reader, writer))

    done = await drive(one, in_flight, seconds)
    for _, writer in streams:
        writer.close()
    return len(done) / seconds


async def measure(handle, port: int, seconds: float) -> dict[str, float]:
    """All four figures."""

    def calls(size: int):
        async def one() -> None:
            await handle.run.remote(size)

        return one

    await drive(calls(64), 16, min(2.0, seconds))
    many = await drive(calls(64), 64, seconds)
    single = await drive(calls(64), 1, seconds)
    big = await drive(calls(MIB8), 8, seconds)
    return {
        "throughput_c64": len(many) / seconds,
        "http_throughput_c64": await http(port, 64, seconds),
        "latency_c1_p50_ms": statistics.median(single) * 1e3,
        "handoff_8mib_c8": len(big) / seconds,
    }


def main() -> None:
    """Entry point."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8765
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    handle = serve.run(Chain.bind(Encode.bind(), Denoise.bind(), Decode.bind()))
    urllib.request.urlopen(f"http://127.0.0.1:{port}/", data=BODY, timeout=30).read()
    figures = asyncio.run(measure(handle, port, float(sys.argv[1])))
    serve.shutdown()
    ray.shutdown()
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
