"""The command line. Scripts rely on its commands, options, exit codes and `--json` output.

`main.py` has all commands of `run_spark_local.py`: `job_commands.py` those of the batch jobs,
`commands.py` and `*_commands.py` the others. `job_script.py` runs one job's command as a script.
"""
