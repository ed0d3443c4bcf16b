"""Run and sweep directories on disk: their files and states, and nets loaded from them.

run_dir         the files of a run directory, and what writes each
sweep_dir       the files of a sweep directory
schema          the content of their JSON files
status_and_log  writes status.json and log.txt while a run trains
load_net        loads the trained net of a run
trust           checks what a loaded config may import
"""
