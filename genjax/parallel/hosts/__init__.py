"""Several processes, mostly one on each host: where each stands, who is still there, when all stop."""
