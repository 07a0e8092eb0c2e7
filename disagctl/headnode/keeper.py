"""``python -m disagctl.headnode.keeper SERVICE UID ACCOUNT SOCKET EXTRA``, there, as the machine's own user.

It rents for the head, which runs as ACCOUNT and has no credentials. EXTRA: what agents install.
"""

import asyncio
import logging
import pwd
import sys
from pathlib import Path

from disagctl.provision.choose import sky_folder
from disagctl.provision.renter import serve_until_told
from disagctl.provision.sky import SkyProvisioner


def main() -> None:
    """Until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    service, uid, account, path, extra = sys.argv[1:]
    allowed = pwd.getpwnam(account).pw_uid
    asyncio.run(serve_until_told(SkyProvisioner(service, uid, sky_folder(), extra), uid, allowed, Path(path)))


if __name__ == "__main__":
    main()
