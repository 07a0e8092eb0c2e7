"""A service whose head has a machine to itself, as this machine knows it."""

from disagctl.state import HeadNode, ServicePaths, ServiceRecord, paths, write_private, write_record
from planner.domain import Offer

SMALL = Offer("aws", "us-east-1", "m6i.large", "", 0, spot=False, usd_per_hour=0.1)
SPEC = """
name: shop
model: {name: m, id: synthetic, stages: {encode: {seconds: 1}, denoise: {seconds: 1}, decode: {seconds: 1}}}
workload: {rate: 1/min, shapes: [{size: 32x32}]}
infra: aws
"""


def away(host: str = "192.0.2.7", *, created_at: float = 0.0) -> ServicePaths:
    """Its folder."""
    where = paths("shop")
    where.make()
    head = HeadNode("0badcafe", (SMALL,), str(SMALL), 0.1, created_at, "dis-12345678-head-0badcafe", "r1", created_at)
    head.host, head.user = host, "ubuntu"
    record = ServiceRecord(
        "shop", "12345678", created_at, "127.0.0.1", 8460, 1, 2, 3, "/dev/shm/none", ["aws"], head=head
    )
    write_record(where, record)
    write_private(where.spec, SPEC.encode())
    return where
