"""disagctl cancel: stop a request."""

from disagctl.cli.options import Output, RequestId


def cancel(id: RequestId, output: Output = "table") -> None:
    """Cancel a request. Workers stop at the next step."""
    from disagctl.cli.client import Head
    from disagctl.cli.output import data, document
    from disagctl.state import service_of

    with Head(service_of(id)) as head:
        job = head.cancel(id)
    if output == "json":
        document(job)
    else:
        data(f"{job.id} {job.status}")
