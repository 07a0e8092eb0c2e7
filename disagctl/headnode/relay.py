"""``python -m disagctl.headnode.relay SERVICE``: what comes in goes to the service's administration socket, and back."""

import os
import socket
import sys
import threading

from disagctl.gateway.sockets import short_path
from disagctl.state import paths

PIECE = 1 << 16


def main() -> None:
    """Until either side has said all."""
    with short_path(paths(sys.argv[1]).admin_socket) as path, socket.socket(socket.AF_UNIX) as head:
        head.connect(path)
        threading.Thread(target=_send, args=(head,), daemon=True).start()
        while piece := head.recv(PIECE):
            _write(piece)


def _send(head: socket.socket) -> None:
    while piece := os.read(0, PIECE):
        head.sendall(piece)
    head.shutdown(socket.SHUT_WR)


def _write(piece: bytes) -> None:
    while piece:
        piece = piece[os.write(1, piece) :]


if __name__ == "__main__":
    main()
