"""The command line, a contract that scripts rely on.

`main.py` runs a command and turns errors into exit codes. `commands.py` and the `*_commands.py`
have the commands, `options.py` and `context.py` what they share, `demo.py` the first of them,
`terminal.py` the output, and `job_runner.py` the command lines of the jobs on a cluster.
"""
