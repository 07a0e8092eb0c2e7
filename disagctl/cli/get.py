"""disagctl get: one request, and its result."""

from disagctl.cli.options import File, Output, RequestId, Watch


def get(id: RequestId, file: File = None, watch: Watch = False, output: Output = "table") -> None:
    """Show a request, or fetch its result with -f. With -w it waits for the end."""
    from disagctl.cli.client import Head
    from disagctl.cli.follow import check_outcome, follow
    from disagctl.cli.output import data, document, show
    from disagctl.cli.results import save
    from disagctl.state import service_of
    from disagctl.ui.job import job_view
    from disagctl.views import SCHEMA_VERSION

    with Head(service_of(id)) as head:
        job = head.job(id)
        if watch:
            job = follow(head, job)
        if file is None:
            if output == "json":
                document(job)
            else:
                show(job_view(job))
            return
        check_outcome(job)
        saved = save(head, job, file)
    if output == "json":
        document({"schema_version": SCHEMA_VERSION, "job": job, "files": [str(path) for path in saved]})
        return
    for path in saved:
        data(str(path))
