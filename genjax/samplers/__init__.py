"""Samplers: pure steps that one `lax.scan` walks."""
