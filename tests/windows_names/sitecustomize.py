"""Gives Python the names that it has on Windows: in a process with this folder in PYTHONPATH, and in those that it starts.

What Python's own modules, platformdirs and psutil need on this system is imported before.
"""

import multiprocessing.popen_spawn_posix
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile

import platformdirs.unix
import psutil

KEPT = (multiprocessing.popen_spawn_posix, platformdirs.unix, psutil, selectors, socket, subprocess, tempfile)
OF_OS = """
    O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK O_SYNC chown chroot confstr ctermid fchdir fchmod fchown fdatasync fork forkpty
    fpathconf fstatvfs getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getresuid getsid getuid initgroups
    killpg lchown lockf major makedev memfd_create mkfifo mknod nice openpty pathconf pipe2 posix_fadvise posix_fallocate
    posix_spawn pread preadv pwrite pwritev readv sched_getaffinity sched_setaffinity sched_yield sendfile
    setegid seteuid setgid setgroups setpgid setpriority setregid setreuid setsid setuid splice sync sysconf
    tcgetpgrp tcsetpgrp ttyname wait wait3 wait4 writev
""".split()
OF_SIGNAL = """
    SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPROF SIGPWR SIGQUIT SIGSTOP SIGSYS SIGTRAP SIGTSTP SIGTTIN
    SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIG_BLOCK SIG_SETMASK SIG_UNBLOCK alarm getitimer pause
    pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait sigwaitinfo
""".split()
ABSENT_MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty")

for module, names in ((os, OF_OS), (signal, OF_SIGNAL)):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ABSENT_MODULES:
    sys.modules[name] = None
