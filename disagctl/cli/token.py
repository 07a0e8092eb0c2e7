"""disagctl token: a bearer token for the inference API."""

from disagctl.cli.options import Name, Output


def token(name: Name, output: Output = "table") -> None:
    """Make a token for the inference API. It is shown this once; only its hash is kept."""
    from disagctl.cli.client import Head
    from disagctl.cli.output import data, document, say
    from disagctl.views import SCHEMA_VERSION

    with Head(name) as head:
        value = head.token()
    if output == "json":
        document({"schema_version": SCHEMA_VERSION, "name": name, "token": value})
        return
    data(value)
    say("shown this once: send it as `Authorization: Bearer …`")
