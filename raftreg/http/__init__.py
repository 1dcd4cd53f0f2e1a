"""What servers and agents share of HTTP: parameters, JSON shapes, errors, watches."""
