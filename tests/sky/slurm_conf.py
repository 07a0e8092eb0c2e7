"""The Slurm that SkyPilot sees: six nodes with typed GPUs that are stand-ins, on addresses of the loopback network."""

from pathlib import Path

from tests.sky.site import NUMBER

CLUSTER = "skytest"
CTLD_PORT = 16817 + 100 * NUMBER
FIRST_NODE_PORT = 16831 + 100 * NUMBER
SSH_PORT = 2222 + NUMBER
CPUS = 16
MEMORY_MIB = 65536

GPUS = {"h100-1": "H100", "h100-2": "H100", "a100-1": "A100", "l4-1": "L4", "l4-2": "L4", "cpu-1": ""}
GPUS_A_NODE = 2
PRICES = {"H100": 2.5, "A100": 1.4, "L4": 0.5}  # USD an hour and GPU
CPU_PRICE, MEMORY_PRICE = 0.01, 0.001
NODES = tuple(GPUS)

COMMON = """\
ClusterName={cluster}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.socket
CryptoType=crypto/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd-%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
WaitTime=0
InactiveLimit=0
BatchStartTimeout=30
MailProg=/bin/true
"""


def address(node: str) -> str:
    """Where a node is reached."""
    return f"127.0.{10 + NUMBER}.{NODES.index(node) + 1}"


def slurm_conf(base: Path) -> str:
    """slurm.conf: a partition for each kind of GPU."""
    lines = [COMMON.format(cluster=CLUSTER, port=CTLD_PORT, base=base)]
    for index, node in enumerate(NODES):
        gres = f" Gres=gpu:{GPUS[node]}:{GPUS_A_NODE}" if GPUS[node] else ""
        lines.append(
            f"NodeName={node} NodeAddr={address(node)} NodeHostname=localhost Port={FIRST_NODE_PORT + index} "
            f"CPUs={CPUS} RealMemory={MEMORY_MIB}{gres} State=UNKNOWN\n"
        )
    for kind in dict.fromkeys(GPUS.values()):
        members = ",".join(node for node in NODES if GPUS[node] == kind)
        default = "" if kind else " Default=YES"
        lines.append(f"PartitionName={kind.lower() or 'cpu'} Nodes={members} MaxTime=12:00:00 State=UP{default}\n")
    return "".join(lines)


def gres_conf(base: Path) -> str:
    """gres.conf: the stand-ins for GPU device files."""
    rows = [
        f"NodeName={node} Name=gpu Type={GPUS[node]} File={base}/dev/nvidia[0-{GPUS_A_NODE - 1}]\n"
        for node in NODES
        if GPUS[node]
    ]
    return "AutoDetect=off\n" + "".join(rows)


def hosts() -> str:
    """/etc/hosts as the nodes have it: SkyPilot resolves their names there."""
    return "127.0.0.1 localhost\n" + "".join(f"{address(node)} {node}\n" for node in NODES)


def sky_config() -> str:
    """What ~/.sky/config.yaml says of this cluster. No place in the queue within a while is "no capacity"."""
    gpus = ", ".join(f"{kind}: {price}" for kind, price in PRICES.items())
    return (
        "slurm:\n"
        "  provision_timeout: 30\n"
        "  cluster_configs:\n"
        f"    {CLUSTER}:\n"
        f"      pricing: {{cpu: {CPU_PRICE}, memory: {MEMORY_PRICE}, accelerators: {{{gpus}}}}}\n"
    )
