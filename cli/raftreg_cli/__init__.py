"""The command line `raftreg`: the processes, and the commands that ask them."""
