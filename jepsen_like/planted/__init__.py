"""Known bugs, switched on to show that the harness finds them. Never part of the product."""
