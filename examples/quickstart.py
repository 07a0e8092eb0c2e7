"""The quickstart: bring a small service up on this machine, make six pictures at once, take it down again.

It does nothing that you could not type: every command it runs is printed first.
Run it as `make quickstart`, or `python examples/quickstart.py` where disagctl is installed.
"""

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
SPEC = Path("examples/quickstart.yaml")
NAME = "quickstart"
OUT = Path("quickstart-output")
DISAGCTL = [sys.executable, "-m", "disagctl.cli.main"]
PROMPTS = (
    "a big red circle on a white background",
    "a small blue square on a pink background",
    "a big yellow triangle on a black background",
    "a big green ring on a gray background",
    "a small purple cross on a white background",
    "a big orange square on a gray background",
)
PICTURE_SIDE = 192  # the model draws 32 × 32; the sheet shows every pixel 6 × 6
CAPTION_HEIGHT = 40
MARGIN = 12
COLUMNS = 3
GENERATE_S = 300.0
UNKNOWN = 2  # the exit code for a service that does not exist


class Failed(Exception):
    """A step did not work; the command has said why."""


def main() -> int:
    """The quickstart; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", action="store_true", help="leave the service running")
    parser.add_argument("--seed", type=int, default=None, help="make the same pictures again")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminated)
    started_s = time.monotonic()
    code = 1
    try:
        disagctl("up", str(SPEC))
        pictures = generate(options.seed if options.seed is not None else random.randrange(10_000))
        sheet = contact_sheet(pictures)
        say(f"{len(pictures)} pictures in {OUT}/, all of them on one sheet: {sheet}")
        code = 0
    except Failed as err:
        say(f"failed: {err}")
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    finally:
        if not options.keep and not take_down():
            code = code or 7
    if code == 0:
        ending = f"; end it with disagctl down {NAME} -y" if options.keep else ""
        say(f"done in {time.monotonic() - started_s:.0f} s{ending}")
    return code


def disagctl(*args: str) -> None:
    """One command, its words going to the terminal."""
    echo(*args)
    if subprocess.run([*DISAGCTL, *args], cwd=ROOT, check=False).returncode:
        raise Failed(f"disagctl {args[0]}")


def generate(seed: int) -> dict[str, Path]:
    """All prompts at once; prompt → file."""
    (ROOT / OUT).mkdir(exist_ok=True)
    files = {prompt: OUT / f"{prompt.split(' on ')[0].removeprefix('a ').replace(' ', '-')}.png" for prompt in PROMPTS}
    running: list[subprocess.Popen[str]] = []
    for number, (prompt, file) in enumerate(files.items()):
        args = ("generate", NAME, prompt, "--seed", str(seed + number), "-f", str(file))
        echo(*args, end=" &")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        running.append(subprocess.Popen([*DISAGCTL, *args], cwd=ROOT, text=True, **quiet))  # type: ignore[call-overload]
    try:
        disagctl("status", NAME)
        for process in running:
            _, words = process.communicate(timeout=GENERATE_S)
            if process.returncode:
                raise Failed(words.strip().splitlines()[-1] if words.strip() else "disagctl generate")
    except subprocess.TimeoutExpired as err:
        raise Failed(f"a picture took more than {GENERATE_S:g} s") from err
    finally:
        for process in running:
            process.kill()
            process.wait()
    return {prompt: ROOT / file for prompt, file in files.items()}


def contact_sheet(pictures: dict[str, Path]) -> Path:
    """All pictures with their prompts, on one PNG."""
    rows = -(-len(pictures) // COLUMNS)
    width, height = PICTURE_SIDE + MARGIN, PICTURE_SIDE + CAPTION_HEIGHT + MARGIN
    sheet = Image.new("RGB", (COLUMNS * width + MARGIN, rows * height + MARGIN), "#f4f4f2")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for index, (prompt, path) in enumerate(pictures.items()):
        x, y = MARGIN + index % COLUMNS * width, MARGIN + index // COLUMNS * height
        with Image.open(path) as picture:
            sheet.paste(picture.convert("RGB").resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.NEAREST), (x, y))
        draw.rectangle((x - 1, y - 1, x + PICTURE_SIDE, y + PICTURE_SIDE), outline="#c8c8c4")
        first, _, second = prompt.partition(" on ")
        draw.text((x, y + PICTURE_SIDE + 4), f"{first}\non {second}", fill="#202020", font=font, spacing=2)
    path = OUT / "contact-sheet.png"
    sheet.save(ROOT / path)
    return path


def take_down() -> bool:
    """End the service, whatever happened before. The pictures are fetched; a second Ctrl-C is not taken as an answer."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        disagctl("down", NAME, "-y", "--discard")
    except Failed:
        if (
            subprocess.run([*DISAGCTL, "status", NAME], cwd=ROOT, check=False, capture_output=True).returncode
            == UNKNOWN
        ):
            return True  # interrupted before there was a service
        say(f"it may still run: disagctl down {NAME} -y")
        return False
    finally:
        signal.signal(signal.SIGINT, before)
    return True


def echo(*args: str, end: str = "") -> None:
    """Show a command as one would type it."""
    words = (f'"{word}"' if " " in word else word for word in args)
    print(f"\n$ disagctl {' '.join(words)}{end}" if not end else f"$ disagctl {' '.join(words)}{end}", flush=True)


def say(text: str) -> None:
    """A word of our own."""
    print(f"\n{text}", flush=True)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
