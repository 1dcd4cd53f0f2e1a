"""What the clients do, each with the checker that judges it."""
