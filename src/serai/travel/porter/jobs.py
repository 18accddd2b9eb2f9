"""What can be asked about jobs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .calls import Handler

SOURCES: dict[str, str] = {}  # the text of the modules of this program, for processes that outlive it
HANDLERS: dict[str, Handler] = {}
