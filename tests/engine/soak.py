"""Many seeds in a row: ``python -m tests.engine.soak FIRST COUNT``, or one seed told step by step: ``… soak SEED``."""

import sys
import time
from collections import Counter
from typing import Final

from planner.run.orders import DispatchConfig, Kind
from tests.engine import faults
from tests.engine.world import Trouble, World

POLICIES: Final[tuple[Kind, ...]] = ("edf", "genserve", "least_laxity")


def make(seed: int, *, most: int = 7, talk: bool = False) -> World:
    """A world whose size and shape vary with the seed."""
    shape = seed % 5
    world = World(
        seed,
        wanted=((1, 3, 2), (2, 2, 1), (1, 1, 1), (1, 2, 1), (1, 2, 1, 1))[shape],
        nodes=((4, 2), (1,), (0,), (2, 2), (3, 0))[shape],
        stages=("encode", "denoise", "decode") if shape < 4 else ("encode", "denoise", "upscale", "decode"),
        synchronous=seed % 7 == 3,
        requests=24 if seed % 3 else 40,
        talk=talk,
        batch=4 if seed % 4 in (1, 2) else 1,
        batch_wait_s=0.3 if seed % 8 in (1, 2) else 0.0,
        dispatch=None if seed % 2 == 0 else DispatchConfig(POLICIES[seed // 2 % 3]),
    )
    faults.draw(world, most=most)
    return world


def main() -> None:
    first, most = int(sys.argv[1]), int(sys.argv[3]) if len(sys.argv) > 3 else 7
    if len(sys.argv) == 2:
        make(first, talk=True).play(faults.END_S)
        return
    begin, bad = time.perf_counter(), Counter[str]()
    for seed in range(first, first + int(sys.argv[2])):
        try:
            make(seed, most=most).play(faults.END_S)
        except Trouble as err:
            lines = str(err).splitlines()
            bad[lines[0].partition(" s: ")[2][:60]] += 1
            if sum(bad.values()) <= 40:
                print(lines[0][:300])
    print(f"{sum(bad.values())} bad of {sys.argv[2]}, {time.perf_counter() - begin:.1f} s")
    for text, count in bad.most_common():
        print(count, text)


if __name__ == "__main__":
    main()
