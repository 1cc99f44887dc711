#!/usr/bin/env python3
"""Asks servers whether they really answer, in their own protocols, with nothing but the standard library.

    probe.py ports COUNT                              prints free ports, one a line
    probe.py once  KIND HOST PORT MEMBERS             exit code 0 when it answers now; says why not
    probe.py await KIND HOST PORT MEMBERS PID SECONDS waits; exit code 3 when the process ends, 4 when the time does

KIND is kafka, cassandra or redis; MEMBERS is how many members the server must at least see alive, itself included.
"""

import os
import random
import socket
import struct
import sys
import time

# Below Linux' ephemeral range, so that no outgoing connection takes the port of a server while it is stopped.
PORTS = range(21000, 32000)
# One answer: longer than a pause of a small heap, short enough to notice a stopped process.
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.15
# A peer that sends more than this for a probe's question is not what we think it is.
MAX_ANSWER = 1 << 20


class NotYet(Exception):
    """The server is not ready; the text says why."""


def receive(stream, count):
    if count < 0 or count > MAX_ANSWER:
        raise NotYet(f"an answer of {count} bytes")
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise NotYet("closed the connection")
        data += part
    return data


def kafka_call(stream, key, version, body):
    client = b"probe"
    request = struct.pack(">hhih", key, version, 7, len(client)) + client + body
    stream.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", receive(stream, 4))
    return receive(stream, size)


def kafka(stream, port, members):
    """API versions, then metadata: the broker itself must be a registered, unfenced member."""
    answer = kafka_call(stream, 18, 0, b"")
    (error,) = struct.unpack_from(">h", answer, 4)
    if error != 0:
        raise NotYet(f"ApiVersions error {error}")
    # Metadata version 4 of no topic: correlation, throttle, brokers (id, host, port, rack), cluster, controller.
    answer = kafka_call(stream, 3, 4, struct.pack(">i?", 0, False))
    (count,) = struct.unpack_from(">i", answer, 8)
    at = 12
    ports = []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", answer, at + 4)
        at += 6 + length
        found, rack = struct.unpack_from(">ih", answer, at)
        at += 6 + max(rack, 0)
        ports.append(found)
    if port not in ports:
        raise NotYet("the broker is not registered yet")
    if len(ports) < members:
        raise NotYet(f"{len(ports)} of {members} brokers are registered")


def cql_call(stream, opcode, body):
    stream.sendall(struct.pack(">BBhBi", 4, 0, 1, opcode, len(body)) + body)
    _, _, _, kind, size = struct.unpack(">BBhBi", receive(stream, 9))
    return kind, receive(stream, size)


def cassandra(stream, _port, members):
    """OPTIONS, STARTUP and a query: the port opens before the node serves."""
    kind, _ = cql_call(stream, 0x05, b"")
    if kind != 0x06:
        raise NotYet(f"OPTIONS answered with opcode {kind}")
    version = b"".join(struct.pack(">h", len(text)) + text for text in (b"CQL_VERSION", b"3.0.0"))
    kind, _ = cql_call(stream, 0x01, struct.pack(">h", 1) + version)
    if kind != 0x02:
        raise NotYet(f"STARTUP answered with opcode {kind}")
    # Any partition of a keyspace with three replicas. The consistency levels ONE, TWO and THREE are 1, 2 and 3, and the
    # node refuses one for which it does not see enough nodes alive.
    query = b"SELECT * FROM system_distributed.view_build_status WHERE keyspace_name='probe' AND view_name='probe'"
    kind, body = cql_call(stream, 0x07, struct.pack(">i", len(query)) + query + struct.pack(">hB", members, 0))
    if kind == 0x00:
        raise NotYet(f"a query for {members} nodes was refused with code {struct.unpack_from('>i', body)[0]:#06x}")
    if kind != 0x08:
        raise NotYet(f"a query answered with opcode {kind}")


def redis(stream, _port, _members):
    stream.sendall(b"PING\r\n")
    if receive(stream, 7) != b"+PONG\r\n":
        raise NotYet("PING was not answered with PONG")


KINDS = {"kafka": kafka, "cassandra": cassandra, "redis": redis}


def once(kind, host, port, members, seconds=ANSWER_SECONDS):
    """Gives why the server is not ready, or None when it is."""
    try:
        with socket.create_connection((host, port), timeout=seconds) as stream:
            stream.settimeout(seconds)
            KINDS[kind](stream, port, members)
        return None
    except (NotYet, OSError, struct.error) as error:
        return str(error) or type(error).__name__


def alive(pid):
    """Whether the process runs; one that ended and was not yet collected does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def wait(kind, host, port, members, pid, seconds):
    deadline = time.monotonic() + seconds
    while True:
        why = once(kind, host, port, members, min(ANSWER_SECONDS, seconds))
        if why is None:
            return 0
        if not alive(pid):
            print("the process ended")
            return 3
        if time.monotonic() >= deadline:
            print(why)
            return 4
        time.sleep(POLL_SECONDS)


def free_ports(count):
    """Ports that are free on every loopback address we use; all are held until all are found, so none comes twice."""
    held, found = [], []
    candidates = random.sample(PORTS, len(PORTS))
    for port in candidates:
        if len(found) == count:
            break
        taken = []
        try:
            for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                listener = socket.socket()
                taken.append(listener)
                listener.bind((host, port))
        except OSError:
            for listener in taken:
                listener.close()
            continue
        held += taken
        found.append(port)
    for listener in held:
        listener.close()
    return found


def main(arguments):
    if arguments[0] == "ports":
        found = free_ports(int(arguments[1]))
        print("\n".join(map(str, found)))
        return 0 if len(found) == int(arguments[1]) else 1
    command, kind, host, port, members = arguments[:5]
    if command == "once":
        why = once(kind, host, int(port), int(members))
        if why is not None:
            print(why)
        return 0 if why is None else 1
    if command == "await":
        return wait(kind, host, int(port), int(members), int(arguments[5]), float(arguments[6]))
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
