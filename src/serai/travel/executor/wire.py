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
NEEDS = 13  # identifier: bundle, 0 for none. {"files"}: catalogued files that must be there before its RUN may start
PIECE = 14  # lane: attempt, identifier: number of a catalogued file. {"end"} or {"bad"} in the last of its pieces
PEERS = 15  # {"cert", "key", "token"}: speak with the run's other nodes directly
SHARE = 16  # {"files"}: {number: [path, size, when it was changed]} of files on this node that peers may read
GIVE = 17  # identifier: of this request. {"name", "at", "length"}: a part of a file that peers may read
AFAR = 18  # {"token", "limit"}, body: the program, compressed, that starts tasks which read from afar
GRANTED = 19  # identifier: number of a catalogued file. {"grant"}: what lets this node read it at its origin; or empty

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
NEED = (
    42  # lane: attempt, identifier: number of a catalogued file: no peer has it. {"origin"}: what lets it be read there
)
HOLDS = 43  # {"has", "gone"}: digests of what came into the cache and what left it
CAME = 44  # identifier: number of a catalogued file. {"digest", "way", "from", "bytes", "took", "kept"}, or {"why"};
# "missed": {origin: why it did not come from there}
READY = 45  # identifier: bundle: all that it needs is there. {"ways"}: {number: how it came}
GIVEN = 47  # identifier: of the request. The part; {"why"} where there is none
SERVES = 46  # {"addresses", "port"}: where peers find this node; empty when it cannot listen
SEEN = (
    49  # lane, identifier: task. {"w", "ok", "files"}: [number, read, moved, took, from, missed] of what it read from
)
# afar: "from" is a peer, an origin, or empty for the front end
NO_MOUNT = 48  # lane. {"why"}: a task that was to read from afar comes back, as none will here
LANE_DIED = 38  # lane. {"exit", "log", "bundles"}: those it was not through with

# Between the agent and a lane.
PEEK = 64  # what are you doing?
NOW = 65  # identifier: task, 0 for none
BAD_FILE = 66  # identifier: key. It did not arrive whole
HELD = 67  # {"files"}: {number: its stamp, or why it is not there}
SPOILED = 68  # identifier: number of a catalogued file: it is not what it was any more

__all__ = ["CHUNK", "HEADER", "LIMIT", "LONGEST", "Reader", "pack", "peek", "unpack", "write"]
