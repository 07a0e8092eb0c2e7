"""A request as text: one line while it runs, a small table when it is looked at. Pure."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from disagctl.ui.tables import NOTHING, clean, nbytes, seconds, state, table
from disagctl.views import JobView

_PROMPT_SHOWN = 200


def progress_line(job: JobView) -> str:
    """``queued``, ``denoise 12/20``, ``denoise 12/20 on 2 GPUs``, ``succeeded``."""
    if job.status != "running" or job.stage is None:
        return job.status
    spread = "" if job.degree is None else f" on {job.degree} GPU{'s'[: job.degree - 1]}"
    return (f"{job.stage} {job.step}/{job.steps}" if job.steps > 1 else job.stage) + spread


def job_view(job: JobView) -> Group:
    """The request, its items and, where it failed, why."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("request", job.id)
    facts.add_row("status", state(job.status).append("" if job.status != "running" else f" — {progress_line(job)}"))
    facts.add_row("progress", f"{job.progress} %")
    facts.add_row("model", clean(job.model))
    facts.add_row("prompt", clean(str(job.params.get("prompt", NOTHING)), _PROMPT_SHOWN))
    if job.completed_at is not None:
        facts.add_row("took", seconds(job.completed_at - job.created_at))
    parts: list[RenderableType] = [facts]
    if job.error is not None:
        parts.append(Text(f"{clean(job.error.code)}: {clean(job.error.message)}", style="bold red"))
    items = table("ITEM", "STATUS", "SEED", "ATTEMPTS", "TYPE", "SIZE", right=("SEED", "ATTEMPTS", "SIZE"))
    for item in job.items:
        size = nbytes(item.nbytes) if item.nbytes else NOTHING
        items.add_row(item.id, state(item.status), str(item.seed), str(item.attempts), item.mime or NOTHING, size)
    return Group(*parts, Text(), items)
