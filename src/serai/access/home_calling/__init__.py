"""Home-calling: a task on a remote host uses the front end's machine as the front end uses that host.

``scp home:data/x .`` works in a task without a line of code, by a credential that is made for the run, restricted in
the front's ``authorized_keys``, put in a temporary place on the node, and removed at the end; after a crash, by the
next start. Off unless asked for.
"""

from __future__ import annotations

from serai.access.home_calling.calling import Front, HomeCalling
from serai.access.home_calling.keys import Mode

__all__ = ["Front", "HomeCalling", "Mode"]
