"""The server: real sockets, real requests."""
