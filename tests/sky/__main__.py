"""``python -m tests.sky up|down|status|env|kill|revive|drain|resume [node…]``

Unmodified SkyPilot on one machine: a real Slurm of Debian packages with typed fake GPUs, and an EC2 with real hosts. ``up``
brings the Slurm up and leaves it up, ``down`` takes it away again; the tests use one that is up. Everything lies below one
folder (``site.py``), under a HOME of its own. It needs root.
"""

import argparse
import shlex
import sys
import time

from tests.sky.ec2 import Ec2
from tests.sky.site import Site
from tests.sky.slurm import Slurm

parser = argparse.ArgumentParser(
    prog="python -m tests.sky", description="SkyPilot's simulated infrastructure, by hand."
)
verbs = ["up", "down", "status", "env", "kill", "revive", "drain", "resume"]
parser.add_argument("verb", choices=verbs, help='`eval "$(python -m tests.sky env)"` makes a shell use it')
parser.add_argument("--ec2", action="store_true", help="up and down: the EC2 instead of the Slurm")
parser.add_argument("nodes", nargs="*", metavar="node", help=", ".join(Slurm.nodes))
args = parser.parse_args()
slurm = Slurm(Site())
chosen: Slurm | Ec2 = Ec2(Site()) if args.ec2 else slurm
match args.verb:
    case "env":
        for name, value in slurm.site.environment().items():
            print(f"export {name}={shlex.quote(value)}")
    case "up":
        reason = chosen.why_not()
        if reason:
            sys.exit(f"it cannot run here: {reason}")
        begin = time.monotonic()
        chosen.up()
        print(f"up after {time.monotonic() - begin:.1f} s")
    case "down":
        chosen.down()
    case "status":
        print("up" if slurm.is_up() else "not up", "- nodes:", ", ".join(slurm.idle()) or "none")
        print("\n".join(slurm.jobs()) or "no jobs")
    case "kill":
        for node in args.nodes:
            slurm.kill_node(node)
    case "revive":
        for node in args.nodes:
            slurm.revive(node)
    case "drain":
        slurm.drain(*args.nodes)
    case "resume":
        slurm.resume(*args.nodes)
