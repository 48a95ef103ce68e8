"""Protocols on secret shares and their maths: no HTTP, no files, no clock, no sockets."""
