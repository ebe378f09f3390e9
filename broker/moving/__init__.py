"""Move a cluster from one database to another, and prove that it arrived."""
