"""What state a node is in, from what SkyPilot says of its launch, its cluster and its job. Pure."""

from typing import Final, Literal

from disagctl.provision.sky.client import Cluster, Launch

Finding = Literal["launching", "up", "gone", "ask_launch", "ask_job", "ended"]

STARTING: Final = frozenset({"INIT", "PENDING", "SETTING_UP"})
RUNNING: Final = "RUNNING"


def judge(launch: Launch | None, cluster: Cluster | None, *, ran: bool) -> Finding:
    """``ran``: its agent's job has been seen running. From then on heartbeats tell of the agent, better than SkyPilot can.

    ask_launch: the launch failed, and says why; what is left of it has to go. ask_job: the machine is there, and its job
    tells whether the agent runs. A cluster that SkyPilot no longer lists is gone; INIT after it was up says only that
    SkyPilot's own runtime there does not answer.
    """
    if launch is not None and launch.state == "running":
        return "launching"
    if launch is not None and launch.state == "failed":
        return "ask_launch"
    if cluster is None:
        return "gone"
    if cluster.status == "UP" or (cluster.status == "INIT" and cluster.ever_up):
        return "up" if ran else "ask_job"
    return "ended"


def judge_job(status: str | None) -> Finding:
    """A job that cannot be asked for yet is starting."""
    if status is None or status in STARTING:
        return "launching"
    return "up" if status == RUNNING else "ended"
