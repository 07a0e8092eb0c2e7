"""Machines through SkyPilot: any cloud it knows, Kubernetes, Slurm."""

from disagctl.provision.sky.provisioner import SkyProvisioner

__all__ = ["SkyProvisioner"]
