"""Small price lists where SkyPilot looks for them. Without the checksum files beside them it takes them for the user's own and
never fetches others."""

import csv
from pathlib import Path

HEADER = [
    *("InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "GpuInfo"),
    *("Price", "SpotPrice", "Region", "AvailabilityZone", "Arch"),
]
MEMORY_GB = {"H100": 80, "A100": 40, "L4": 24}

# name, GPU, how many, processors, memory in GiB, USD an hour, and as spot
AWS_TYPES = [
    ("m6i.large", "", 0, 2, 8, 0.096, 0.04),
    ("m6i.2xlarge", "", 0, 8, 32, 0.384, 0.15),
    ("g6.xlarge", "L4", 1, 4, 16, 0.805, 0.32),
    ("p4d.24xlarge", "A100", 8, 96, 1152, 32.77, 12.0),
    ("p5.4xlarge", "H100", 1, 16, 256, 6.88, 2.6),
]
AWS_ZONES = {"us-east-1": ["use1-az1", "use1-az2"], "us-west-2": ["usw2-az1", "usw2-az2"]}
DEARER = {"us-east-1": 1.0, "us-west-2": 1.05}
AMI = "ami-12c6146b"
AMI_TAGS = ("custom-cpu-ubuntu", "custom-gpu-ubuntu", "gpu-ubuntu-2204", "custom-gpu-ubuntu-cuda13")


def write_catalogs(home: Path) -> None:
    """Write them below ``home``/.sky."""
    from sky.skylet import constants

    root = home / ".sky" / "catalogs" / constants.CATALOG_SCHEMA_VERSION
    clouds = "['AWS', 'Slurm']"
    _write(root / "common/accelerators.csv", ["AcceleratorName", "Clouds"], [[gpu, clouds] for gpu in MEMORY_GB])
    makers = [[gpu, memory, "NVIDIA"] for gpu, memory in MEMORY_GB.items()]
    _write(root / "common/metadata.csv", ["GPU", "MemoryGB", "Manufacturer"], makers)
    _write(root / "aws/vms.csv", HEADER, list(_aws_rows()))
    images = [
        [f"skypilot:{tag}", region, "ubuntu", "22.04", AMI, "20260101"] for region in AWS_ZONES for tag in AMI_TAGS
    ]
    _write(root / "aws/images.csv", ["Tag", "Region", "OS", "OSVersion", "ImageId", "CreationDate"], images)
    quotas = [[kind[0], "L-1216C47A", "L-34B43A08"] for kind in AWS_TYPES]
    _write(
        root / "aws/instance_quota_mapping.csv", ["InstanceType", "OnDemandInstanceCode", "SpotInstanceCode"], quotas
    )


def _aws_rows():
    for region, zones in AWS_ZONES.items():
        for name, gpu, count, cpus, memory, price, spot in AWS_TYPES:
            for index, zone in enumerate(zones):
                usd, usd_spot = price * DEARER[region], spot * DEARER[region] * (1 + 0.05 * index)
                about = [name, gpu, count or "", cpus, memory, _gpu_info(gpu, count) if gpu else ""]
                yield [*about, round(usd, 4), round(usd_spot, 4), region, zone, "x86_64"]


def _gpu_info(gpu: str, count: int) -> str:
    mib = MEMORY_GB[gpu] * 1024
    one = {"Name": gpu, "Manufacturer": "NVIDIA", "Count": count, "MemoryInfo": {"SizeInMiB": mib}}
    return str({"Gpus": [one], "TotalGpuMemoryInMiB": count * mib})


def _write(path: Path, header: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
