"""The pure state machine of the registry: commands in, results and changes out."""
