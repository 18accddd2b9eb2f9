"""Making a mount that only one program and its children see: no privilege is needed, and no trace is left.

The program's own process unshares its user and mount namespace, keeps its user and group as they are, mounts, hands the
device over to whoever serves it, and becomes the program. When the last process of that namespace has ended, the
kernel takes the mount away, and the device says so.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REC, MS_SLAVE = 1, 2, 4, 16384, 1 << 19
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
HELPER_S = 20.0
TRIED_S = 2.0
DEVICE = "/dev/fuse"
_REPORT = struct.Struct("<i")  # an errno, or 0; then a sentence

_libc = ctypes.CDLL(None, use_errno=True)


class CannotMount(OSError):
    """A mount cannot be made here.

    Attributes:
        hint: what may be done about it; empty where nothing is known.
    """

    def __init__(self, number: int, what: str, hint: str = "") -> None:
        super().__init__(number, what)
        self.hint = hint

    def __str__(self) -> str:
        return "%s: %s%s" % (self.strerror, os.strerror(self.errno or 0), " (%s)" % self.hint if self.hint else "")


def _checked(result: int, what: str, hint: str = "") -> None:
    if result:
        raise CannotMount(ctypes.get_errno(), what, hint)


def mount(device_fd: int, directory: str, *, read_only: bool, public: bool) -> None:
    """Mount what is served at a descriptor of the device on a directory.

    Raises:
        CannotMount: the kernel says no.
    """
    options = "fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d,default_permissions%s" % (
        device_fd,
        os.geteuid(),
        os.getegid(),
        1 << 20,
        ",allow_other" if public else "",
    )
    flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0)
    made = _libc.mount(b"serai", os.fsencode(directory), b"fuse.serai", ctypes.c_ulong(flags), options.encode("ascii"))
    _checked(made, "%s cannot be mounted on" % directory)


def unmount(directory: str) -> None:
    """Take a mount away; programs that still have files open there keep them until they close them."""
    _libc.umount2(os.fsencode(directory), MNT_DETACH)


def open_device() -> int:
    """Open ``/dev/fuse``.

    Raises:
        CannotMount: it is not there, or not for this user.
    """
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "the administrator can let everybody mount: chmod 666 %s" % DEVICE
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            hint = "this kernel has no FUSE, or it is not loaded: modprobe fuse"
        raise CannotMount(error.errno or errno.EIO, "%s cannot be opened" % DEVICE, hint) from error


def mount_by_helper(directory: str, *, read_only: bool) -> int:
    """Mount by ``fusermount3``, which may where this user may not; returns the descriptor to be served.

    Raises:
        CannotMount: it is not there, or says no.
    """
    ours, theirs = socket.socketpair()
    options = "fsname=serai,subtype=serai,default_permissions,max_read=%d%s" % (1 << 20, ",ro" if read_only else "")
    with ours:
        try:
            with theirs:
                done = subprocess.run(
                    ["fusermount3", "-o", options, "--", directory],
                    env=dict(os.environ, _FUSE_COMMFD=str(theirs.fileno())),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    timeout=HELPER_S,
                    check=False,
                )
        except (OSError, subprocess.SubprocessError) as error:
            hint = "run a COMMAND in a namespace of its own instead, or install fuse3"
            raise CannotMount(getattr(error, "errno", 0) or errno.EIO, "fusermount3 cannot be run", hint) from error
        device = _received(ours)[1]
    if device < 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise CannotMount(errno.EPERM, words or "fusermount3 does not mount it")
    return device


def unmount_by_helper(directory: str) -> None:
    """Take away what `mount_by_helper` mounted."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["fusermount3", "-u", "-z", "--", directory], timeout=HELPER_S, check=False)


def _received(channel: socket.socket) -> tuple[bytes, int]:
    """A message and the descriptor that came with it, or -1."""
    descriptors = array.array("i")
    said, control, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(descriptors.itemsize))
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if not descriptors:
        return said, -1
    os.set_inheritable(descriptors[0], False)  # noqa: FBT003 - it takes no name
    return said, descriptors[0]


def _why_no_namespace() -> str:
    for path, bad, hint in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
    ):
        try:
            with open(path) as file:
                if file.read().strip() == bad:
                    return "the administrator can allow it: " + hint
        except OSError:
            continue
    return "perhaps a container's seccomp profile, or its chroot, forbids it"


def _own_namespaces() -> None:
    """Leave the namespaces of others: of mounts, and of users where that is needed for it."""
    if os.geteuid() == 0 and _libc.unshare(CLONE_NEWNS) == 0:
        return
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise CannotMount(ctypes.get_errno(), "there may be no user namespace here", _why_no_namespace())
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", "%d %d 1" % (uid, uid)),
            ("gid_map", "%d %d 1" % (gid, gid)),
        ):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
    except OSError as error:
        raise CannotMount(error.errno or errno.EPERM, "the user namespace takes no map", _why_no_namespace()) from error


def _enter(directory: str, *, read_only: bool) -> int:
    _own_namespaces()
    _checked(
        _libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None), "mounts cannot be kept to oneself"
    )
    device = open_device()
    mount(device, directory, read_only=read_only, public=True)
    return device


def can_mount(directory: str) -> bool:
    """Whether a program could have a mount here: it is made, in a process that ends with it.

    Any thread may ask, also of many: the child does nothing but this.

    Args:
        directory: an empty one of this user.
    """
    if not os.access(DEVICE, os.R_OK | os.W_OK) or not hasattr(_libc, "unshare"):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12, of a fork where there are threads
        pid = os.fork()
    if not pid:
        try:
            _enter(directory, read_only=True)
        except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
            os._exit(1)
        os._exit(0)
    until = time.monotonic() + TRIED_S
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


class Program:
    """A program that is about to run where a directory shows what we serve.

    Attributes:
        pid: of its process.
        device: the descriptor of the mount, to be served.
    """

    def __init__(self, pid: int, device: int, channel: socket.socket) -> None:
        self.pid, self.device = pid, device
        self._channel = channel

    def go(self) -> None:
        """Let it run; the mount is served.

        Raises:
            OSError: it cannot be run.
        """
        self._channel.sendall(b"g")
        said = self._channel.recv(4096)
        self._channel.close()
        if said:
            raise OSError(_REPORT.unpack_from(said)[0], said[_REPORT.size :].decode("utf-8", "replace"))

    def cancel(self) -> None:
        """Let it not run."""
        self._channel.close()
        os.waitpid(self.pid, 0)
        os.close(self.device)


def start(argv: Sequence[str], directory: str, *, read_only: bool = False, bound: bool = True) -> Program:
    """Start a program in namespaces of its own where the directory is a mount; it waits for `Program.go`.

    This process must have one thread only: it is forked.

    Args:
        argv: the program's own words.
        directory: which is mounted on.
        read_only: whether the kernel refuses all changes.
        bound: whether the program is killed when this process ends without having waited for it.

    Raises:
        CannotMount: it cannot be had here.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        _become(theirs, argv, directory, read_only, bound)
    theirs.close()
    said, device = _received(ours)
    if device < 0:
        ours.close()
        os.waitpid(pid, 0)
        if len(said) < _REPORT.size:
            raise CannotMount(errno.EIO, "the program's process ended before it began")
        what, _, hint = said[_REPORT.size :].decode("utf-8", "replace").partition("\n")
        raise CannotMount(_REPORT.unpack_from(said)[0], what, hint)
    return Program(pid, device, ours)


def _become(channel: socket.socket, argv: Sequence[str], directory: str, read_only: bool, bound: bool) -> NoReturn:
    try:
        try:
            device = _enter(directory, read_only=read_only)
        except OSError as error:
            hint = getattr(error, "hint", "")
            text = "%s\n%s" % (error.strerror, hint)
            channel.sendall(_REPORT.pack(error.errno or errno.EIO) + text.encode())
            os._exit(1)
        channel.sendmsg([b"ok"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [device]))])
        if not channel.recv(1):
            os._exit(1)
        os.close(device)
        _stand_again()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; other programs are not used to that
            signal.signal(number, signal.SIG_DFL)
        if bound:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        try:
            _execute(list(argv))
        except OSError as error:
            channel.sendall(_REPORT.pack(error.errno or errno.EIO) + ("%s: %s" % (argv[0], error.strerror)).encode())
        os._exit(127)
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
        sys.excepthook(*sys.exc_info())
        os._exit(126)


def _execute(argv: list[str]) -> None:
    """Become a program; one without a first line that names its interpreter as a shell does it."""
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - the user's own words
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    path = argv[0] if "/" in argv[0] else shutil.which(argv[0]) or argv[0]
    os.execv("/bin/sh", ["/bin/sh", path, *argv[1:]])  # noqa: S606 - the same


def _stand_again() -> None:
    """Where the mount covers the directory that we are in, be in what is seen there now."""
    try:
        os.chdir(os.getcwd())
    except OSError:
        os.chdir("/")
