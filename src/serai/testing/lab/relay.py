"""Connect ssh to a host of a laboratory: ssh's ProxyCommand, with ProxyUseFdpass, run inside the laboratory's network.

It hands the connected socket to ssh and ends, so that no byte is copied on the way. Run as
``python -IS relay.py NAME ADDRESS PORT LIMIT_S``; it imports only what the interpreter has built in, since every
connection waits for it. What it says about a failure is what ssh says when it connects by itself.
"""

import _socket
import posix
import sys


def _limit_s(default_s: float) -> float:
    """The ConnectTimeout on ssh's command line: ssh applies it to its own connections, and cannot to ours."""
    with open(f"/proc/{posix.getppid()}/cmdline", "rb") as cmdline:
        words = cmdline.read().lower()
    _, found, rest = words.partition(b"connecttimeout")
    number = rest.lstrip(b"= ").partition(b"\0")[0]
    return float(number) if found and number.isdigit() else default_s


def main() -> int:
    """Connect, pass the socket through standard output, and end."""
    name, address, port, limit_s = sys.argv[1:]
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_limit_s(float(limit_s)))
        connection.connect((address, int(port)))
    except TimeoutError:
        sys.stderr.write(f"ssh: connect to host {name} port {port}: Connection timed out\n")
        return 255
    except OSError as error:
        sys.stderr.write(f"ssh: connect to host {name} port {port}: {error.strerror}\n")
        return 255
    connection.settimeout(None)
    ssh = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, 1)
    descriptor = connection.fileno().to_bytes(4, sys.byteorder)
    ssh.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
