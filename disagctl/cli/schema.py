"""disagctl schema: the JSON Schema of service.yaml."""


def schema() -> None:
    """Print the JSON Schema of service.yaml."""
    from disagctl.cli.output import document
    from disagctl.spec import json_schema

    document(json_schema())
