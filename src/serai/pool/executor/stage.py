"""A task's place on the node: its directory, its inputs laid down, its outputs checked and sent."""

import os
import shutil
import stat

from . import wire

MISSING_OUTPUT, INPUT, OUTPUT = 6, 7, 8


class StageError(Exception):
    """An input or an output is not as declared; ``cause`` is the number of the task's cause."""

    def __init__(self, cause, sentence):
        Exception.__init__(self, sentence)
        self.cause = cause


class Stage:
    """The place of a lane's tasks.

    Args:
        base: the executor's own directory on the node.
        number: the lane's number.
    """

    def __init__(self, base, number):
        self._inputs = os.path.join(base, "in")
        self.directory = os.path.join(base, "task-%d" % number)
        self.bad = {}  # key of an input: why it did not arrive
        self._used = False
        os.makedirs(self.directory, exist_ok=True)

    def lay(self, shared, own, landing):
        """Lay down a task's inputs: ``shared`` ones as links, its ``own`` ones moved from where they arrived.

        Args:
            shared: (key, path) pairs.
            own: (key, path) pairs.
            landing: where outputs are written on this machine: [temporary directory, path in it] pairs, or None.
        """
        for key, path in shared:
            self._lay(key, path, os.symlink)
        for key, path in own:
            self._lay(key, path, os.rename)
        for directory, _ in landing or ():
            try:
                os.makedirs(directory, exist_ok=True)
            except OSError as error:
                raise StageError(OUTPUT, "cannot make %s: %s" % (directory, error.strerror))

    def _lay(self, key, path, how):
        source = os.path.join(self._inputs, str(key))
        target = self._inside(path)
        if key in self.bad:
            raise StageError(INPUT, "the input %s did not arrive whole: %s" % (path, self.bad[key]))
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            how(source, target)
        except FileExistsError:
            if how is os.symlink:
                return  # two names of one input
            raise StageError(INPUT, "two inputs are both called %s" % path)
        except OSError as error:
            raise StageError(INPUT, "cannot lay down the input %s: %s" % (path, error.strerror))
        self._used = True

    def _inside(self, path):
        whole = os.path.normpath(os.path.join(self.directory, path))
        if not whole.startswith(self.directory + os.sep):
            raise StageError(INPUT, "%s would leave the task's directory" % path)
        return whole

    def prepare(self, outputs):
        """Make the directories that outputs will be written to."""
        for path in outputs:
            os.makedirs(os.path.dirname(self._inside(path)), exist_ok=True)
        self._used = self._used or bool(outputs)

    def landed(self, landing):
        """Check outputs that were written on this machine; returns a size in bytes for each, -1 for a directory."""
        return [self._size(path, os.path.basename(path)) for _, path in landing]

    def _size(self, path, name):
        try:
            info = os.stat(path)
        except OSError:
            raise StageError(MISSING_OUTPUT, "it ended well but did not write its output %s" % name)
        return -1 if stat.S_ISDIR(info.st_mode) else info.st_size

    def send(self, task, bundle, outputs, send):
        """Send a task's outputs to the front end; returns a size in bytes for each, -1 for a directory."""
        sizes = []
        for index, path in enumerate(outputs):
            whole = self._inside(path)
            sizes.append(self._size(whole, path))
            try:
                if sizes[-1] < 0:
                    self._send_tree(task, bundle, index, whole, send)
                else:
                    self._send_file(task, {"bundle": bundle, "output": index}, whole, send)
            except OSError as error:
                raise StageError(OUTPUT, "cannot read its output %s: %s" % (path, error.strerror))
        return sizes

    def _send_tree(self, task, bundle, index, top, send):
        for directory, _, names in os.walk(top):
            under = os.path.relpath(directory, top)
            send(wire.pack(wire.OUTPUT, 0, task, {"bundle": bundle, "output": index, "under": under, "directory": 1}))
            for name in names:
                head = {"bundle": bundle, "output": index, "under": os.path.normpath(os.path.join(under, name))}
                self._send_file(task, head, os.path.join(directory, name), send)

    def _send_file(self, task, head, path, send):
        with open(path, "rb", buffering=0) as file:
            info = os.fstat(file.fileno())
            head = dict(head, size=info.st_size, mode=stat.S_IMODE(info.st_mode), at=0)
            while True:
                data = file.read(wire.CHUNK)
                if data or head["at"] == 0:
                    send(wire.pack(wire.OUTPUT, 0, task, head, data))
                if not data:
                    break
                head["at"] += len(data)
        if head["at"] != info.st_size:
            raise OSError(0, "it changed while it was read")

    def clean(self):
        """Leave nothing of the last task; costs one system call when it wrote nothing."""
        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                try:
                    os.unlink(path)
                except OSError:
                    pass
