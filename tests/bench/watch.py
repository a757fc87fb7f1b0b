"""Run a command and write what it and all its processes took, as JSON, to the file that is named first.

It is small, so that the peak memory is the command's: Linux counts the memory of the parent process to it.
"""

import json
import os
import subprocess
import sys
import time

began = time.monotonic()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
with open(sys.argv[1], "w") as file:
    json.dump(
        {
            "status": process.returncode,
            "wall_s": time.monotonic() - began,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "rss_bytes": usage.ru_maxrss * 1024,
        },
        file,
    )
