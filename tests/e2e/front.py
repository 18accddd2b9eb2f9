"""`serai` as a user runs it, except that it is as patient as the environment says: tests have no minutes to wait."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from serai.access.home_calling import Front
from serai.apps import command_run
from serai.cli.main import main
from serai.dispatch.carrier import Timing
from serai.dispatch.run import Settings
from serai.pool.members import Patience

if __name__ == "__main__":
    told = json.loads(os.environ["SERAI_TEST_TIMES"])
    settings = replace(Settings(), timing=Timing(**told["timing"]), patience=Patience(**told["patience"]))
    if told["front"]:
        told["front"]["authorized_keys"] = Path(told["front"]["authorized_keys"])
        settings = replace(settings, front=Front(**told["front"]))
    command_run.settings_from = lambda on: settings  # noqa: ARG005 - as the real one
    main()
