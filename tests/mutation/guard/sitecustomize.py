"""Makes a process, and those that it starts, import `cnnbench` from one tree alone, and limits their memory.

The folder of this file stands in PYTHONPATH while mutants run; Python imports it after it has read the .pth files.
"""

import os
import resource
import sys

MEMORY = 8 * 2**30  # bytes of data: a mutant that asks for more fails, and does not exhaust the machine

_sources = os.environ.get("MUTATION_SOURCES")
if _sources:
    sys.path[:] = [
        folder
        for folder in sys.path
        if folder == _sources or not os.path.isfile(os.path.join(folder, "cnnbench", "__init__.py"))
    ]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
