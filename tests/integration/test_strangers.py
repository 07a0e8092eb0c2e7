"""RELIABILITY 15: whoever is not enrolled gets nothing decoded, and the service goes on."""

import os
import socket

import msgspec
import zmq

from disagctl import keys
from stages.protocol import Beat
from tests.integration.harness import Service

CONTROL_PORTS = ("hub_port", "enrol_port", "data_port")


def ports(service: Service) -> list[int]:
    return [getattr(service.record, name) for name in CONTROL_PORTS]


def serves(service: Service, run: str) -> None:
    assert len(service.images(range(4), run)) == 4


def test_garbage_on_every_port(synthetic: Service) -> None:
    held = []
    for port in ports(synthetic):
        for _ in range(20):
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            connection.sendall(os.urandom(4096))
            held.append(connection)
    serves(synthetic, "garbage")
    for connection in held:
        connection.close()


def test_unknown_and_wrong_keys(synthetic: Service) -> None:
    head = keys.head_keys(synthetic.where.keys)
    public, secret = zmq.curve_keypair()
    frame = (1).to_bytes(4, "little") + msgspec.msgpack.encode([Beat(0)])
    with zmq.Context() as context:
        for server_key in (head.public, public.decode()):
            for port in (synthetic.record.hub_port, synthetic.record.data_port):
                client = context.socket(zmq.DEALER)
                client.setsockopt(zmq.LINGER, 0)
                client.setsockopt(zmq.ROUTING_ID, b"n1.cpu0.1")  # a name that exists
                client.curve_publickey, client.curve_secretkey = public, secret
                client.curve_serverkey = server_key.encode()
                client.connect(f"tcp://127.0.0.1:{port}")
                client.send(frame)
                assert not client.poll(300), "nobody answers a stranger"
                client.close()
        plain = context.socket(zmq.DEALER)
        plain.setsockopt(zmq.LINGER, 0)
        plain.connect(f"tcp://127.0.0.1:{synthetic.record.hub_port}")
        plain.send(frame)
        assert not plain.poll(300)
        plain.close()
    serves(synthetic, "keys")


def test_enrolment_wants_a_token(synthetic: Service) -> None:
    head = keys.head_keys(synthetic.where.keys)
    public, secret = zmq.curve_keypair()
    with zmq.Context() as context:
        client = context.socket(zmq.DEALER)
        client.setsockopt(zmq.LINGER, 0)
        client.curve_publickey, client.curve_secretkey = public, secret
        client.curve_serverkey = head.public.encode()
        client.connect(f"tcp://127.0.0.1:{synthetic.record.enrol_port}")
        for frames in ([b"guess", b"n1", public], [b"guess", b"n9", public], [b"one frame"], [b"", b"", b"", b""]):
            client.send_multipart(frames)
        assert not client.poll(500)
        client.close()
    serves(synthetic, "token")


def test_secrets_are_the_owners_alone(synthetic: Service) -> None:
    root = synthetic.where.root
    assert root.stat().st_mode & 0o777 == 0o700
    for path in (synthetic.where.keys, synthetic.where.record, synthetic.where.store, synthetic.where.admin_socket):
        assert path.stat().st_mode & 0o077 == 0, path
    assert not list(root.glob("nodes/*/bootstrap.json")), "the token is gone once it has been used"
    lines = [" ".join(p.cmdline()) for p in synthetic.processes()]
    secret = keys.head_keys(synthetic.where.keys).secret
    assert not any(secret in line for line in lines)


def test_no_prompt_in_any_log(synthetic: Service) -> None:
    synthetic.images(range(3), "canary", prompt="CANARY-7f3a")
    for file in synthetic.where.logs.iterdir():
        assert "CANARY-7f3a" not in file.read_text(errors="replace"), file
