"""disagctl generate: one request end to end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disagctl.cli.options import File, Name, Output
from disagctl.errors import UsageError

if TYPE_CHECKING:
    from disagctl.views import JobView

MAX_IMAGE_BYTES = 20 << 20


def generate(  # noqa: PLR0913, PLR0917  # one parameter an option
    name: Name,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to make.")],
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Same seed, same result.")] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="Such as 832x480.")] = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="Of a video.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="How closely to follow the prompt.")] = None,
    negative: Annotated[str | None, typer.Option("--negative", metavar="TEXT", help="What not to make.")] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", min=1, help="How many pictures.")] = None,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="A picture to start from.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Where the service has several.")] = None,
    file: File = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="With --no-wait only the id is printed.")] = True,
    output: Output = "table",
) -> None:
    """Make a picture or a video. Shows the steps, saves the result and prints where."""
    from disagctl.cli.client import Head
    from disagctl.cli.output import data, document

    body: dict[str, Any] = {
        "prompt": prompt, "model": model, "size": size, "n": count, "seed": seed, "num_frames": frames,
        "num_inference_steps": steps, "guidance_scale": guidance, "negative_prompt": negative,
        "input_reference": None if image is None else _encoded(image),
    }  # fmt: skip
    body = {key: value for key, value in body.items() if value is not None}
    if file is not None and not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent}", next="make it, or name another place with -f")
    with Head(name) as head:
        job = head.submit(body)
        if wait:
            _finish(head, job, file, output)
        else:
            document(job) if output == "json" else data(job.id)


def _finish(head: Any, job: "JobView", file: Path | None, output: str) -> None:
    from disagctl.cli.follow import check_outcome, follow
    from disagctl.cli.output import data, document, say
    from disagctl.cli.results import save
    from disagctl.views import SCHEMA_VERSION

    try:
        job = follow(head, job)
    except KeyboardInterrupt:
        say(f"it goes on without us: disagctl get {job.id} -w waits for it, disagctl cancel {job.id} stops it")
        raise
    saved = save(head, job, file) if job.status == "succeeded" else []
    if output == "json":
        document({"schema_version": SCHEMA_VERSION, "job": job, "files": [str(path) for path in saved]})
    else:
        for path in saved:
            data(str(path))
    check_outcome(job)


def _encoded(image: Path) -> str:
    """The picture as base64."""
    import base64

    try:
        with image.open("rb") as file:
            content = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as err:
        raise UsageError(f"cannot read {image}", why=str(err.strerror)) from err
    if len(content) > MAX_IMAGE_BYTES:
        raise UsageError(f"{image} is too large", why=f"at most {MAX_IMAGE_BYTES >> 20} MiB are sent")
    return base64.b64encode(content).decode()
