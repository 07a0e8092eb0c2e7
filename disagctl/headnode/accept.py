"""``python -m disagctl.headnode.accept``, there: takes an order from standard input, and has the head run."""

import sys

import msgspec

from disagctl import lifecycle
from disagctl.errors import DisagctlError, UnexpectedError
from disagctl.failed import as_failed
from disagctl.headnode.order import MOST_BYTES, Answer, Order
from disagctl.rented import save_deployment
from disagctl.spec import Spec, load_spec
from disagctl.state import ServicePaths, paths, read_record, write_private, write_record
from planner.run.rent import Deployment


def take(order: Order) -> None:
    """Do as it says. The same order again changes nothing. Raises DisagctlError."""
    where = paths(order.record.name)
    where.make()
    spec = _spec(where, order)
    plan = msgspec.json.decode(order.deployment, type=Deployment) if order.deployment is not None else None
    if not where.record.exists():
        if plan is None:
            raise UnexpectedError(f"{where.name} has no plan yet")
        write_record(where, msgspec.structs.replace(order.record, plan=save_deployment(where, plan)))
    record = read_record(where)
    record.head = order.record.head  # what it costs may be better known now
    write_record(where, record)
    lifecycle.begin(where, spec, plan)


def _spec(where: ServicePaths, order: Order) -> Spec:
    """The spec, with the certificate where it lies on this machine."""
    draft = where.root / "ordered.yaml"
    write_private(draft, order.spec.encode())
    spec = load_spec(draft, check_files=False)
    draft.unlink()
    if order.certificate is not None and order.private_key is not None:
        files = where.root / "certificate.pem", where.root / "private-key.pem"
        for path, data in zip(files, (order.certificate, order.private_key), strict=True):
            write_private(path, data)
        spec.api.certificate, spec.api.private_key = map(str, files)
    return spec


def main() -> int:
    """Answer on standard output."""
    answer = Answer()
    try:
        take(msgspec.json.decode(sys.stdin.buffer.read(MOST_BYTES), type=Order))
    except (DisagctlError, msgspec.DecodeError, OSError) as err:
        answer = Answer(as_failed(err))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
