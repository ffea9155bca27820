"""Tests of the clients of inference servers, against real sockets."""
