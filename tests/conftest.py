"""For all tests: `run.py test` ends a run by SIGTERM, at which fixtures have to stop their servers, as at Ctrl-C."""

from __future__ import annotations

import signal
import threading

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
