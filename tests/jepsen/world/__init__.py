"""What tests run inside a private world; started by `python -m tests.jepsen.world.enter`."""
