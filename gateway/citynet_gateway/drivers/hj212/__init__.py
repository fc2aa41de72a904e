"""HJ 212-2017, the protocol of environmental monitoring stations: parser without IO, and the TCP server around it."""
