"""What the front end, the agent and the lanes say to one another: the operations of their frames.

The agent passes frames on by their header alone.
"""

from __future__ import annotations

from ..frames import CHUNK, HEADER, LIMIT, LONGEST, Reader, pack, peek, unpack, write

PROTOCOL = 1
EVERY_LANE = 0xFFFF

# From the front end to the agent.
HELLO = 1  # what the run wants of this node
WORK = 2  # identifier: work. The part that many tasks share
RUN = 3  # lane, identifier: bundle. Tasks to run, in order
CANCEL = 4  # lane. {"ids"}: end these tasks, running or not
RECALL = 5  # lane, identifier: bundle. Give back what was not started
FILE = 6  # lane, identifier: key. A piece of an input
PING = 7
PROBE = 8  # {"software"}: which of these programs are there? {"reach"}: how near are these [host, port]? told by BEAT
DROP = 9  # {"keys"}: inputs that nobody will use again
MODULES = 10  # {name: source}: modules that functions need and the node may lack
BYE = 11  # end, now
FORGET = 12  # {"works"}: works that will not be used again

# From the agent to the front end.
AD = 32  # the check-in: what this node has
RESULT = 33  # lane, identifier: bundle. How tasks ended
OUTPUT = 34  # lane, identifier: task. A piece of an output
BEAT = 35  # alive; what each lane does
PROBED = 36
TROUBLE = 37  # lane: a sentence about the executor itself
LAST = 39  # as RESULT, and the bundle is through
LEFT = 40  # body: a frame for this run that an earlier executor left; empty: that was all
NOT_HERE = 41  # lane. {"path", "why"}: an input that was to be used in place cannot be; its task comes back
LANE_DIED = 38  # lane. {"exit", "log", "bundles"}: those it was not through with

# Between the agent and a lane.
PEEK = 64  # what are you doing?
NOW = 65  # identifier: task, 0 for none
BAD_FILE = 66  # identifier: key. It did not arrive whole

__all__ = ["CHUNK", "HEADER", "LIMIT", "LONGEST", "Reader", "pack", "peek", "unpack", "write"]
