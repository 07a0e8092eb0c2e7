"""One name for each accelerator, whatever a cloud calls it. Canonical names are SkyPilot's where it has one."""

import re

# Accelerators with facts in the shipped GPU table. Left: canonical; right: what else it has been called, normalised by _key.
_ALIASES: dict[str, tuple[str, ...]] = {
    "T4": ("teslat4",),
    "V100": ("v10016gb", "teslav100", "v100sxm2", "v100sxm216gb"),
    "A10": (),
    "A10G": (),
    "A40": (),
    "A6000": ("rtxa6000", "rtx6000ampere"),
    "RTX3090": ("geforcertx3090", "3090"),
    "L4": (),
    "L20": (),
    "L40": (),
    "L40S": (),
    "RTX4090": ("geforcertx4090", "4090"),
    "RTX6000-Ada": ("rtx6000ada", "rtxada6000", "rtx6000adageneration", "6000ada"),
    "RTX5090": ("geforcertx5090", "5090"),
    "RTX-PRO-6000": ("rtxpro6000", "rtxpro6000ws", "rtxpro6000workstation", "rtxpro6000blackwell"),
    "RTX-PRO-6000-SE": (
        "rtxpro6000s",
        "rtxpro6000se",
        "rtxpro6000server",
        "rtxproserver6000",
        "rtxpro6000serveredition",
    ),
    "A100": ("a10040gb", "a100sxm440gb", "a100pcie40gb"),
    "A100-80GB": ("a10080gb", "a100sxm480gb", "a100sxm", "a10080gbsxm", "a10080gbpcie", "a100pcie80gb", "a10080gbsxm4"),
    "H100-PCIE": ("h100pcie", "h10080gbpcie"),
    "H100-NVL": ("h100nvl",),
    "H100": ("h10080gb", "h100sxm", "h100sxm5", "h10080gbhbm3", "h100mega80gb", "h100mega"),
    "H20": (),
    "H800": (),
    "GH200": ("gh20096gb", "gh200480gb"),
    "H200": ("h200sxm", "h200141gb"),
    "B200": ("b200sxm", "b200180gb"),
    "B300": ("b300sxm",),
    "MI300X": ("amdinstinctmi300x",),
}

# Real accelerators that clouds list and that no stage here runs on: their rows are left out, not errors.
_IGNORED = frozenset(
    """
    k80 m60 m4000 p4 p40 p100 v10032gb v100s rtx4000 rtx4000ada rtx5000 rtx5000ada rtx6000 a2 a16 a30 a4000 a5000
    a4500 rtxa4000 rtxa4500 rtxa5000 rtx2080ti rtx3060 rtx3070 rtx3080 rtx3080ti rtx3090ti rtx4060ti rtx4070
    rtx4070ti rtx4080 rtx4080super rtx5060ti rtx5070 rtx5070ti rtx5080 rtx2000ada rtx4000sfada rtx4500ada titanrtx
    titanv titanxp gtx1080 gtx1080ti gtx1660 a800 a80080gb b100 gb200 gb300 mi25 mi100 mi210 mi250 mi250x mi300a
    mi325x mi355x radeonprov520 radeonpro gaudi gaudihl205 hl205 trainium trainium2 trn1 inferentia inferentia2
    inferentia1
    """.split()  # noqa: SIM905
)

_BY_KEY = {
    alias: name for name, aliases in _ALIASES.items() for alias in (re.sub("[^a-z0-9]", "", name.lower()), *aliases)
}


def _key(name: str) -> str:
    key = re.sub("[^a-z0-9]", "", name.lower())
    return key.removeprefix("nvidia")


def canonical(name: str) -> str | None:
    """The canonical name, or None for one that is not known. ``NVIDIA H100 80GB HBM3`` → ``H100``."""
    return _BY_KEY.get(_key(name))


def ignored(name: str) -> bool:
    """Whether this is a real accelerator that is left out on purpose (also every TPU)."""
    return _key(name) in _IGNORED or _key(name).startswith("tpu")


def known() -> tuple[str, ...]:
    """Every canonical name."""
    return tuple(_ALIASES)
