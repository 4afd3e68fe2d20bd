"""Coordination of the processes of one run: rendezvous, heartbeats, failure detection, common stop."""
